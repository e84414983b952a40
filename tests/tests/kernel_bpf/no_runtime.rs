//! A node whose runtime has no NRI: pods are seen by their cgroups and registered when the
//! controller names them. The agent's own threads, on a real kernel, with no socket to connect to.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_agent::cycle::{PodsReport, Settings};
use bulkhead_agent::inventory::{self, Inventory};
use bulkhead_agent::journal::{Journal, Limits};
use bulkhead_agent::kernel::overlay::OverlayKernel;
use bulkhead_agent::kernel::seam::Kernel;
use bulkhead_agent::owner::{self, Event, Kubernetes, Owner, Reports};
use bulkhead_core::{
    CgroupId, Fact, Guarantee, Limit, NamedPod, NetworkMode, NetworkPolicy, Snapshot,
    VirtualCluster, VirtualClusterNumber,
};
use bulkhead_nri::State;
use bulkhead_proto::v1;
use bulkhead_tests::sandbox::Sandbox;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::fixture::{at, ready, run};
use crate::overlay::open;

const FIRST: &str = "burstable/pod2222-bbbb";
const SECOND: &str = "besteffort/pod3333-cccc";
const THIRD: &str = "pod1111-aaaa";

/// Longer than any test: what happens, happens because something was seen or told.
const INTERVAL: Duration = Duration::from_mins(10);
const SOON: Duration = Duration::from_secs(20);

/// An agent's threads.
struct Agent {
    events: Sender<Event>,
    report: watch::Receiver<PodsReport>,
    status: watch::Receiver<v1::NodeStatus>,
    owner: JoinHandle<()>,
    inventory: inventory::Running,
}

impl Agent {
    fn start(sandbox: &Sandbox, state: &TempDir) -> Self {
        let journal = Journal::open(&state.path().join("journal"), Limits::default(), "boot");
        let (journal, recovered) = journal.expect("open the journal");
        let settings = Settings {
            boot_id: "boot".to_owned(),
            window_nanoseconds: NonZeroU64::new(60_000_000_000).expect("not 0"),
            longest_gap_nanoseconds: 60_000_000_000,
        };
        let (events, inbox) = channel();
        let (to_status, status) = watch::channel(v1::NodeStatus::default());
        let (facts, _) = watch::channel(v1::NodeFacts::default());
        let (pods, _) = watch::channel(Arc::default());
        let (to_report, report) = watch::channel(PodsReport::default());
        let (to_told, told) = watch::channel(None);
        let (to_state, runtime) = watch::channel(State::Connecting);
        let reports = Reports {
            node: "n".to_owned(),
            boot_id: "boot".to_owned(),
            kernel_release: "of this kernel".to_owned(),
            snapshot_file: state.path().join("snapshot"),
            status: to_status,
            facts,
            kubernetes: Some(Kubernetes { pods, report: to_report, told: to_told, runtime }),
        };
        let owner = Owner::resume(open(sandbox), (journal, &recovered), settings, reports);
        let owner = std::thread::spawn(move || owner::run(owner, &inbox, INTERVAL));
        let kubepods = sandbox.cgroups.root().to_owned();
        let relative = kubepods.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let inventory = inventory::start(Inventory {
            kubepods,
            kubepods_relative: relative,
            nri_socket: state.path().join("no-such.sock"),
            owner: events.clone(),
            told,
            state: to_state,
        });
        let inventory = inventory.expect("start the threads that tell of pods");
        Self { events, report, status, owner, inventory }
    }

    fn tell(&self, snapshot: Snapshot) {
        self.events.send(Event::Learn(Fact::from(snapshot))).expect("the owner lives");
    }

    fn report(&self) -> PodsReport {
        self.report.borrow().clone()
    }

    fn stop(self) {
        self.inventory.stop();
        self.events.send(Event::Shutdown).expect("the owner lives");
        self.owner.join().expect("the owner ends");
    }
}

/// What the controller says: two virtual clusters that enforce, each with a host's address, and
/// these pods of the node.
fn told(sandbox: &Sandbox, generation: u64, pods: &[(&str, &str)]) -> Snapshot {
    let clusters = [("a", 1, 0), ("b", 2, 1)].map(|(name, number, host)| VirtualCluster {
        node_ports: BTreeSet::new(),
        name: name.parse().expect("a name"),
        number: VirtualClusterNumber::new(number).expect("not 0"),
        addresses: [sandbox.network.hosts()[host].v4.to_string().parse().expect("an address")]
            .into(),
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy { mode: NetworkMode::Enforce, ..NetworkPolicy::default() },
    });
    let named = |(cgroup, owner): &(&str, &str)| {
        let (_, uid) = cgroup.rsplit_once("pod").expect("a pod's cgroup");
        let pod = NamedPod {
            namespace: "team".into(),
            name: uid.into(),
            owner: Some(owner.parse().expect("a name")),
            is_critical: false,
            mirror_of: None,
        };
        (uid.parse().expect("a UID"), pod)
    };
    Snapshot {
        generation,
        virtual_clusters: clusters.map(|one| (one.name.clone(), one)).into(),
        cluster_ranges: ["10.77.0.0/24".parse().expect("a range")].into(),
        names_pods: true,
        pods: pods.iter().map(named).collect(),
        ..Snapshot::default()
    }
}

