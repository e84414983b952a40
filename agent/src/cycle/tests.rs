use std::collections::BTreeSet;

use bulkhead_core::amount::{Amount, Pids};
use bulkhead_core::control::{ControlValue, Max};
use bulkhead_core::sample::{CpuCounters, MemoryCounters};
use bulkhead_core::{
    CgroupCounters, Control, Guarantee, Limit, NetworkMode, NetworkPolicy, Snapshot, UnixNanos,
    VirtualCluster,
};

use super::*;
use crate::journal::{Journal, Limits, Sequence};
use crate::kernel::fake::FakeKernel;

const SECOND: u64 = 1_000_000_000;

struct Rig {
    cycle: Cycle<FakeKernel>,
    clock: u64,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(directory.path(), Limits::default(), "boot").unwrap();
        let settings = Settings {
            boot_id: "boot".to_owned(),
            window_nanoseconds: NonZeroU64::new(SECOND).unwrap(),
            longest_gap_nanoseconds: 30 * SECOND,
        };
        let cycle = Cycle::new(FakeKernel::default(), journal, settings, Books::default());
        Self { cycle, clock: 0, _directory: directory }
    }

    fn told(mut self, generation: u64, clusters: Vec<VirtualCluster>) -> Self {
        self.tell(generation, clusters);
        self
    }

    fn tell(&mut self, generation: u64, clusters: Vec<VirtualCluster>) {
        let virtual_clusters = clusters.into_iter().map(|one| (one.name.clone(), one)).collect();
        let snapshot = Snapshot { generation, virtual_clusters, ..Snapshot::default() };
        self.cycle.learn(snapshot.into());
    }

    /// Steps done, but for connections that are ended once more.
    fn lasting(&self) -> usize {
        self.cycle.kernel.done.iter().filter(|line| !line.contains("end denied")).count()
    }

    fn turn(&mut self) -> Report {
        self.clock += SECOND;
        let at = UnixNanos(self.clock);
        self.cycle.turn(Now { at, since_boot_nanoseconds: self.clock })
    }
}

fn cluster(name: &str, number: u32, pids: u64) -> VirtualCluster {
    VirtualCluster {
        name: name.parse().unwrap(),
        number: VirtualClusterNumber::new(number).unwrap(),
        addresses: BTreeSet::from([format!("10.0.0.{number}").parse().unwrap()]),
        node_ports: BTreeSet::new(),
        guarantee: Guarantee::default(),
        limit: Limit { pids: Some(Amount::Absolute(Pids(pids))), ..Limit::default() },
        network: NetworkPolicy { mode: NetworkMode::Enforce, ..NetworkPolicy::default() },
    }
}

fn name(text: &str) -> VirtualClusterName {
    text.parse().unwrap()
}

#[test]
fn before_anything_is_told_nothing_is_changed() {
    let mut rig = Rig::new();
    let report = rig.turn();
    assert_eq!(report, Report::default());
    assert!(rig.cycle.kernel.done.is_empty());
}

#[test]
fn what_is_told_is_applied_and_then_left_alone() {
    let mut rig = Rig::new().told(3, vec![cluster("a", 1, 10), cluster("b", 2, 20)]);
    let report = rig.turn();
    assert_eq!(report.applied_generation, 3);
    assert!(report.states.values().all(|state| *state == State::Applied), "{report:?}");
    let done = rig.lasting();
    assert!(rig.cycle.preview().unwrap().is_empty());
    rig.turn();
    assert_eq!(rig.lasting(), done, "a second turn has nothing to do");
}

#[test]
fn somebody_elses_change_is_mended_in_one_turn_and_counted_where_it_was() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10), cluster("b", 2, 20)]);
    rig.turn();
    let held = &mut rig.cycle.kernel.observed.cgroups.get_mut(&name("a")).unwrap().controls;
    held.insert(Control::PidsMax, ControlValue::Max(Max::Unlimited));
    let report = rig.turn();
    let held = &rig.cycle.kernel.observed.cgroups[&name("a")].controls;
    assert_eq!(held[&Control::PidsMax], ControlValue::Max(Max::At(10)));
    assert_eq!(report.mended, BTreeMap::from([(Some(name("a")), 1)]));
}

