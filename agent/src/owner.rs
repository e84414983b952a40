//! The thread that owns the kernel: events in, reports out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bulkhead_core::{Books, Degradation, Fact, LocalPods, Pod, PodUid, Snapshot};
use bulkhead_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::checkpoint;
use crate::clock::Now;
use crate::cycle::{Admission, Cycle, PodsReport, Report, Settings};
use crate::faults::{self, Point};
use crate::inventory;
use crate::journal::{Journal, Recovered, Sequence};
use crate::kernel::seam::Kernel;
use crate::snapshot_cache::{self, Keeper};
use crate::status;

/// What the owner is told or asked.
#[derive(Debug)]
pub enum Event {
    /// The node was told something.
    Learn(Fact),
    /// A pod begins to run, and waits for the answer.
    PodStarts(Box<Pod>, oneshot::Sender<Admission>),
    /// A pod was stopped, and waits for its last count.
    PodStopped(PodUid, oneshot::Sender<()>),
    /// The kubelet made cgroups of these pods, or removed some, while no runtime tells of pods.
    Look(Vec<PodUid>, Now),
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
    /// What belongs to Kubernetes; `None`: virtual clusters have cgroups of their own.
    pub kubernetes: Option<Kubernetes>,
}

/// What the owner says of pods, and what it is told of their source.
#[derive(Debug)]
pub struct Kubernetes {
    /// The pods of the node, for the controller.
    pub pods: watch::Sender<Arc<LocalPods>>,
    /// How the node does by them.
    pub report: watch::Sender<PodsReport>,
    /// What the controller said, for whoever must answer at once.
    pub told: watch::Sender<Option<Arc<Snapshot>>>,
    /// How it is with the runtime.
    pub runtime: watch::Receiver<bulkhead_nri::State>,
}

/// The cycle, with what it is told and where it says what it found.
#[derive(Debug)]
pub struct Owner<K> {
    cycle: Cycle<K>,
    reports: Reports,
    /// The newest snapshot, until it is known whether it is worth keeping.
    said: Option<Arc<Snapshot>>,
    keeper: Keeper,
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
    pub fn new(cycle: Cycle<K>, reports: Reports) -> Self {
        let keeper = Keeper::new(reports.snapshot_file.clone());
        Self { cycle, reports, said: None, keeper }
    }

    /// An owner that goes on where the one before it ended: from what the journal and the kept
    /// snapshot hold.
    pub fn resume(
        kernel: K,
        (journal, recovered): (Journal, &Recovered),
        settings: Settings,
        reports: Reports,
    ) -> Self {
        let books = books(&settings.boot_id, recovered);
        let mut cycle = Cycle::new(kernel, journal, settings, books);
        cycle.note(conditions(recovered));
        match snapshot_cache::load(&reports.snapshot_file) {
            // Pods may have come since.
            Ok(Some(kept)) => {
                cycle.learn(Fact::from(Snapshot { names_pods: false, ..kept }));
            }
            Ok(None) => {
                tracing::info!("nothing is known of virtual clusters until the controller says");
            }
            Err(error) => tracing::error!(%error, "what the controller said last cannot be read"),
        }
        reports.say_what_was_told(&cycle);
        Self::new(cycle, reports)
    }

    /// Takes in what it is told.
    pub fn take(&mut self, event: Event) -> After {
        let is_of_pods = matches!(event, Event::Learn(_) | Event::PodStarts(..));
        let after = take(&mut self.cycle, event, &mut self.said);
        if is_of_pods {
            self.reports.say_what_was_told(&self.cycle);
        }
        after
    }

    /// One turn, and what it found is said. Gives whether there can be another.
    pub fn turn(&mut self, now: Now) -> bool {
        let report = self.cycle.turn(now);
        self.reports.say(&mut self.cycle, &report, now);
        if self.cycle.accepts()
            && let Some(said) = self.said.take()
        {
            self.keeper.keep(&said);
        }
        !self.cycle.needs_restart()
    }

    /// The cycle.
    pub const fn cycle(&mut self) -> &mut Cycle<K> {
        &mut self.cycle
    }
}

impl Reports {
    /// The controller and the runtime hear of it before the next turn.
    fn say_what_was_told<K: Kernel>(&self, cycle: &Cycle<K>) {
        let Some(kubernetes) = &self.kubernetes else { return };
        let told = cycle.told();
        kubernetes.told.send_if_modified(|known| {
            let is_same = match (&*known, &told) {
                (Some(known), Some(told)) => Arc::ptr_eq(known, told),
                (known, told) => known.is_none() && told.is_none(),
            };
            known.clone_from(&told);
            !is_same
        });
        let pods = cycle.local_pods();
        kubernetes.pods.send_if_modified(|known| {
            let changed = **known != pods;
            if changed {
                *known = Arc::new(pods);
            }
            changed
        });
    }

    fn say<K: Kernel>(&self, cycle: &mut Cycle<K>, report: &Report, now: Now) {
        let backlog = cycle.journal().reader().backlog_records();
        let mut status = status::node_status(report, &self.node, now.at, backlog);
        if let (Some(kubernetes), Some(pods)) = (&self.kubernetes, &report.pods) {
            let runtime = kubernetes.runtime.borrow();
            let conditions = inventory::conditions(&runtime, pods);
            status.reasons.extend(conditions.iter().map(status::reason));
            status.late_pods = status::late_pods(&runtime, pods);
            drop(runtime);
            kubernetes.report.send_replace(pods.clone());
        }
        self.status.send_replace(status);
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
    owner.keeper.begin();
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
fn books(boot_id: &str, recovered: &Recovered) -> Books {
    let Some(bytes) = &recovered.checkpoint else {
        return Books::default();
    };
    checkpoint::decode(boot_id, bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "time integrals begin again");
        Books::default()
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

fn take<K: Kernel>(cycle: &mut Cycle<K>, event: Event, said: &mut Option<Arc<Snapshot>>) -> After {
    match event {
        Event::Learn(fact) => {
            if let Fact::Snapshot(snapshot) = &fact {
                *said = Some(Arc::clone(snapshot));
            }
            cycle.learn(fact);
            After::Turn
        }
        Event::PodStarts(pod, reply) => {
            let (admission, turn) = cycle.admit(*pod, Now::read());
            // Whoever asked may have given up.
            drop(reply.send(admission));
            if turn { After::Turn } else { After::Wait }
        }
        Event::PodStopped(uid, reply) => {
            cycle.count_last(&uid, Now::read());
            let _ = reply.send(());
            After::Wait
        }
        Event::Look(pods, at) => {
            cycle.cgroups_seen(pods, at);
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
