//! Pods in cgroups that somebody else made: as a kubelet lays them out, with the agent's own
//! kernel below it and the brain above.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bulkhead_agent::clock::Now;
use bulkhead_agent::kernel::bpf::usage::{Field, Level, UsageIterator};
use bulkhead_agent::kernel::bpf::{Bpf, BpfOptions};
use bulkhead_agent::kernel::cgroup::{PodTree, Sampler};
use bulkhead_agent::kernel::overlay::OverlayKernel;
use bulkhead_agent::kernel::probe::{Files, Probe};
use bulkhead_agent::kernel::seam::Kernel;
use bulkhead_core::{
    Binding, Bindings, Books, CgroupId, Fact, Guarantee, Index, Labels, Limit, Meter, NetworkMode,
    NetworkPolicy, NodePolicy, Pod, PodAccounting, PodFact, PodOwner, Rank, Sample, Selector,
    Snapshot, Step, Unknown, VirtualCluster, VirtualClusterNumber, account_pods, compile, plan,
};
use bulkhead_tests::sandbox::{Host, Sandbox, Traffic};
use serde_json::json;

use crate::fixture::{at, options, ready, run};

/// A guaranteed pod, directly below the root, and one of each other class.
const GUARANTEED: &str = "pod1111-aaaa";
const BURSTABLE: &str = "burstable/pod2222-bbbb";
const BEST_EFFORT: &str = "besteffort/pod3333-cccc";

struct Node {
    kernel: OverlayKernel,
    index: Index,
    sandbox: Sandbox,
}

impl Node {
    /// A node with these pods' cgroups, as told of so far: nothing.
    fn with(pods: &[&str]) -> Self {
        let sandbox = Sandbox::new(3).expect("make a sandbox");
        for pod in pods {
            sandbox.cgroups.leaf(pod).expect("make a pod's cgroup");
        }
        let kernel = open(&sandbox);
        Self { kernel, index: Index::default(), sandbox }
    }

    /// The namespaces "a" and "b" are virtual clusters, which enforce; the sandbox's hosts are
    /// inside the cluster.
    fn tell(&mut self, unknown: Unknown) {
        let binding = |name: &str| {
            let virtual_cluster = name.parse().expect("a name");
            (name.to_owned(), vec![Binding { virtual_cluster, selector: Selector::default() }])
        };
        let clusters = [("a", 1), ("b", 2)].map(|(name, number)| VirtualCluster {
            name: name.parse().expect("a name"),
            number: VirtualClusterNumber::new(number).expect("not 0"),
            addresses: BTreeSet::new(),
            node_ports: BTreeSet::new(),
            guarantee: Guarantee::default(),
            limit: Limit::default(),
            network: NetworkPolicy { mode: NetworkMode::Enforce, ..NetworkPolicy::default() },
        });
        let ranges = ["10.77.0.0/24", "fd77::/64"].map(|range| range.parse().expect("a range"));
        let snapshot = Snapshot {
            generation: self.index.generation() + 1,
            virtual_clusters: clusters.map(|one| (one.name.clone(), one)).into(),
            cluster_ranges: ranges.into(),
            bindings: Bindings([binding("a"), binding("b")].into()),
            policy: NodePolicy { unknown, ..NodePolicy::default() },
            ..Snapshot::default()
        };
        self.index.apply(snapshot.into()).expect("a snapshot that makes sense");
    }

    fn learn(&mut self, fact: PodFact) {
        self.index.apply(Fact::Pods(fact)).expect("a fact");
    }

    /// Does what is to be done, and then nothing is.
    fn reach(&mut self) -> Vec<Step> {
        let done = self.turn();
        assert_eq!(self.turn(), [], "a second turn has nothing to do");
        done
    }

    fn turn(&mut self) -> Vec<Step> {
        let observed = self.kernel.observe().expect("observe");
        let node = self.kernel.node(&BTreeSet::new()).expect("node");
        let desired = compile(&self.index, &node).expect("compile").expect("told");
        let steps = plan(&desired, &observed, node.capacities).expect("plan").steps;
        for step in &steps {
            self.kernel.apply(step).unwrap_or_else(|error| panic!("{step}: {error}"));
        }
        steps
    }