#[test]
fn one_virtual_clusters_failure_leaves_the_others_applied() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10), cluster("b", 2, 20)]);
    rig.cycle.kernel.failing = Some("a/pids.max".to_owned());
    let report = rig.turn();
    assert!(matches!(&report.states[&name("a")], State::Degraded(_)));
    assert_eq!(report.states[&name("b")], State::Applied);
    assert_eq!(report.applied_generation, 0, "not all of it stands");
    assert!(!rig.cycle.kernel.observed.network.attached.is_empty(), "and it is still judged");
    rig.cycle.kernel.failing = None;
    let report = rig.turn();
    assert_eq!(report.applied_generation, 1);
    assert!(report.mended.is_empty(), "finishing our own work is no mending");
}

#[test]
fn a_table_that_fails_stops_what_comes_after_it() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.cycle.kernel.failing = Some("addresses".to_owned());
    rig.turn();
    assert!(rig.cycle.kernel.observed.network.attached.is_empty());
    assert!(rig.cycle.kernel.observed.network.members.is_empty());
}

#[test]
fn a_refused_snapshot_changes_nothing_and_is_told() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    let done = rig.lasting();
    let mut twin = cluster("b", 2, 5);
    twin.addresses = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
    rig.tell(2, vec![cluster("a", 1, 99), twin]);
    let report = rig.turn();
    assert_eq!(rig.lasting(), done);
    assert_eq!(report.applied_generation, 1);
    let refused = [&report.states[&name("a")], &report.states[&name("b")]];
    assert!(refused.iter().all(|state| matches!(state, State::Refused(_))), "{report:?}");
    assert!(report.reasons[0].message.contains("10.0.0.1"), "{report:?}");
}

#[test]
fn counts_are_in_the_journal_and_go_on_growing() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    for tick in 1..=3 {
        let cpu = CpuCounters { usage_nanoseconds: tick * 100, ..CpuCounters::default() };
        let memory = MemoryCounters { current_bytes: 1_000, ..MemoryCounters::default() };
        let counters =
            CgroupCounters { cpu: Some(cpu), memory: Some(memory), ..CgroupCounters::default() };
        rig.cycle.kernel.counted.insert(name("a"), counters);
        rig.turn();
    }
    let chunk = rig.cycle.journal().reader().read_after(Sequence(0), 1 << 20).unwrap();
    let of = |meter: bulkhead_core::Meter| {
        let records = chunk.batches.iter().flat_map(|batch| &batch.records);
        let values = records.flat_map(|record| &record.values);
        let own = values.filter(|value| value.meter == meter.code());
        own.map(|value| value.value).collect::<Vec<_>>()
    };
    assert_eq!(of(bulkhead_core::Meter::CPU_USAGE), [100, 200, 300]);
    assert_eq!(of(bulkhead_core::Meter::MEMORY_BYTE_SECONDS), [0, 1_000, 2_000]);
}

#[test]
fn a_virtual_cluster_that_goes_is_counted_a_last_time_before_its_cgroup_does() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    let cpu = CpuCounters { usage_nanoseconds: 77, ..CpuCounters::default() };
    let counters = CgroupCounters { cpu: Some(cpu), ..CgroupCounters::default() };
    rig.cycle.kernel.counted.insert(name("a"), counters);
    rig.tell(2, vec![]);
    rig.turn();
    assert!(rig.cycle.kernel.observed.cgroups.is_empty());
    let last = rig.cycle.journal().last();
    let chunk = rig.cycle.journal().reader().read_after(Sequence(last.0 - 1), 1 << 20).unwrap();
    let record = &chunk.batches[0].records[0];
    assert!(record.values.iter().any(|value| value.value == 77), "{record:?}");
}

