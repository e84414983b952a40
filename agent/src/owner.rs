//! The thread that owns the kernel: events in, reports out.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bulkhead_core::{Degradation, Fact, Integrals};
use bulkhead_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::checkpoint;
use crate::clock::Now;
use crate::cycle::{Cycle, Report, Settings};
use crate::faults::{self, Point};
use crate::journal::{Journal, Recovered, Sequence};
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

/// The cycle, with what it is told and where it says what it found.
#[derive(Debug)]
pub struct Owner<K> {
    cycle: Cycle<K>,
    reports: Reports,
    /// The newest snapshot as it came, until it is known whether it is worth keeping.
    said: Vec<v1::SnapshotChunk>,
}

/// What follows an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum After {
    /// Nothing, until the next turn.
    Wait,
    /// A turn, soon.
    Turn,
    /// A last turn.
    End,
}

impl<K: Kernel> Owner<K> {
    /// An owner that knows nothing but what `cycle` knows.
    pub const fn new(cycle: Cycle<K>, reports: Reports) -> Self {
        Self { cycle, reports, said: Vec::new() }
    }

    /// An owner that goes on where the one before it ended: from what the journal and the kept
    /// snapshot hold.
    pub fn resume(
        kernel: K,
        (journal, recovered): (Journal, &Recovered),
        settings: Settings,
        reports: Reports,
    ) -> Self {
        let integrals = integrals(&settings.boot_id, recovered);
        let mut cycle = Cycle::new(kernel, journal, settings, integrals);
        cycle.note(conditions(recovered));
        match snapshot_cache::load(&reports.snapshot_file) {
            Ok(Some(snapshot)) => cycle.learn(Fact::Snapshot(snapshot)),
            Ok(None) => {
                tracing::info!("nothing is known of virtual clusters until the controller says");
            }
            Err(error) => tracing::error!(%error, "what the controller said last cannot be read"),
        }
        Self::new(cycle, reports)
    }

    /// Takes in what it is told.
    pub fn take(&mut self, event: Event) -> After {
        take(&mut self.cycle, event, &mut self.said)
    }

    /// One turn, and what it found is said. Gives whether there can be another.
    pub fn turn(&mut self, now: Now) -> bool {
        let report = self.cycle.turn(now);
        self.reports.say(&mut self.cycle, &report, now);
        if self.cycle.accepts() && !self.said.is_empty() {
            keep(&self.reports.snapshot_file, &std::mem::take(&mut self.said));
        }
        !self.cycle.needs_restart()
    }

    /// The cycle.
    pub const fn cycle(&mut self) -> &mut Cycle<K> {
        &mut self.cycle
    }
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
pub fn run<K: Kernel>(mut owner: Owner<K>, events: &Receiver<Event>, interval: Duration) {
    let mut next = Instant::now();
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let mut after = match events.recv_timeout(wait) {
            Ok(event) => owner.take(event),
            Err(RecvTimeoutError::Timeout) => After::Turn,
            Err(RecvTimeoutError::Disconnected) => After::End,
        };
        // A burst of facts is one change; but nothing that is asked or told delays a turn.
        while after != After::End && Instant::now() < next {
            let Ok(event) = events.try_recv() else { break };
            after = after.max(owner.take(event));
        }
        if after == After::Wait && Instant::now() < next {
            continue;
        }
        if !owner.turn(Now::read()) || after == After::End {
            return;
        }
        next = Instant::now() + interval;
    }
}

/// What accounting carries over, where there is something to carry.
fn integrals(boot_id: &str, recovered: &Recovered) -> Integrals {
    let Some(bytes) = &recovered.checkpoint else {
        return Integrals::default();
    };
    checkpoint::decode(boot_id, bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "time integrals begin again");
        Integrals::default()
    })
}

/// What opening the journal found and an operator must know.
fn conditions(recovered: &Recovered) -> Vec<Degradation> {
    if let Some(tail) = &recovered.truncated {
        tracing::warn!(%tail, "a crash had cut the journal");
    }
    let degradation = |message| Degradation { subject: "journal".to_owned(), message };
    recovered.conditions().into_iter().map(degradation).collect()
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

fn take<K: Kernel>(cycle: &mut Cycle<K>, event: Event, said: &mut Vec<v1::SnapshotChunk>) -> After {
    match event {
        Event::Learn { fact, chunks } => {
            cycle.learn(fact);
            *said = chunks;
            After::Turn
        }
        Event::Acknowledged(sequence) => {
            faults::pass(Point::JournalAcknowledge);
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
