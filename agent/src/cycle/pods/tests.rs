use std::num::NonZeroU64;

use bulkhead_abi::{Counters, FarEnd};
use bulkhead_core::meter::NetworkUnit;
use bulkhead_core::sample::CpuCounters;
use bulkhead_core::{
    Binding, Bindings, Books, CgroupCounters, Guarantee, Labels, Limit, Meter, NamedPod,
    NetworkPolicy, NodePolicy, Rank, Selector, UnixNanos, VirtualCluster,
};

use super::super::{Report, Settings};
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
    /// The kubelet has made these pods' cgroups, each with its UID for an id.
    fn new(uids: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(directory.path(), Limits::default(), "boot").unwrap();
        let settings = Settings {
            boot_id: "boot".to_owned(),
            window_nanoseconds: NonZeroU64::new(SECOND).unwrap(),
            longest_gap_nanoseconds: 30 * SECOND,
        };
        let mut kernel = FakeKernel::default();
        kernel.placement = Placement::Overlay;
        for uid in uids {
            kernel.observed.pods.insert(id(uid), path(uid));
        }
        let cycle = Cycle::new(kernel, journal, settings, Books::default());
        Self { cycle, clock: 0, _directory: directory }
    }

    fn tell(&mut self, generation: u64, mode: NetworkMode, unknown: Unknown) {
        self.cycle.learn(Self::snapshot(generation, mode, unknown).into());
    }

    /// The controller names every pod of the node, each with its owner.
    fn name(&mut self, generation: u64, pods: &[(&str, Option<&str>)]) {
        let named = |(uid, owner): &(&str, Option<&str>)| {
            let pod = NamedPod {
                namespace: "x".into(),
                name: "p".into(),
                owner: owner.map(|name| name.parse().unwrap()),
                is_critical: false,
                mirror_of: None,
            };
            (uid.parse().unwrap(), pod)
        };
        let told = Self::snapshot(generation, NetworkMode::Enforce, Unknown::Allow);
        let pods = pods.iter().map(named).collect();
        self.cycle.learn(Snapshot { names_pods: true, pods, ..told }.into());
    }

    fn snapshot(generation: u64, mode: NetworkMode, unknown: Unknown) -> Snapshot {
        let binding = |name: &str| {
            let virtual_cluster = name.parse().unwrap();
            (name.to_owned(), vec![Binding { virtual_cluster, selector: Selector::default() }])
        };
        let clusters = [("a", 1), ("b", 2)].map(|(name, number)| VirtualCluster {
            name: name.parse().unwrap(),
            number: VirtualClusterNumber::new(number).unwrap(),
            addresses: BTreeSet::new(),
            node_ports: BTreeSet::new(),
            guarantee: Guarantee::default(),
            limit: Limit::default(),
            network: NetworkPolicy { mode, ..NetworkPolicy::default() },
        });
        Snapshot {
            generation,
            virtual_clusters: clusters.map(|one| (one.name.clone(), one)).into(),
            bindings: Bindings([binding("a"), binding("b")].into()),
            policy: NodePolicy { unknown, ..NodePolicy::default() },
            ..Snapshot::default()
        }
    }

    fn pods(&mut self, pods: Vec<Pod>) {
        self.cycle.learn(Fact::Pods(PodFact::All(pods)));
    }

    fn now(&mut self) -> Now {
        self.clock += SECOND;
        Now { at: UnixNanos(self.clock), since_boot_nanoseconds: self.clock }
    }

    fn turn(&mut self) -> Report {
        let now = self.now();
        self.cycle.turn(now)
    }

    fn admit(&mut self, pod: Pod) -> Admission {
        let now = self.now();
        self.cycle.admit(pod, now).0
    }

    fn used(&mut self, uid: &str, nanoseconds: u64) {
        let cpu = CpuCounters { usage_nanoseconds: nanoseconds, ..CpuCounters::default() };
        let counters = CgroupCounters { cpu: Some(cpu), ..CgroupCounters::default() };
        self.cycle.kernel.counted_pods.insert(id(uid), counters);
    }

    fn members(&self) -> Vec<(u64, u32)> {
        let members = self.cycle.kernel.observed.network.members.iter();
        members.map(|(id, member)| (id.0, member.virtual_cluster)).collect()
    }

    fn passed(&mut self, uid: &str, bytes: u64) {
        let mut counters = Counters::default();
        counters.cells[0][0][0].bytes = bytes;
        self.cycle.kernel.passed.insert(id(uid), Box::new(counters));
    }

    /// CPU time in the journal.
    fn booked(&mut self) -> Vec<(String, u64, u64, u64)> {
        self.booked_of(Meter::CPU_USAGE)
    }

    /// What is in the journal: whose, of which cgroup, since when, and how much at most.
    fn booked_of(&mut self, meter: Meter) -> Vec<(String, u64, u64, u64)> {
        let chunk = self.cycle.journal().reader().read_after(Sequence(0), 1 << 20).unwrap();
        let mut booked = BTreeMap::new();
        for record in chunk.batches.iter().flat_map(|batch| &batch.records) {
            let mut values = record.values.iter();
            let usage = values.find(|value| value.meter == meter.code());
            let Some(usage) = usage else { continue };
            let key = (record.virtual_cluster.clone(), record.cgroup_id, record.epoch);
            let most: &mut u64 = booked.entry(key).or_default();
            *most = usage.value.max(*most);
        }
        booked.into_iter().map(|((name, id, epoch), most)| (name, id, epoch, most)).collect()
    }
}

