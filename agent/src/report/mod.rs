//! The stream to the controller: usage, status and pods go out, snapshots and what changes in
//! them come in.
//!
//! Usage is read from the journal, after what the controller says it has, and the journal's owner
//! is told what it acknowledged; so an outage loses nothing, and neither does an end of this
//! program at any moment. Batches of an earlier boot of the machine are sent first, on a stream
//! whose Hello names that boot: cgroup ids mean nothing in another.

mod assemble;
mod backoff;
mod ending;
mod outside;
mod pods;
mod remote;
mod session;
#[cfg(test)]
mod tests;
mod window;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulkhead_core::{LocalPods, Snapshot};
use bulkhead_proto::{Endpoint, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use assemble::{Assembler, Disorder, Progress, Refusal};
pub use outside::{Connecting, Outside, Reading, World};
pub use remote::{Introducing, Remote};

use crate::journal::{Reader, Sequence};
use backoff::Backoff;
use ending::End;
use session::{Session, Standing};

/// What reporting needs.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The controller.
    pub endpoint: Endpoint,
    /// The node's name.
    pub node: String,
    /// When this process began, nanoseconds since the Unix epoch.
    pub started_unix_nanoseconds: u64,
    /// What the node is. Its boot id is the one that the journal was opened with. A change ends
    /// the stream and begins another.
    pub facts: watch::Receiver<v1::NodeFacts>,
    /// What the node stands at. Its backlog is filled in here, and what is wrong with the stream
    /// is added to its reasons.
    pub status: watch::Receiver<v1::NodeStatus>,
    /// The pods that run on the node. Told whole on each stream, and as changes after that.
    pub pods: watch::Receiver<Arc<LocalPods>>,
    /// What was measured.
    pub journal: Reader,
    /// True, or its sender gone: reporting ends.
    pub stop: watch::Receiver<bool>,
    /// How fast.
    pub pace: Pace,
    /// The world, or what stands for it.
    pub outside: Arc<dyn Outside>,
}

/// How fast and how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Wait before the second try to connect.
    pub first_wait: Duration,
    /// Longest wait between tries. A stream that lasted so long makes the next wait short again.
    pub longest_wait: Duration,
    /// Longest time between two statuses.
    pub heartbeat: Duration,
    /// Longest time without an answer that must come.
    pub patience: Duration,
    /// Batches on their way at most.
    pub window_batches: usize,
    /// Bytes on their way at most, but one batch always.
    pub window_bytes: usize,
}

impl Default for Pace {
    /// 0.2 s to 10 s between tries, a status every 10 s, 30 s of patience, 32 batches or 4 MiB.
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            window_batches: 32,
            window_bytes: 4 << 20,
        }
    }
}

/// What happened on the stream, for the journal's and the kernel's owner.
#[derive(Clone, PartialEq, Debug)]
pub enum ReportEvent {
    /// The controller answers.
    Connected {
        /// Since when.
        since: SystemTime,
        /// Its version.
        controller_version: String,
    },
    /// The controller does not answer, or not rightly. Told when that begins and when the
    /// reason is another.
    Away {
        /// Since when it was not connected.
        since: SystemTime,
        /// Why.
        reason: String,
    },
    /// A new snapshot, whole and valid, however it was told.
    Snapshot(Arc<Snapshot>),
    /// A snapshot was wrong; the one before it stays. The status that is sent says so too.
    SnapshotRefused {
        /// Its generation.
        generation: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Every batch up to here is on the controller's disk: tell [`crate::journal::Journal::acknowledge`].
    Acknowledged(Sequence),
    /// The controller knows batches of this journal that the journal does not: it was restored
    /// from an older copy. Call [`crate::journal::Journal::continue_after`] with the first; until
    /// then nothing can be sent.
    ControllerAhead {
        /// The last batch that the controller has.
        acknowledged: Sequence,
        /// The last that the journal knows of.
        last: Sequence,
    },
    /// Storage damaged something that could not be sent; one sentence. Newer records make up for
    /// it where their cgroups still live.
    Unreadable(String),
}

/// Reports until it is told to stop, or nobody takes its events any more.
pub async fn run(options: ReportOptions, events: mpsc::Sender<ReportEvent>) {
    let mut stop = options.stop.clone();
    tokio::select! {
        biased;
        // An error means that the sender is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        () = events.closed() => {}
        () = report(&options, &events) => {}
    }
}

async fn report(options: &ReportOptions, events: &mpsc::Sender<ReportEvent>) {
    let pace = options.pace;
    let mut backoff = Backoff::new(pace.first_wait, pace.longest_wait);
    let mut standing = Standing::default();
    let mut away: Option<(SystemTime, String)> = None;
    let journal = &options.journal;
    let mut boot = journal.boot_after(journal.acknowledged());
    loop {
        let mut welcomed = None;
        let end = Session::run(options, events, &mut standing, &mut welcomed, boot.take()).await;
        let end = match end {
            Ok(End::Closed) => return,
            Ok(End::FactsChanged) => continue,
            Ok(End::OtherBoot(other)) => {
                boot = Some(other);
                continue;
            }
            Err(error) => error,
        };
        if welcomed.is_some() {
            away = None;
        }
        if welcomed.is_some_and(|at: Instant| at.elapsed() >= pace.longest_wait) {
            backoff.reset();
        }
        let reason = chain(&end);
        let since = away.as_ref().map_or_else(SystemTime::now, |(since, _)| *since);
        let wait = backoff.wait(options.outside.random());
        if away.as_ref().is_none_or(|(_, known)| *known != reason) {
            tracing::warn!(endpoint = %options.endpoint, ?wait, reason, "the controller is away");
            let event = ReportEvent::Away { since, reason: reason.clone() };
            if events.send(event).await.is_err() {
                return;
            }
        }
        away = Some((since, reason));
        tokio::time::sleep(wait).await;
    }
}

/// An error and everything that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
