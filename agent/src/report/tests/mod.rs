//! Reporting to a real service in this process.

mod controller;
mod snapshots;
mod streams;
mod usage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bulkhead_core::sample::UnixNanos;
use bulkhead_core::{CgroupId, Epoch, LocalPods, Meter, UsageRecord, VirtualClusterNumber, Window};
use bulkhead_proto::{Endpoint, v1};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Pace, ReportEvent, ReportOptions, World, run};
use crate::journal::{Journal, Limits, Sequence};
use controller::{Behaviour, Controller, Key};

const BOOT: &str = "boot-1";
const QUICK: Pace = Pace {
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(20),
    heartbeat: Duration::from_millis(50),
    patience: Duration::from_secs(5),
    window_batches: 8,
    window_bytes: 4_096,
};
const LIMITS: Limits = Limits { max_bytes: 1 << 20, segment_bytes: 4 << 10 };

/// An agent's journal and its reporting.
struct Node {
    directory: TempDir,
    journal: Arc<Mutex<Journal>>,
    facts: watch::Sender<v1::NodeFacts>,
    status: watch::Sender<v1::NodeStatus>,
    pods: watch::Sender<Arc<LocalPods>>,
    stop: watch::Sender<bool>,
}

/// Reporting that runs.
struct Reporting {
    events: mpsc::Receiver<ReportEvent>,
    task: JoinHandle<()>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&directory.path().join("journal"), LIMITS, BOOT).unwrap();
        Self {
            directory,
            journal: Arc::new(Mutex::new(journal)),
            facts: watch::Sender::new(facts(BOOT)),
            status: watch::Sender::default(),
            pods: watch::Sender::default(),
            stop: watch::Sender::new(false),
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock/agents")
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap()
    }

    fn report(&self, pace: Pace) -> Reporting {
        let (sender, events) = mpsc::channel(16);
        let options = ReportOptions {
            endpoint: Endpoint::Unix(self.socket()),
            node: "node-1".to_owned(),
            started_unix_nanoseconds: 77,
            facts: self.facts.subscribe(),
            status: self.status.subscribe(),
            pods: self.pods.subscribe(),
            journal: self.journal().reader(),
            stop: self.stop.subscribe(),
            pace,
            outside: Arc::new(World),
        };
        Reporting { events, task: tokio::spawn(run(options, sender)) }
    }
}

impl Reporting {
    /// The next event that matters to the test.
    async fn next<T>(&mut self, wanted: impl Fn(ReportEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("reporting goes on");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(20), found).await.expect("it comes soon")
    }

    async fn away(&mut self) -> String {
        self.next(|event| match event {
            ReportEvent::Away { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }

    async fn connected(&mut self) -> String {
        self.next(|event| match event {
            ReportEvent::Connected { controller_version, .. } => Some(controller_version),
            _ => None,
        })
        .await
    }

    async fn acknowledged(&mut self, at_least: Sequence) {
        self.next(|event| match event {
            ReportEvent::Acknowledged(sequence) if sequence >= at_least => Some(()),
            _ => None,
        })
        .await;
    }
}

/// Waits for something that comes soon.
async fn until(mut condition: impl FnMut() -> bool) {
    let seen = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), seen).await.expect("it comes soon");
}

fn facts(boot: &str) -> v1::NodeFacts {
    v1::NodeFacts { boot_id: boot.to_owned(), ..v1::NodeFacts::default() }
}

fn record(cgroup: u64, window: u64, value: u64) -> UsageRecord {
    UsageRecord {
        virtual_cluster: "team-a".parse().unwrap(),
        number: VirtualClusterNumber::new(1).unwrap(),
        cgroup: CgroupId(cgroup),
        epoch: Epoch(5),
        window: Window { start: UnixNanos(window * 60), length_nanoseconds: 60 },
        values: BTreeMap::from([(Meter::CPU_USAGE, value), (Meter::IO_READ, value / 2)]),
    }
}

/// What the ledger must have of a record.
fn truth(boot: &str, record: &UsageRecord) -> Vec<(Key, u64)> {
    let key = |meter: &Meter| {
        let name = record.virtual_cluster.to_string();
        let window = record.window.start.0;
        (boot.to_owned(), name, record.cgroup.0, record.epoch.0, window, meter.code())
    };
    record.values.iter().map(|(meter, value)| (key(meter), *value)).collect()
}