fn id(uid: &str) -> CgroupId {
    CgroupId(uid.parse().unwrap())
}

fn path(uid: &str) -> PodPath {
    PodPath::from_relative(&format!("pod{uid}")).unwrap()
}

fn pod(uid: &str, namespace: &str) -> Pod {
    Pod {
        uid: uid.parse().unwrap(),
        namespace: namespace.to_owned(),
        name: "p".to_owned(),
        labels: Labels::new(),
        addresses: BTreeSet::new(),
        host_network: false,
        cgroup: None,
        rank: Rank::Ordinary,
    }
}

#[test]
fn a_pod_that_begins_stands_in_the_table_before_it_is_answered() {
    let mut rig = Rig::new(&[]);
    rig.tell(1, NetworkMode::Enforce, Unknown::Allow);
    rig.pods(vec![]);
    rig.turn();
    rig.cycle.kernel.observed.pods.insert(id("7"), path("7"));
    assert_eq!(rig.admit(pod("7", "a")), Admission::Registered("a".parse().unwrap()));
    assert_eq!(rig.members(), [(7, 1)]);
    assert!(rig.cycle.preview().unwrap().is_empty(), "the next turn has nothing to do");
    rig.used("7", 50);
    let report = rig.turn().pods.unwrap();
    assert_eq!(report.registered, BTreeMap::from([("a".parse().unwrap(), 1)]));
    assert_eq!(rig.booked(), [("a".to_owned(), 7, 0, 50)], "counted from its first");
}

#[test]
fn a_pod_whose_virtual_cluster_does_not_stand_yet_waits_for_its_tables() {
    let mut rig = Rig::new(&["7"]);
    rig.pods(vec![]);
    rig.tell(1, NetworkMode::Enforce, Unknown::Allow);
    assert_eq!(rig.admit(pod("7", "a")), Admission::Registered("a".parse().unwrap()));
    assert_eq!(rig.members(), [(7, 1)]);
    assert!(!rig.cycle.kernel.observed.network.prefixes.is_empty(), "and so do its tables");
    assert!(!rig.cycle.kernel.observed.network.attached.is_empty());
}

#[test]
fn a_pod_that_cannot_be_registered_must_not_run_only_where_it_would_be_judged() {
    for (mode, must_not) in [(NetworkMode::Enforce, true), (NetworkMode::Observe, false)] {
        let mut rig = Rig::new(&["7"]);
        rig.tell(1, mode, Unknown::Allow);
        rig.pods(vec![]);
        rig.turn();
        rig.cycle.kernel.failing = Some("judge pod 7".to_owned());
        let Admission::Failed { reason, must_not_run } = rig.admit(pod("7", "a")) else { panic!() };
        assert_eq!(must_not_run, must_not);
        assert!(reason.contains("a/p") && reason.contains("told to fail"), "{reason}");
        let gone = rig.admit(pod("8", "a"));
        let Admission::Failed { reason, .. } = gone else { panic!("{gone:?}") };
        assert!(reason.contains("its cgroup is not there"), "{reason}");
    }
}

#[test]
fn pods_of_nobody_are_left_alone_or_refused_as_the_operator_says() {
    let mut rig = Rig::new(&["7", "8"]);
    rig.tell(1, NetworkMode::Enforce, Unknown::Allow);
    rig.pods(vec![]);
    rig.turn();
    assert_eq!(rig.admit(pod("7", "x")), Admission::LeftAlone);
    rig.tell(2, NetworkMode::Enforce, Unknown::Deny);
    let refused = rig.admit(pod("8", "x"));
    assert!(matches!(&refused, Admission::Refused(why) if why.contains("x/p")), "{refused:?}");
    assert_eq!(rig.admit(pod("8", "kube-system")), Admission::LeftAlone);
    assert_eq!(rig.members(), [(8, 0)], "exempt");
    let report = rig.turn().pods.unwrap();
    assert_eq!((report.exempt, report.of_nobody, report.unknown_count), (1, 1, 0));
}