#[test]
fn while_a_snapshot_is_refused_the_one_before_is_looked_after() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    let mut twin = cluster("b", 2, 5);
    twin.addresses = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
    rig.tell(2, vec![cluster("a", 1, 99), twin]);
    rig.turn();
    assert!(!rig.cycle.accepts());
    let held = &mut rig.cycle.kernel.observed.cgroups.get_mut(&name("a")).unwrap().controls;
    held.insert(Control::PidsMax, ControlValue::Max(Max::Unlimited));
    let report = rig.turn();
    let held = &rig.cycle.kernel.observed.cgroups[&name("a")].controls;
    assert_eq!(held[&Control::PidsMax], ControlValue::Max(Max::At(10)));
    assert!(matches!(report.states[&name("a")], State::Refused(_)), "and still told: {report:?}");
    rig.tell(3, vec![cluster("a", 1, 99)]);
    rig.turn();
    assert!(rig.cycle.accepts());
}

#[test]
fn a_cgroup_that_could_not_be_removed_goes_on_being_counted() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    rig.tell(2, vec![]);
    rig.cycle.kernel.failing = Some("remove cgroup".to_owned());
    rig.turn();
    let network = &rig.cycle.kernel.observed.network;
    assert_eq!((network.members.len(), network.counters.len()), (1, 1));
    rig.cycle.kernel.failing = None;
    rig.turn();
    let network = &rig.cycle.kernel.observed.network;
    assert_eq!((network.members.len(), network.counters.len()), (0, 0));
}

#[test]
fn what_could_not_be_read_does_not_end_uncounted() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    rig.tell(2, vec![]);
    rig.cycle.kernel.unreadable.insert(name("a"), "too many open files".to_owned());
    let report = rig.turn();
    assert!(rig.cycle.kernel.observed.cgroups.contains_key(&name("a")));
    assert!(report.reasons.iter().any(|reason| reason.message.contains("too many open files")));
    rig.cycle.kernel.unreadable.clear();
    rig.turn();
    assert!(rig.cycle.kernel.observed.cgroups.is_empty());
}

#[test]
fn connections_are_ended_once_more_in_the_turn_after() {
    let mut observing = cluster("a", 1, 10);
    observing.network.mode = NetworkMode::Observe;
    let mut rig = Rig::new().told(1, vec![observing]);
    rig.turn();
    rig.tell(2, vec![cluster("a", 1, 10)]);
    let ended =
        |rig: &Rig| rig.cycle.kernel.done.iter().filter(|line| line.contains("end denied")).count();
    rig.turn();
    assert_eq!(ended(&rig), 1);
    rig.turn();
    assert_eq!(ended(&rig), 2);
    rig.turn();
    assert_eq!(ended(&rig), 2);
}

#[test]
fn a_node_that_was_taken_apart_is_told_and_asks_for_a_restart() {
    let mut rig = Rig::new().told(1, vec![cluster("a", 1, 10)]);
    rig.turn();
    assert!(!rig.cycle.needs_restart());
    rig.cycle.kernel.taken_away = true;
    let report = rig.turn();
    assert!(rig.cycle.needs_restart());
    assert!(matches!(report.states[&name("a")], State::Degraded(_)), "{report:?}");
}

#[test]
fn the_owner_ends_when_only_a_restart_can_mend() {
    let mut rig = Rig::new();
    rig.cycle.kernel.taken_away = true;
    let (_events, inbox) = std::sync::mpsc::channel();
    let (status, seen) = tokio::sync::watch::channel(bulkhead_proto::v1::NodeStatus::default());
    let reports = crate::owner::Reports {
        node: "n".to_owned(),
        boot_id: "boot".to_owned(),
        kernel_release: "k".to_owned(),
        snapshot_file: PathBuf::new(),
        status,
        facts: tokio::sync::watch::channel(bulkhead_proto::v1::NodeFacts::default()).0,
        kubernetes: None,
    };
    // Returns although nobody told it to end: `_events` is still there.
    let owner = crate::owner::Owner::new(rig.cycle, reports);
    crate::owner::run(owner, &inbox, std::time::Duration::from_secs(59));
    assert!(seen.borrow().reasons.iter().any(|reason| reason.message.contains("pins")));
}
