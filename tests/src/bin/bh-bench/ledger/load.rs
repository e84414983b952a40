//! What agents send.

use std::collections::BTreeMap;

use bulkhead_controller::{Batch, StreamKey};
use bulkhead_core::meter::NetworkUnit;
use bulkhead_core::sample::UnixNanos;
use bulkhead_core::usage::{Epoch, UsageRecord, Window};
use bulkhead_core::{CgroupId, Meter, VirtualClusterName, VirtualClusterNumber};

const SECOND: u64 = 1_000_000_000;
/// Length of a window, nanoseconds.
pub(super) const WINDOW: u64 = 60 * SECOND;
/// Passes in one window.
const PASSES: u64 = 6;
const CLUSTERS: u32 = 100;

/// Records of a virtual cluster in one pass: its cgroup's files, the integral of its memory, its
/// network counters.
const RECORDS_OF_ONE: u32 = 3;
/// Meters of the network that count anything.
const NETWORK: usize = 7;
/// Records of one batch.
pub(super) const RECORDS_EACH: u32 = RECORDS_OF_ONE * CLUSTERS;
/// Meter values of a record, on average: 20 of files, 1 integral, 7 of the network.
pub(super) const VALUES_EACH: f64 = 28.0 / 3.0;

/// When it all begins, nanoseconds since the Unix epoch: a whole hour.
pub(super) const BEGIN: u64 = 1_799_996_400 * SECOND;

/// One batch, and what comes with it.
pub(super) struct Turn {
    pub(super) node: u32,
    pub(super) stream: StreamKey,
    pub(super) batch: Batch,
    /// When it comes, nanoseconds since the Unix epoch.
    pub(super) now: u64,
}

/// What all nodes send, in order.
pub(super) struct Load {
    nodes: u32,
    names: Vec<VirtualClusterName>,
    network: Vec<Meter>,
    window: u64,
    sequence: u64,
}

impl Load {
    pub(super) fn new(nodes: u32) -> Self {
        Self::of(nodes, CLUSTERS)
    }

    /// Of so many virtual clusters on each node.
    pub(super) fn of(nodes: u32, clusters: u32) -> Self {
        let name = |index| format!("team-{index:03}").parse().expect("it is a name");
        let cells = [(0, 0, 0), (1, 0, 0), (0, 5, 0), (0, 3, 1)];
        let network = cells.into_iter().flat_map(|(direction, class, outcome)| {
            [NetworkUnit::Bytes, NetworkUnit::Packets]
                .into_iter()
                .filter_map(move |unit| Meter::network(direction, class, outcome, unit))
        });
        Self {
            nodes,
            names: (0..clusters).map(name).collect(),
            network: network.take(NETWORK).collect(),
            window: 0,
            sequence: 0,
        }
    }

    /// The time after everything that was sent.
    pub(super) fn now(&self) -> u64 {
        BEGIN + self.window * WINDOW
    }

    /// Every batch of the next window.
    pub(super) fn turns(&mut self) -> Vec<Turn> {
        let turns = (0..PASSES).flat_map(|pass| self.pass(pass)).collect();
        self.window += 1;
        turns
    }

    /// Only the last pass of the next window: the same is in the ledger then.
    pub(super) fn last_turns(&mut self) -> Vec<Turn> {
        let turns = self.pass(PASSES - 1);
        self.window += 1;
        turns
    }

    fn pass(&mut self, pass: u64) -> Vec<Turn> {
        self.sequence += 1;
        let at = self.window * PASSES + pass + 1;
        let turn = |node| Turn {
            node,
            stream: StreamKey {
                node: format!("node-{node}"),
                journal: format!("journal-{node}"),
                boot: format!("boot-{node}"),
            },
            batch: Batch { sequence: self.sequence, records: self.records(node, at) },
            now: self.now(),
        };
        (0..self.nodes).map(turn).collect()
    }

    fn records(&self, node: u32, at: u64) -> Vec<UsageRecord> {
        let window = Window { start: UnixNanos(self.now()), length_nanoseconds: WINDOW };
        let of = |(name, index): (&VirtualClusterName, u32)| {
            let record = move |epoch, values| UsageRecord {
                virtual_cluster: name.clone(),
                number: VirtualClusterNumber::new(index).expect("it is not 0"),
                cgroup: CgroupId(u64::from(node * 1_000 + index)),
                epoch: Epoch(epoch),
                window,
                values,
            };
            [
                record(0, files(at, index)),
                record(BEGIN, BTreeMap::from([(Meter::MEMORY_BYTE_SECONDS, at << 33)])),
                record(BEGIN + 1, self.traffic(at)),
            ]
        };
        self.names.iter().zip(1..).flat_map(of).collect()
    }

    fn traffic(&self, at: u64) -> BTreeMap<Meter, u64> {
        self.network.iter().zip(1_u64..).map(|(meter, n)| (*meter, at * 7_777 * n)).collect()
    }
}

/// All that a cgroup's files count; levels go up and down.
fn files(at: u64, index: u32) -> BTreeMap<Meter, u64> {
    let meters = Meter::FIXED.iter().filter(|meter| **meter != Meter::MEMORY_BYTE_SECONDS);
    let value = |(meter, n): (&Meter, u64)| match *meter {
        Meter::MEMORY_CURRENT => (*meter, (200 + at * 37 % 100) << 20),
        Meter::PIDS_CURRENT => (*meter, 20 + at % 7),
        Meter::MEMORY_PEAK => (*meter, 300 << 20),
        Meter::PIDS_PEAK => (*meter, 26),
        meter => (meter, at * (3_333_333_333 / n + u64::from(index))),
    };
    meters.zip(1..).map(value).collect()
}
