//! What is told to whom, whose an address is, and what it costs.

mod cost;
mod node_ports;

use std::collections::BTreeSet;

use bulkhead_api::{Catalogue, Document};
use bulkhead_core::{Binding, Delta, LocalPod, Protocol, Selector, Snapshot, Unknown};
use proptest::prelude::*;

use super::cluster::{Owner, Pod, Service};
use super::view::View;
use super::*;

struct Place {
    _directory: tempfile::TempDir,
    state: State,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(directory.path(), None).unwrap());
    let state = State::new(ledger, BTreeMap::new(), 1);
    Place { _directory: directory, state }
}

fn name(text: &str) -> VirtualClusterName {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Virtual clusters, each with its addresses and whom it allows.
fn catalogue(clusters: &[(&str, &[&str], &[&str])]) -> Catalogue {
    let text = clusters.iter().map(|(name, addresses, allow)| {
        let allow: Vec<String> =
            allow.iter().map(|other| format!("{{virtualCluster: {other}}}")).collect();
        format!(
            "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata: {{name: {name}}}\n\
             spec: {{members: {{addresses: [{}]}}, network: {{allow: [{}]}}}}\n---\n",
            addresses.join(", "),
            allow.join(", ")
        )
    });
    let config = "apiVersion: bulkhead.dev/v1alpha1\nkind: BulkheadConfig\nmetadata: {name: default}\n\
                  spec: {clusterRanges: [10.0.0.0/8]}\n";
    let text = text.collect::<String>() + config;
    Catalogue::build(&Document::parse_all("all.yaml", &text).unwrap()).unwrap()
}

fn block(text: &str) -> AddressBlock {
    text.parse().unwrap()
}

fn owner(text: &str) -> Owner {
    match text {
        "" => Owner::Nobody,
        "shared" => Owner::Shared,
        "plain" => Owner::Plain,
        owner => Owner::VirtualCluster(name(owner)),
    }
}

/// A Service with TCP node ports.
#[expect(clippy::unnecessary_wraps, reason = "as a change of the cluster has it")]
fn served(of: &str, ports: &[u16]) -> Option<Service> {
    let port = |port| NodePort::new(Protocol::Tcp, port).unwrap();
    let node_ports = ports.iter().copied().map(port).collect();
    Some(Service { owner: owner(of), node_ports, ..Service::default() })
}

#[expect(clippy::unnecessary_wraps, reason = "as a change of the cluster has it")]
fn pod(node: &str, of: &str, addresses: &[&str]) -> Option<Pod> {
    let owner = owner(of);
    let addresses = addresses.iter().map(|text| address(text)).collect();
    Some(Pod { node: node.to_owned(), owner, addresses, ..Pod::default() })
}

impl Place {
    fn with(clusters: &[(&str, &[&str], &[&str])]) -> Self {
        let place = place();
        place.state.set_objects(&catalogue(clusters), "test").unwrap();
        place
    }

    fn pods(&self, pods: &[(&str, Option<Pod>)]) {
        let pods = pods.iter().map(|(uid, pod)| ((*uid).to_owned(), pod.clone())).collect();
        self.state.change_cluster(ClusterChange { pods, ..ClusterChange::default() }).unwrap();
    }

    fn services(&self, services: &[(&str, Option<Service>)]) {
        let services = services.iter().map(|(it, service)| ((*it).to_owned(), service.clone()));
        let services = services.collect();
        self.state.change_cluster(ClusterChange { services, ..ClusterChange::default() }).unwrap();
    }

    fn report(&self, node: &str, pods: &[(&str, &[&str])]) {
        let pods = pods.iter().map(|(uid, addresses)| {
            let addresses = addresses.iter().map(|text| address(text)).collect();
            ((*uid).to_owned(), LocalPod { addresses, ..LocalPod::default() })
        });
        self.state.set_local_pods(node, &Arc::new(pods.collect())).unwrap();
    }

    fn view(&self, node: &str) -> View {
        View::new(&self.state.current(), node)
    }

    fn told(&self, node: &str) -> Snapshot {
        self.view(node).snapshot(1)
    }

    /// Addresses of a virtual cluster as a node is told them.
    fn addresses(&self, node: &str, cluster: &str) -> Vec<String> {
        let told = self.told(node);
        told.virtual_clusters[&name(cluster)].addresses.iter().map(ToString::to_string).collect()
    }

    fn generation(&self) -> u64 {
        self.state.current().generation
    }
}

#[test]
fn a_node_is_told_the_addresses_of_those_that_it_can_meet() {
    let place = Place::with(&[("a", &["192.0.2.1"], &["b"]), ("b", &[], &[]), ("c", &[], &[])]);
    place.pods(&[
        ("1", pod("n1", "a", &["10.0.0.1"])),
        ("2", pod("n2", "b", &["10.0.0.2"])),
        ("3", pod("n3", "c", &["10.0.0.3"])),
        ("4", pod("n3", "plain", &["10.0.0.4"])),
    ]);
    let named =
        ClusterChange { shared: Some([block("10.0.0.5")].into()), ..ClusterChange::default() };
    place.state.change_cluster(named).unwrap();
    // Allowing goes both ways; what objects name goes to all.
    assert_eq!(place.addresses("n1", "a"), ["10.0.0.1", "192.0.2.1"]);
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.2"]);
    assert_eq!(place.addresses("n1", "c"), Vec::<String>::new());
    assert_eq!(place.addresses("n2", "a"), ["10.0.0.1", "192.0.2.1"]);
    assert_eq!(place.addresses("n3", "c"), ["10.0.0.3"]);
    assert_eq!(place.addresses("n3", "a"), ["192.0.2.1"]);
    assert_eq!(place.addresses("elsewhere", "a"), ["192.0.2.1"]);
    assert_eq!(place.told("n1").shared, ["10.0.0.4", "10.0.0.5"].map(block).into());
    assert_eq!(place.told("n1").plain, [block("10.0.0.4")].into());
    place.pods(&[("3", None)]);
    assert_eq!(place.addresses("n3", "c"), Vec::<String>::new());
}

#[test]
fn a_view_that_does_not_change_is_no_news() {
    let place = Place::with(&[("a", &[], &[]), ("b", &[], &[])]);
    place.pods(&[("1", pod("n1", "a", &["10.0.0.1"])), ("2", pod("n2", "b", &["10.0.0.2"]))]);
    let (first, generation) = (place.view("n1"), place.generation());
    place.pods(&[("3", pod("n2", "b", &["10.0.0.3"]))]);
    assert!(place.generation() > generation);
    let later = first.later(&place.state.current(), "n1");
    assert!(first.delta_to(&later, generation).is_empty());
    // Said again, nothing is counted at all.
    let generation = place.generation();
    place.pods(&[("3", pod("n2", "b", &["10.0.0.3"]))]);
    assert_eq!(place.generation(), generation);
}

/// A pod with a name.
fn named(node: &str, owner: &str, namespace: &str) -> Option<Pod> {
    pod(node, owner, &[]).map(|pod| Pod { namespace: namespace.into(), name: "p".into(), ..pod })
}

#[test]
fn a_node_is_told_its_own_pods_and_no_others_by_name() {
    let place = Place::with(&[("a", &[], &[])]);
    assert!(!place.told("n1").names_pods, "nobody watches them yet");
    let pods = [("1", named("n1", "a", "team")), ("2", named("n2", "shared", "x"))];
    let pods = pods.map(|(uid, pod)| (uid.to_owned(), pod));
    let change = ClusterChange { whole: true, pods: pods.into(), ..ClusterChange::default() };
    place.state.change_cluster(change).unwrap();
    let told = |node: &str| {
        let told = place.told(node);
        assert!(told.names_pods);
        let pods = told.pods.iter().map(|(uid, pod)| {
            let owner = pod.owner.as_ref().map_or("-", |name| name.as_str());
            format!("{uid} {}/{} {owner}", pod.namespace, pod.name)
        });
        pods.collect::<Vec<_>>()
    };
    assert_eq!(told("n1"), ["1 team/p a"]);
    assert_eq!(told("n2"), ["2 x/p -"]);
    assert_eq!(told("elsewhere"), Vec::<String>::new());
    // One without a node is nobody's to be told of; one that is relabelled is told at once.
    place.pods(&[("3", named("", "a", "team")), ("1", named("n1", "", "team"))]);
    assert_eq!(told("n1"), ["1 team/p -"]);
    place.pods(&[("3", named("n1", "a", "team")), ("1", None)]);
    assert_eq!(told("n1"), ["3 team/p a"]);
    place.pods(&[("3", named("n2", "a", "team"))]);
    assert_eq!((told("n1").len(), told("n2").len()), (0, 2));
    // What a whole list does not name is gone.
    let change = ClusterChange { whole: true, ..ClusterChange::default() };
    place.state.change_cluster(change).unwrap();
    assert_eq!((told("n1").len(), told("n2").len()), (0, 0));
}

/// Else a node that was lost, or one that is gone, would open a pod to everybody.
#[test]
fn what_only_an_agent_says_makes_no_pods_address_a_hosts() {
    let place = Place::with(&[("a", &[], &[])]);
    place.pods(&[("1", pod("n1", "a", &["10.0.0.1"]))]);
    place.state.set_node_addresses("n2", ["10.0.0.1", "10.0.0.9"].map(address).into()).unwrap();
    assert_eq!(place.addresses("n1", "a"), ["10.0.0.1"]);
    assert_eq!(place.told("n1").node_addresses, [address("10.0.0.9")].into());
    place.pods(&[("1", None)]);
    assert_eq!(place.told("n1").node_addresses, ["10.0.0.1", "10.0.0.9"].map(address).into());
    // What the API server says of the node itself holds.
    place.pods(&[("1", pod("n1", "a", &["10.0.0.1"]))]);
    let nodes = [("n2".to_owned(), Some([address("10.0.0.1")].into()))].into();
    place.state.change_cluster(ClusterChange { nodes, ..ClusterChange::default() }).unwrap();
    assert_eq!(place.addresses("n1", "a"), Vec::<String>::new());
}

#[test]
fn a_pod_that_comes_is_news_for_its_node_only() {
    let place = Place::with(&[("a", &[], &[])]);
    place.pods(&[("1", named("n1", "a", "team")), ("2", named("n2", "a", "team"))]);
    let (first, second, held) = (place.view("n1"), place.view("n2"), place.generation());
    place.pods(&[("3", named("n2", "", "x"))]);
    let world = place.state.current();
    assert!(first.delta_to(&first.later(&world, "n1"), held).is_empty());
    let delta = second.delta_to(&second.later(&world, "n2"), held);
    assert_eq!(delta.pods.keys().map(bulkhead_core::PodUid::as_str).collect::<Vec<_>>(), ["3"]);
    let again = place.generation();
    place.pods(&[("3", named("n2", "", "x"))]);
    assert_eq!(place.generation(), again, "said again, nothing is counted");
}

#[test]
fn an_address_has_one_owner_whoever_says_what() {
    let place =
        Place::with(&[("a", &["10.9.0.0/16"], &["b"]), ("b", &[], &["c"]), ("c", &[], &[])]);
    place.pods(&[
        ("1", pod("n", "b", &["10.0.0.1"])),
        ("2", pod("n", "c", &["10.0.0.1", "10.0.0.2"])),
        // An object's own list says more than a pod.
        ("3", pod("n", "b", &["10.9.0.5"])),
        ("4", pod("n", "b", &["127.0.0.1", "169.254.20.10", "224.0.0.1"])),
    ]);
    assert_eq!(place.addresses("n", "b"), ["10.0.0.1"]);
    assert_eq!(place.addresses("n", "c"), ["10.0.0.2"]);
    // The first one is being deleted: the other has it.
    let ending = pod("n", "b", &["10.0.0.1"]).map(|pod| Pod { ending: true, ..pod });
    place.pods(&[("1", ending)]);
    assert_eq!(place.addresses("n", "b"), Vec::<String>::new());
    assert_eq!(place.addresses("n", "c"), ["10.0.0.1", "10.0.0.2"]);
    // A Service cannot take a pod's address, but its own.
    let addresses = BTreeSet::from([address("10.0.0.2"), address("10.96.0.1")]);
    let service =
        Service { owner: Owner::VirtualCluster(name("b")), addresses, ..Service::default() };
    let services = [("n/s".to_owned(), Some(service))].into();
    place.state.change_cluster(ClusterChange { services, ..ClusterChange::default() }).unwrap();
    assert_eq!(place.addresses("n", "b"), ["10.96.0.1"]);
    // A host's address is the host's.
    let nodes = [("n".to_owned(), Some([address("10.0.0.2")].into()))].into();
    place.state.change_cluster(ClusterChange { nodes, ..ClusterChange::default() }).unwrap();
    assert_eq!(place.addresses("n", "c"), ["10.0.0.1"]);
    assert_eq!(place.told("n").node_addresses, [address("10.0.0.2")].into());
}

#[test]
fn an_agent_is_believed_about_its_own_pods_and_free_addresses_only() {
    let place = Place::with(&[("a", &[], &["b"]), ("b", &[], &[])]);
    place.pods(&[
        ("mine", pod("n1", "a", &[])),
        ("other", pod("n2", "b", &["10.0.0.2"])),
        ("new", pod("n2", "b", &[])),
        ("host", pod("n1", "a", &[]).map(|pod| Pod { host_network: true, ..pod })),
    ]);
    place.state.set_node_addresses("n2", [address("10.0.9.9")].into()).unwrap();
    place.report(
        "n1",
        &[
            ("mine", &["10.0.0.1", "10.0.0.2", "10.0.9.9", "8.8.8.8", "127.0.0.1"]),
            ("new", &["10.0.0.7"]),
            ("unknown", &["10.0.0.8"]),
            ("host", &["10.0.0.9"]),
        ],
    );
    assert_eq!(place.addresses("n1", "a"), ["10.0.0.1"]);
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.2"]);
    // The API server's word comes later and counts more.
    place.pods(&[("late", pod("n2", "b", &["10.0.0.1"]))]);
    assert_eq!(place.addresses("n1", "a"), Vec::<String>::new());
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.1", "10.0.0.2"]);
    place.pods(&[("late", None)]);
    assert_eq!(place.addresses("n1", "a"), ["10.0.0.1"]);
    // A report may come before the pod is known.
    place.report("n2", &[("early", &["10.0.0.5"])]);
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.2"]);
    place.pods(&[("early", pod("n2", "b", &[]))]);
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.2", "10.0.0.5"]);
    place.report("n2", &[]);
    assert_eq!(place.addresses("n1", "b"), ["10.0.0.2"]);
    place.pods(&[("mine", None)]);
    assert_eq!(place.told("n1").virtual_clusters[&name("a")].addresses, BTreeSet::new());
}

#[test]
fn a_whole_list_takes_away_what_it_does_not_name() {
    let place = Place::with(&[("a", &[], &[])]);
    place.pods(&[("1", pod("n", "a", &["10.0.0.1"])), ("2", pod("n", "a", &["10.0.0.2"]))]);
    let pods = [("2".to_owned(), pod("n", "a", &["10.0.0.2"]))].into();
    place
        .state
        .change_cluster(ClusterChange { whole: true, pods, ..ClusterChange::default() })
        .unwrap();
    assert_eq!(place.addresses("n", "a"), ["10.0.0.2"]);
}

#[test]
fn nothing_is_told_before_objects_are_known() {
    let place = place();
    place.pods(&[("1", pod("n", "a", &["10.0.0.1"]))]);
    place.state.set_node_addresses("n", [address("192.0.2.1")].into()).unwrap();
    assert_eq!(place.generation(), 0);
    place.state.set_objects(&catalogue(&[("a", &[], &[])]), "test").unwrap();
    assert_eq!(place.generation(), 1);
    assert_eq!(place.addresses("n", "a"), ["10.0.0.1"]);
    assert_eq!(place.told("n").node_addresses, [address("192.0.2.1")].into());
}

/// One change of the world.
#[derive(Clone, Debug)]
enum Act {
    Objects(Vec<(u8, Vec<u8>, Vec<u8>)>),
    Pod(u8, Option<(u8, u8, Vec<u8>)>),
    Bindings(Vec<(u8, u8)>, bool),
    Node(u8, Vec<u8>),
    Report(u8, Vec<(u8, u8)>),
    Service(u8, Option<(u8, Vec<u16>)>),
}

fn act() -> impl Strategy<Value = Act> {
    use proptest::collection::vec;
    let object = (0..4_u8, vec(0..20_u8, 0..2), vec(0..4_u8, 0..2));
    let placed = proptest::option::of((0..3_u8, 0..6_u8, vec(0..20_u8, 0..3)));
    let served = proptest::option::of((0..6_u8, vec(1..5_u16, 0..3)));
    prop_oneof![
        1 => vec(object, 0..4).prop_map(Act::Objects),
        5 => (0..8_u8, placed).prop_map(|(uid, pod)| Act::Pod(uid, pod)),
        1 => (vec((0..3_u8, 0..4_u8), 0..4), any::<bool>()).prop_map(|(b, p)| Act::Bindings(b, p)),
        1 => (0..3_u8, vec(0..20_u8, 0..2)).prop_map(|(node, it)| Act::Node(node, it)),
        2 => (0..4_u8, served).prop_map(|(it, served)| Act::Service(it, served)),
        2 => (0..3_u8, vec((0..8_u8, 0..20_u8), 0..3)).prop_map(|(node, it)| Act::Report(node, it)),
    ]
}

const OWNERS: [&str; 7] = ["a", "b", "c", "d", "shared", "plain", ""];

fn do_it(place: &Place, act: &Act) {
    let host = |n: &u8| format!("10.0.0.{n}");
    match act {
        Act::Objects(objects) => {
            let mut seen = BTreeSet::new();
            let mut taken = BTreeSet::new();
            let texts: Vec<_> = objects
                .iter()
                .filter(|(it, _, _)| seen.insert(*it))
                .map(|(it, addresses, allow)| {
                    let own: Vec<String> =
                        addresses.iter().filter(|n| taken.insert(**n)).map(host).collect();
                    let allow: Vec<&str> = allow
                        .iter()
                        .filter(|other| *other != it)
                        .map(|other| OWNERS[usize::from(*other)])
                        .collect();
                    (OWNERS[usize::from(*it)], own, allow)
                })
                .collect();
            let owned: Vec<(&str, Vec<&str>, Vec<&str>)> = texts
                .iter()
                .map(|(name, own, allow)| {
                    (*name, own.iter().map(String::as_str).collect(), allow.clone())
                })
                .collect();
            let all: Vec<(&str, &[&str], &[&str])> =
                owned.iter().map(|(name, own, allow)| (*name, &**own, &**allow)).collect();
            place.state.set_objects(&catalogue(&all), "test").unwrap();
        }
        Act::Pod(uid, placed) => {
            let pod = placed.as_ref().and_then(|(node, owner, addresses)| {
                let texts: Vec<String> = addresses.iter().map(host).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let pod = pod(&format!("n{node}"), OWNERS[usize::from(*owner)], &texts)?;
                // Some have no name that could be told.
                let name = if *owner == 6 { "" } else { "p" };
                Some(Pod { namespace: "n".into(), name: name.into(), ..pod })
            });
            place.pods(&[(&uid.to_string(), pod)]);
        }
        Act::Bindings(bound, deny) => {
            let mut bindings = Bindings::default();
            for (namespace, owner) in bound {
                let virtual_cluster = name(OWNERS[usize::from(*owner)]);
                let binding = Binding { virtual_cluster, selector: Selector::default() };
                bindings.0.entry(namespace.to_string()).or_default().push(binding);
            }
            let unknown = if *deny { Unknown::Deny } else { Unknown::Allow };
            let policy = Some(NodePolicy { unknown, ..NodePolicy::default() });
            let bindings = Some(bindings);
            let change = ClusterChange { bindings, policy, ..ClusterChange::default() };
            place.state.change_cluster(change).unwrap();
        }
        Act::Node(node, addresses) => {
            let addresses = addresses.iter().map(|n| address(&host(n))).collect();
            place.state.set_node_addresses(&format!("n{node}"), addresses).unwrap();
        }
        Act::Service(it, said) => {
            let service =
                said.as_ref().and_then(|(owner, ports)| served(OWNERS[usize::from(*owner)], ports));
            place.services(&[(&it.to_string(), service)]);
        }
        Act::Report(node, pods) => {
            let pods: Vec<(String, String)> =
                pods.iter().map(|(uid, n)| (uid.to_string(), host(n))).collect();
            let pods: Vec<(&str, [&str; 1])> =
                pods.iter().map(|(uid, text)| (uid.as_str(), [text.as_str()])).collect();
            let pods: Vec<(&str, &[&str])> = pods.iter().map(|(uid, it)| (*uid, &it[..])).collect();
            place.report(&format!("n{node}"), &pods);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever happens: what leads from any generation that a node was told to any later one
    /// gives exactly its view of that one; no address and no node port is two owners'; and a node's compiled view
    /// is never refused for an overlap.
    #[test]
    fn deltas_of_views_lead_to_views(acts in proptest::collection::vec(act(), 1..24)) {
        let place = Place::with(&[]);
        let mut told: Vec<(u64, View)> =
            ["n0", "n1", "n2"].iter().map(|node| (place.generation(), place.view(node))).collect();
        for (step, act) in acts.iter().enumerate() {
            do_it(&place, act);
            for (number, (generation, held)) in told.iter_mut().enumerate() {
                // Some are told seldom.
                if step % (number + 1) != 0 {
                    continue;
                }
                let node = format!("n{number}");
                let view = held.later(&place.state.current(), &node);
                let delta = held.delta_to(&view, *generation);
                let before = held.snapshot(*generation);
                let expected = View::new(&place.state.current(), &node);
                let newest = place.generation();
                if delta.is_empty() {
                    prop_assert_eq!(&before, &expected.snapshot(*generation));
                    *held = view;
                    continue;
                }
                let expected = expected.snapshot(newest);
                prop_assert_eq!(&delta, &Delta::between(&before, &expected));
                prop_assert_eq!(before.changed_by(&delta), Ok(expected.clone()));
                let (mut owners, mut ports) = (BTreeMap::new(), BTreeMap::new());
                for (name, cluster) in &expected.virtual_clusters {
                    for port in &cluster.node_ports {
                        prop_assert_eq!(ports.insert(*port, name.clone()), None);
                        prop_assert!(!expected.unclear_node_ports.contains(port));
                    }
                    for block in &cluster.addresses {
                        prop_assert_eq!(owners.insert(*block, name.clone()), None);
                    }
                }
                (*generation, *held) = (newest, view);
            }
        }
    }
}