    fn sample(&mut self) -> Sample {
        self.kernel.sample(Now::read()).expect("sample")
    }

    fn host(&self, number: usize) -> &Host {
        &self.sandbox.network.hosts()[number]
    }

    /// A container of the pod.
    fn container(&self, pod: &str, host: usize) -> Traffic {
        self.sandbox.traffic(pod, self.host(host)).expect("make a container's cgroup")
    }

    fn id(&self, pod: &str) -> CgroupId {
        CgroupId(self.sandbox.cgroups.id(pod).expect("a cgroup"))
    }

    /// What a connection between two pods comes to: the error of connect, or none.
    fn connect(&self, from: (&str, usize), to: (&str, usize), port: u16) -> serde_json::Value {
        let there = at(self.host(to.1).v4, port);
        let server = ready(&self.container(to.0, to.1), &format!("tcp-serve --bind {there}"));
        let line = format!("tcp-connect --to {there} --bytes 1000 --timeout-ms 500");
        let said = run(&self.container(from.0, from.1), &line);
        drop(server);
        said["error"].clone()
    }
}

/// The agent's kernel, with the sandbox's cgroups for the kubelet's.
pub(crate) fn open(sandbox: &Sandbox) -> OverlayKernel {
    let tree = PodTree::open(sandbox.cgroups.root()).expect("open the kubelet's root");
    let [upper_level, ancestor_level] = tree.pod_levels();
    let options = BpfOptions { upper_level, ancestor_level, ..options(sandbox) };
    let (bpf, _) = Bpf::open(&options).expect("load");
    let level = Level::Either([upper_level, ancestor_level]);
    let iterator = UsageIterator::open(&options.object, tree.as_fd(), level, &Field::ALL);
    let probe = Probe::read(&Files::host()).expect("probe");
    OverlayKernel::new(tree, bpf, probe, Sampler::new(iterator))
}

/// A pod of a namespace that has a host's address.
fn pod(cgroup: &str, namespace: &str, host: Option<&Host>) -> Pod {
    let (_, uid) = cgroup.rsplit_once("pod").expect("a pod's cgroup");
    let addresses = host.map_or_else(BTreeSet::new, |host| [host.v4.into(), host.v6.into()].into());
    Pod {
        uid: uid.parse().expect("a UID"),
        namespace: namespace.to_owned(),
        name: uid.to_owned(),
        labels: Labels::new(),
        addresses,
        host_network: false,
        cgroup: None,
        rank: Rank::Ordinary,
    }
}

/// Three pods: a's are guaranteed and burstable, b's is best effort.
fn three() -> Node {
    let mut node = Node::with(&[GUARANTEED, BURSTABLE, BEST_EFFORT]);
    node.tell(Unknown::Allow);
    let pods = [(GUARANTEED, "a", 0), (BURSTABLE, "a", 1), (BEST_EFFORT, "b", 2)];
    let pods = pods.map(|(cgroup, namespace, host)| pod(cgroup, namespace, Some(node.host(host))));
    node.learn(PodFact::All(pods.into()));
    node.reach();
    node
}

#[test]
fn pods_of_every_class_are_judged_as_their_virtual_clusters() {
    let node = three();
    for (from, to, error) in [
        ((GUARANTEED, 0), (BURSTABLE, 1), json!(null)),
        ((BURSTABLE, 1), (GUARANTEED, 0), json!(null)),
        ((GUARANTEED, 0), (BEST_EFFORT, 2), json!("EPERM")),
        ((BURSTABLE, 1), (BEST_EFFORT, 2), json!("EPERM")),
        ((BEST_EFFORT, 2), (GUARANTEED, 0), json!("EPERM")),
        ((BEST_EFFORT, 2), (BURSTABLE, 1), json!("EPERM")),
    ] {
        assert_eq!(node.connect(from, to, 9000), error, "{from:?} to {to:?}");
    }
    // What was sent to many peers is judged by each packet's own.
    let there = at(node.host(2).v4, 9001);
    for (pod, host) in [(GUARANTEED, 0), (BURSTABLE, 1)] {
        let line = format!("udp-send --to {there} --count 5");
        let said = run(&node.container(pod, host), &line);
        assert_eq!(said["errors"], json!({ "EPERM": 5 }), "{said}");
    }
}