#[test]
fn before_the_controller_has_spoken_every_pod_may_run() {
    let mut rig = Rig::new(&["7"]);
    assert_eq!(rig.admit(pod("7", "a")), Admission::LeftAlone);
    assert!(rig.cycle.kernel.done.is_empty());
    rig.tell(1, NetworkMode::Enforce, Unknown::Deny);
    rig.turn();
    assert_eq!(rig.members(), [(7, 1)]);
}

#[test]
fn what_a_pod_used_before_it_was_anybodys_is_nobodys() {
    let mut rig = Rig::new(&["7", "8"]);
    rig.used("7", 1_000);
    rig.used("8", 1_000);
    rig.pods(vec![pod("7", "a"), pod("8", "x")]);
    rig.tell(1, NetworkMode::Observe, Unknown::Allow);
    rig.turn();
    rig.turn();
    let since = rig.clock;
    rig.used("7", 1_030);
    rig.turn();
    assert_eq!(rig.booked(), [("a".to_owned(), 7, since, 30)]);
}

/// The controller still has it with the pod of nobody that had it before.
#[test]
fn an_address_that_was_nobodys_is_shared_no_more_when_a_member_gets_it() {
    let mut rig = Rig::new(&["7"]);
    let address: std::net::IpAddr = "10.1.0.9".parse().unwrap();
    let plain = BTreeSet::from([bulkhead_core::AddressBlock::host(address)]);
    let told = Rig::snapshot(1, NetworkMode::Enforce, Unknown::Allow);
    rig.cycle.learn(Snapshot { shared: plain.clone(), plain, ..told }.into());
    rig.pods(vec![]);
    rig.turn();
    let key = bulkhead_abi::Address::from_v4([10, 1, 0, 9]);
    let far = |rig: &Rig| rig.cycle.kernel.observed.network.addresses.get(&key).copied();
    let flags = FarEnd::SHARED | FarEnd::PLAIN;
    assert_eq!(far(&rig), Some(FarEnd { virtual_cluster: 0, flags }));
    rig.admit(Pod { addresses: BTreeSet::from([address]), ..pod("7", "a") });
    assert_eq!(far(&rig), Some(FarEnd { virtual_cluster: 1, flags: 0 }), "at once");
    rig.turn();
    assert_eq!(far(&rig), Some(FarEnd { virtual_cluster: 1, flags: 0 }), "and it stays so");
    // Without a runtime that tells, the controller's word is the newer.
    rig.cycle.learn(Fact::Pods(PodFact::RuntimeAway));
    rig.turn();
    assert_eq!(far(&rig), Some(FarEnd { virtual_cluster: 0, flags }));
}

#[test]
fn packets_of_a_pod_that_ran_already_are_counted_from_its_registration() {
    let mut rig = Rig::new(&["7"]);
    rig.pods(vec![pod("7", "a")]);
    rig.tell(1, NetworkMode::Observe, Unknown::Allow);
    rig.turn();
    assert_eq!(rig.members(), [(7, 1)]);
    // Less than the time between two turns passes.
    rig.passed("7", 300);
    rig.turn();
    rig.passed("7", 350);
    rig.turn();
    let bytes = Meter::network(0, 0, 0, NetworkUnit::Bytes).unwrap();
    let booked = rig.booked_of(bytes);
    let [(name, cgroup, _, most)] = &booked[..] else { panic!("one series: {booked:?}") };
    assert_eq!((name.as_str(), *cgroup, *most), ("a", 7, 350));
}

#[test]
fn a_pod_that_stops_is_counted_once_more_before_its_cgroup_goes() {
    let mut rig = Rig::new(&["7", "8"]);
    rig.tell(1, NetworkMode::Observe, Unknown::Allow);
    rig.pods(vec![]);
    rig.turn();
    for uid in ["7", "8"] {
        assert!(matches!(rig.admit(pod(uid, "a")), Admission::Registered(_)));
        // Less than the time between two turns passes.
        rig.used(uid, 44);
    }
    let now = rig.now();
    rig.cycle.count_last(&"7".parse().unwrap(), now);
    assert_eq!(rig.booked()[0], ("a".to_owned(), 7, 0, 44));
    // Of the other nobody has told that it stopped.
    rig.cycle.kernel.observed.pods.clear();
    rig.cycle.kernel.counted_pods.clear();
    let report = rig.turn().pods.unwrap();
    assert_eq!(report.ended_unseen, BTreeMap::from([("a".parse().unwrap(), 1)]));
    assert_eq!(rig.members(), []);
    assert!(rig.cycle.kernel.observed.network.counters.is_empty());
}