/// Whose each pod is, as the kernel's table has it.
fn members(kernel: &mut OverlayKernel) -> BTreeSet<(CgroupId, u32)> {
    let observed = kernel.observe().expect("observe");
    let members = observed.network.members.iter();
    members.map(|(id, member)| (*id, member.virtual_cluster)).collect()
}

fn wait_until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

#[test]
fn without_a_runtime_a_pod_is_registered_when_the_controller_names_it() {
    let sandbox = Sandbox::new(2).expect("make a sandbox");
    let state = tempfile::tempdir().expect("a directory");
    sandbox.cgroups.leaf(FIRST).expect("make a pod's cgroup");
    let id = |pod: &str| CgroupId(sandbox.cgroups.id(pod).expect("a cgroup"));
    let mut reader = open(&sandbox);
    let agent = Agent::start(&sandbox, &state);
    agent.tell(told(&sandbox, 1, &[(FIRST, "a")]));
    wait_until("the pod that was there is registered", || {
        members(&mut reader) == [(id(FIRST), 1)].into()
    });

    // The kubelet makes another; the controller has not heard of it.
    sandbox.cgroups.leaf(SECOND).expect("make a pod's cgroup");
    wait_until("it is seen", || agent.report().unknown_count == 1);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(members(&mut reader), [(id(FIRST), 1)].into());
    let there = at(sandbox.network.hosts()[0].v4, 9000);
    let server = sandbox.traffic(FIRST, &sandbox.network.hosts()[0]).expect("a container");
    let _server = ready(&server, &format!("tcp-serve --bind {there}"));
    agent.tell(told(&sandbox, 2, &[(FIRST, "a"), (SECOND, "b"), (THIRD, "b")]));
    let both = [(id(FIRST), 1), (id(SECOND), 2)];
    let took = wait_until("it is registered", || members(&mut reader) == both.into());
    wait_until("its wait is told", || agent.report().late.registered == 1);
    let waited = Duration::from_nanos(agent.report().late.longest_nanoseconds);
    println!("named after 200 ms and more, in the table {took:?} later; told: {waited:?}");
    assert!(waited > Duration::from_millis(200) && waited < SOON, "{waited:?}");
    let late = agent.status.borrow().late_pods.expect("the runtime is away");
    assert_eq!((late.registered, late.waiting), (1, 0));
    let client = sandbox.traffic(SECOND, &sandbox.network.hosts()[1]).expect("a container");
    let said = run(&client, &format!("tcp-connect --to {there} --timeout-ms 500"));
    assert_eq!(said["error"], json!("EPERM"), "it is judged: {said}");

    // Named before its cgroup is there.
    sandbox.cgroups.leaf(THIRD).expect("make a pod's cgroup");
    let all = || BTreeSet::from([(id(FIRST), 1), (id(SECOND), 2), (id(THIRD), 2)]);
    let took = wait_until("it is registered at once", || members(&mut reader) == all());
    println!("named before its cgroup was there, in the table {took:?} after it");

    // Deleted by force, it may still run: it stays what it was until its cgroup goes.
    agent.tell(told(&sandbox, 3, &[(FIRST, "a"), (SECOND, "b")]));
    wait_until("it stands", || agent.status.borrow().applied_generation == 3);
    assert_eq!(members(&mut reader), all());
    sandbox.cgroups.remove(THIRD).expect("remove a pod's cgroup");
    wait_until("it is forgotten", || members(&mut reader) == both.into());
    agent.stop();
}

#[test]
fn an_agent_that_starts_with_the_controller_away_knows_the_pods_that_it_was_told_of() {
    let sandbox = Sandbox::new(2).expect("make a sandbox");
    let state = tempfile::tempdir().expect("a directory");
    sandbox.cgroups.leaf(FIRST).expect("make a pod's cgroup");
    let id = |pod: &str| CgroupId(sandbox.cgroups.id(pod).expect("a cgroup"));
    let mut reader = open(&sandbox);
    let agent = Agent::start(&sandbox, &state);
    agent.tell(told(&sandbox, 1, &[(FIRST, "a"), (SECOND, "b")]));
    wait_until("the first is registered", || members(&mut reader) == [(id(FIRST), 1)].into());
    agent.stop();
    let addresses = reader.observe().expect("observe").network.addresses;

    let agent = Agent::start(&sandbox, &state);
    wait_until("it stands as it was kept", || agent.status.borrow().applied_generation == 1);
    sandbox.cgroups.leaf(SECOND).expect("make a pod's cgroup");
    sandbox.cgroups.leaf(THIRD).expect("make a pod's cgroup");
    let both = [(id(FIRST), 1), (id(SECOND), 2)];
    wait_until("the one that was named is registered", || members(&mut reader) == both.into());
    wait_until("nobody knows the other", || agent.report().unknown_count == 1);
    assert_eq!(reader.observe().expect("observe").network.addresses, addresses);
    agent.stop();
}