#[test]
fn pods_of_nobody_are_left_alone_until_the_operator_cuts_them_off() {
    const EXEMPT: &str = "burstable/pod4444";
    let mut node = three();
    // A pod that nobody told of talks with another that is b's no more.
    node.sandbox.cgroups.leaf(EXEMPT).expect("make a pod's cgroup");
    let pods = [
        pod(GUARANTEED, "x", None),
        pod(BURSTABLE, "x", None),
        pod(BEST_EFFORT, "b", Some(node.host(2))),
        Pod { rank: Rank::Static, ..pod(EXEMPT, "x", None) },
    ];
    node.learn(PodFact::All(pods.into()));
    node.reach();
    assert_eq!(node.connect((GUARANTEED, 0), (BURSTABLE, 1), 9000), json!(null));
    assert_eq!(node.connect((BURSTABLE, 1), (GUARANTEED, 0), 9000), json!(null));

    node.tell(Unknown::Deny);
    node.reach();
    for (from, to) in [((GUARANTEED, 0), (BURSTABLE, 1)), ((BURSTABLE, 1), (GUARANTEED, 0))] {
        assert_ne!(node.connect(from, to, 9000), json!(null), "{from:?} is cut off");
    }
    let loopback = at(std::net::Ipv4Addr::LOCALHOST, 9002);
    let server = ready(&node.container(BURSTABLE, 1), &format!("tcp-serve --bind {loopback}"));
    let line = format!("tcp-connect --to {loopback} --timeout-ms 500");
    let said = run(&node.container(BURSTABLE, 1), &line);
    assert_eq!(said["error"], json!(null), "itself it can reach: {said}");
    drop(server);
    assert_eq!(node.connect((EXEMPT, 0), (EXEMPT, 1), 9000), json!(null));

    node.tell(Unknown::Allow);
    node.reach();
    assert_eq!(node.connect((GUARANTEED, 0), (BURSTABLE, 1), 9000), json!(null));
}

#[test]
fn a_pod_that_ran_already_is_judged_from_its_next_packet_on_and_its_connections_end() {
    let mut node = Node::with(&[GUARANTEED, BEST_EFFORT]);
    node.tell(Unknown::Allow);
    node.learn(PodFact::All(vec![]));
    node.reach();
    let there = at(node.host(2).v4, 9000);
    let server = ready(&node.container(BEST_EFFORT, 2), &format!("tcp-serve --bind {there}"));
    let held = node.container(GUARANTEED, 0);
    let mut held = ready(&held, &format!("tcp-hold --to {there}"));
    let pods = [(GUARANTEED, "a", 0), (BEST_EFFORT, "b", 2)];
    let pods = pods.map(|(cgroup, namespace, host)| pod(cgroup, namespace, Some(node.host(host))));
    node.learn(PodFact::All(pods.into()));
    let done = node.reach();
    let ended = done.iter().filter(|step| matches!(step, Step::EndPodConnections { .. })).count();
    assert_eq!(ended, 2, "{done:?}");
    let said = held.wait_for_line().expect("it ends");
    assert_eq!(said["woke"], json!(true), "{said}");
    drop(server);
    assert_eq!(node.connect((GUARANTEED, 0), (BEST_EFFORT, 2), 9001), json!("EPERM"));
}

/// Everything that can be written to, with what it holds.
fn controls(dir: &Path) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry")) {
        let path = entry.path();
        if path.is_dir() {
            held.insert(path.display().to_string(), "directory".to_owned());
            held.extend(controls(&path));
        } else if entry.metadata().expect("stat").permissions().mode() & 0o222 != 0 {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let is_a_total = path.to_string_lossy().ends_with(".pressure");
            if !is_a_total {
                held.insert(path.display().to_string(), text);
            }
        }
    }
    held
}

