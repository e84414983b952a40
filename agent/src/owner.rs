//! The thread that owns the kernel: events in, reports out.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bulkhead_core::Fact;
use bulkhead_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::clock::Now;
use crate::cycle::{Cycle, Report};
use crate::journal::Sequence;
use crate::kernel::seam::Kernel;
use crate::snapshot_cache::{self, SnapshotCacheError};
use crate::status;

/// What the owner is told or asked.
#[derive(Debug)]
pub enum Event {
    /// The node was told something.
    Learn {
        /// What.
        fact: Fact,
        /// The same as it came, to be kept for the next start.
        chunks: Vec<v1::SnapshotChunk>,
    },
    /// The controller has every batch up to here.
    Acknowledged(Sequence),
    /// The controller knows the journal up to here, further than it goes.
    ContinueAfter(Sequence),
    /// What would the next turn do?
    Plan(oneshot::Sender<Result<Vec<String>, String>>),
    /// Count once more and end. Everything stays in place.
    Shutdown,
}

/// Where the owner says what it found.
#[derive(Debug)]
pub struct Reports {
    /// This node's name.
    pub node: String,
    /// This boot.
    pub boot_id: String,
    /// As `uname -r` gives it.
    pub kernel_release: String,
    /// Where the last snapshot is kept.
    pub snapshot_file: PathBuf,
    /// What the node stands at.
    pub status: watch::Sender<v1::NodeStatus>,
    /// What the node is.
    pub facts: watch::Sender<v1::NodeFacts>,
}

impl Reports {
    fn say<K: Kernel>(&self, cycle: &mut Cycle<K>, report: &Report, now: Now) {
        let backlog = cycle.journal().reader().backlog_records();
        self.status.send_replace(status::node_status(report, &self.node, now.at, backlog));
        if let Some(node) = cycle.node() {
            let facts = status::node_facts(node, &self.boot_id, &self.kernel_release);
            self.facts.send_if_modified(|known| {
                let changed = *known != facts;
                *known = facts;
                changed
            });
        }
    }
}

/// Runs until [`Event::Shutdown`] or until nobody can send events any more.
pub fn run<K: Kernel>(
    mut cycle: Cycle<K>,
    events: &Receiver<Event>,
    reports: &Reports,
    interval: Duration,
) {
    let mut next = Instant::now();
    let mut said = Vec::new();
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let mut after = match events.recv_timeout(wait) {
            Ok(event) => take(&mut cycle, event, &mut said),
            Err(RecvTimeoutError::Timeout) => After::Turn,
            Err(RecvTimeoutError::Disconnected) => After::End,
        };
        // A burst of facts is one change; but nothing that is asked or told delays a turn.
        while after != After::End && Instant::now() < next {
            let Ok(event) = events.try_recv() else { break };
            after = after.max(take(&mut cycle, event, &mut said));
        }
        if after == After::Wait && Instant::now() < next {
            continue;
        }
        let now = Now::read();
        let report = cycle.turn(now);
        reports.say(&mut cycle, &report, now);
        if cycle.accepts() && !said.is_empty() {
            keep(&reports.snapshot_file, &std::mem::take(&mut said));
        }
        if after == After::End || cycle.needs_restart() {
            return;
        }
        next = Instant::now() + interval;
    }
}

/// Keeps what the controller said for the next start. Where it cannot be kept, nothing is: an
/// older one would take back what stands, and with none everything stays.
fn keep(file: &Path, chunks: &[v1::SnapshotChunk]) {
    let Err(error) = snapshot_cache::store(file, chunks) else { return };
    tracing::error!(%error, "after a restart with the controller away, nothing is known");
    if matches!(error, SnapshotCacheError::Foreign { .. }) {
        return;
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(%error, file = %file.display(), "an outdated snapshot stays");
        }
        _ => {}
    }
}

/// What follows an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum After {
    Wait,
    Turn,
    End,
}

fn take<K: Kernel>(cycle: &mut Cycle<K>, event: Event, said: &mut Vec<v1::SnapshotChunk>) -> After {
    match event {
        Event::Learn { fact, chunks } => {
            cycle.learn(fact);
            *said = chunks;
            After::Turn
        }
        Event::Acknowledged(sequence) => {
            if let Err(error) = cycle.journal().acknowledge(sequence) {
                tracing::error!(%error, %sequence, "the journal could not forget what is durable");
            }
            After::Wait
        }
        Event::ContinueAfter(sequence) => {
            if let Err(error) = cycle.journal().continue_after(sequence) {
                tracing::error!(%error, %sequence, "the journal could not go on from there");
            }
            After::Wait
        }
        Event::Plan(reply) => {
            let plan = cycle.preview().map_err(|error| error.to_string());
            // Whoever asked may be gone.
            drop(reply.send(plan));
            After::Wait
        }
        Event::Shutdown => After::End,
    }
}