#[test]
fn the_controller_is_told_of_every_pod_and_whose_the_node_takes_it_for() {
    let mut rig = Rig::new(&[]);
    rig.pods(vec![pod("7", "a"), Pod { host_network: true, ..pod("8", "x") }]);
    let owners = |rig: &Rig| {
        let pods = rig.cycle.local_pods().into_iter();
        pods.map(|(uid, pod)| (uid, pod.virtual_cluster.map(|name| name.to_string())))
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&rig), [("7".to_owned(), None), ("8".to_owned(), None)]);
    rig.tell(1, NetworkMode::Observe, Unknown::Allow);
    assert_eq!(owners(&rig)[0].1.as_deref(), Some("a"));
    assert!(rig.cycle.local_pods()["8"].host_network);
}

#[test]
fn without_a_runtime_a_pod_is_registered_when_the_controller_names_it_and_its_wait_is_told() {
    let mut rig = Rig::new(&["7"]);
    rig.cycle.learn(Fact::Pods(PodFact::RuntimeAway));
    rig.name(1, &[("7", Some("a"))]);
    let report = rig.turn().pods.unwrap();
    assert_eq!(rig.members(), [(7, 1)]);
    assert_eq!(report.late.registered, 0, "it was there before the agent was");
    // The kubelet makes two; the controller names one of them, and a pod that is not here yet.
    rig.cycle.kernel.observed.pods.extend(["8", "9"].map(|uid| (id(uid), path(uid))));
    let seen = rig.now();
    rig.cycle.cgroups_seen(vec!["8".parse().unwrap(), "9".parse().unwrap()], seen);
    let report = rig.turn().pods.unwrap();
    assert_eq!((report.unknown_count, report.late.registered), (2, 0));
    rig.name(2, &[("7", Some("a")), ("8", Some("b")), ("10", Some("b"))]);
    let report = rig.turn().pods.unwrap();
    assert_eq!(rig.members(), [(7, 1), (8, 2)]);
    assert_eq!((report.unknown_count, report.late.registered), (1, 1));
    let waited = report.late.last_nanoseconds;
    assert!((2 * SECOND..3 * SECOND).contains(&waited), "seen at 2 s, named at 4 s: {waited}");
    // Named before its cgroup is there, and seen by the turn itself.
    rig.cycle.kernel.observed.pods.insert(id("10"), path("10"));
    let late = rig.turn().pods.unwrap().late;
    assert_eq!((late.registered, late.longest_nanoseconds), (2, waited));
    assert!(late.last_nanoseconds < SECOND);
}

#[test]
fn a_pod_of_nobody_waits_for_nothing() {
    let mut rig = Rig::new(&[]);
    rig.cycle.learn(Fact::Pods(PodFact::RuntimeAway));
    rig.name(1, &[("7", None)]);
    rig.turn();
    rig.cycle.kernel.observed.pods.insert(id("7"), path("7"));
    let report = rig.turn().pods.unwrap();
    assert_eq!((report.of_nobody, report.unknown_count), (1, 0));
    rig.turn();
    // It is relabelled, long after.
    rig.name(2, &[("7", Some("a"))]);
    let report = rig.turn().pods.unwrap();
    assert_eq!(rig.members(), [(7, 1)]);
    assert_eq!(report.late, Late::default());
}

#[test]
fn a_pod_that_is_named_no_more_stays_registered_as_long_as_its_cgroup_is_there() {
    let mut rig = Rig::new(&["7", "8"]);
    rig.cycle.learn(Fact::Pods(PodFact::RuntimeAway));
    rig.name(1, &[("7", Some("a")), ("8", Some("a"))]);
    rig.turn();
    // Deleted by force: its processes may live on. The other was relabelled.
    rig.name(2, &[("8", None)]);
    rig.turn();
    assert_eq!(rig.members(), [(7, 1)]);
    let report = rig.turn().pods.unwrap();
    assert_eq!(report.registered, BTreeMap::from([("a".parse().unwrap(), 1)]));
    assert!(rig.cycle.preview().unwrap().is_empty());
    rig.cycle.kernel.observed.pods.remove(&id("7"));
    rig.turn();
    assert_eq!(rig.members(), []);
}

#[test]
fn the_controller_is_told_only_what_the_runtime_shows() {
    let mut rig = Rig::new(&["7", "8"]);
    rig.pods(vec![pod("7", "a")]);
    rig.name(1, &[("7", Some("b")), ("8", Some("a"))]);
    let local = rig.cycle.local_pods();
    assert_eq!(local.keys().collect::<Vec<_>>(), ["7"]);
    assert_eq!(local["7"].virtual_cluster, Some("b".parse().unwrap()), "as it is labelled now");
    rig.turn();
    assert_eq!(rig.members(), [(7, 2), (8, 1)]);
}