#[test]
fn nothing_is_written_to_the_cgroups_of_the_kubelet() {
    let mut node = Node::with(&[GUARANTEED, BURSTABLE, BEST_EFFORT]);
    let before = controls(node.sandbox.cgroups.root());
    assert!(before.len() > 20, "{before:?}");
    node.tell(Unknown::Deny);
    let pods = [(GUARANTEED, "a"), (BURSTABLE, "x"), (BEST_EFFORT, "kube-system")];
    node.learn(PodFact::All(pods.map(|(cgroup, namespace)| pod(cgroup, namespace, None)).into()));
    node.reach();
    node.sample();
    node.learn(PodFact::All(vec![]));
    node.reach();
    assert_eq!(controls(node.sandbox.cgroups.root()), before);
}

#[test]
fn each_pod_is_counted_and_what_a_pod_sent_last_outlives_its_cgroup() {
    let mut node = three();
    let (sender, receiver) = (node.id(GUARANTEED), node.id(BURSTABLE));
    let there = at(node.host(1).v4, 9000);
    let sink = ready(&node.container(BURSTABLE, 1), &format!("udp-recv --bind {there}"));
    let line = format!("udp-send --to {there} --count 100");
    let said = run(&node.container(GUARANTEED, 0), &line);
    assert_eq!(said["errors"], json!({}), "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 100);

    let sample = node.sample();
    let known: BTreeSet<CgroupId> = sample.pods.keys().copied().collect();
    assert_eq!(known, [sender, receiver, node.id(BEST_EFFORT)].into());
    let sent = |sample: &Sample, id| {
        let counters = sample.pods[&id].network.as_ref().expect("counted");
        counters.cells[0][0][0].packets
    };
    assert_eq!(sent(&sample, sender), 100);
    let cpu = sample.pods[&sender].cgroup_counters.cpu.expect("cpu.stat");
    let file = node.sandbox.cgroups.root().join(GUARANTEED).join("cpu.stat");
    let file = fs::read_to_string(file).expect("cpu.stat");
    let line = file.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("usage");
    let micros: u64 = line.parse().expect("a number");
    assert_eq!(cpu.usage_nanoseconds, micros * 1_000, "nothing runs there any more");

    node.sandbox.cgroups.remove(GUARANTEED).expect("remove");
    let last = node.sample();
    assert_eq!(sent(&last, sender), 100);
    let owner = PodOwner {
        name: "a".parse().expect("a name"),
        number: VirtualClusterNumber::new(1).expect("not 0"),
    };
    let mut books = Books::default();
    books.baselines.begin(sender, owner.number);
    let accounting = PodAccounting {
        window_nanoseconds: NonZeroU64::MIN,
        longest_gap_nanoseconds: 0,
        owners: &[(sender, owner)].into(),
        alive: &BTreeSet::new(),
    };
    let records = account_pods(&last, accounting, &mut books);
    let packets = Meter::network(0, 0, 0, bulkhead_core::meter::NetworkUnit::Packets);
    let packets = packets.expect("a meter");
    let booked = records.iter().filter_map(|record| record.values.get(&packets)).copied();
    assert_eq!(booked.collect::<Vec<_>>(), [100]);
    node.reach();
    assert!(!node.sample().pods.contains_key(&sender), "and then it is forgotten");
}

#[test]
fn another_start_of_the_agent_leaves_every_pod_what_it_was() {
    let node = three();
    let Node { kernel, sandbox, .. } = node;
    drop(kernel);
    let mut node = Node { kernel: open(&sandbox), index: Index::default(), sandbox };
    node.tell(Unknown::Allow);
    node.reach();
    for told in [false, true] {
        if told {
            let own = [(GUARANTEED, "a", 0), (BURSTABLE, "a", 1), (BEST_EFFORT, "b", 2)];
            let own =
                own.map(|(cgroup, namespace, host)| pod(cgroup, namespace, Some(node.host(host))));
            node.learn(PodFact::All(own.into()));
            node.reach();
        }
        assert_eq!(node.connect((GUARANTEED, 0), (BURSTABLE, 1), 9000), json!(null));
        assert_eq!(node.connect((GUARANTEED, 0), (BEST_EFFORT, 2), 9000), json!("EPERM"));
    }
}
