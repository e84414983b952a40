//! Objects in, who has which address out: no client, no clock.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_api::membership::Namespace;
use bulkhead_core::binding::{Binding, Labels, Requirement, Selector};
use bulkhead_core::{AddressBlock, Bindings, NodePort, Protocol};
use proptest::prelude::*;

use super::told::{Backend, Change, Event, Key, Node, Pod, Service, Slice};
use super::{Index, Rules};
use crate::state::cluster::{self, ClusterChange, Owner};

fn merge<T>(into: &mut BTreeMap<String, Option<T>>, from: BTreeMap<String, Option<T>>) {
    for (key, value) in from {
        match value {
            Some(value) => drop(into.insert(key, Some(value))),
            None => drop(into.remove(&key)),
        }
    }
}

/// What whoever takes in the changes knows by now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told(ClusterChange);

impl Told {
    fn take(&mut self, index: &mut Index) -> bool {
        let Some(change) = index.take() else {
            return false;
        };
        if change.whole {
            *self = Self::default();
        }
        merge(&mut self.0.pods, change.pods);
        merge(&mut self.0.services, change.services);
        merge(&mut self.0.nodes, change.nodes);
        self.0.bindings = change.bindings.or(self.0.bindings.take());
        self.0.shared = change.shared.or(self.0.shared.take());
        self.0.cluster_ranges = change.cluster_ranges.or(self.0.cluster_ranges.take());
        true
    }

    fn pod(&self, uid: &str) -> &cluster::Pod {
        self.0.pods[uid].as_ref().unwrap()
    }

    fn owner_of(&self, service: &str) -> &Owner {
        &self.0.services[service].as_ref().unwrap().owner
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn of(name: &str) -> Owner {
    Owner::VirtualCluster(name.parse().unwrap())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn pod(namespace: &str, name: &str, address: &str) -> Pod {
    Pod {
        key: Key::new(namespace, name),
        uid: format!("{namespace}-{name}").into(),
        labels: Arc::default(),
        addresses: if address.is_empty() { Box::default() } else { Box::new([ip(address)]) },
        node: Some("n1".into()),
        host_network: false,
        ended: false,
        ending: false,
        created: 0,
        is_critical: false,
        mirror_of: None,
    }
}

fn service(namespace: &str, name: &str, address: &str) -> Service {
    Service {
        key: Key::new(namespace, name),
        cluster: vec![ip(address)],
        external: Vec::new(),
        node_ports: BTreeSet::new(),
        selector: Some(labels(&[("app", name)])),
    }
}

fn slice(namespace: &str, service: &str, backends: &[(&str, Option<&str>)]) -> Slice {
    let backends = backends
        .iter()
        .map(|(address, pod)| Backend { address: ip(address), pod: pod.map(Into::into) });
    Slice {
        key: Key::new(namespace, format!("{service}-x")),
        service: service.into(),
        backends: backends.collect(),
    }
}

/// A virtual cluster, and which pods are its.
type Claim<'a> = (&'a str, &'a [Requirement]);

fn bound(rules: &[(&str, &[Claim<'_>])]) -> Rules {
    let rule = |(name, requirements): &(&str, &[Requirement])| Binding {
        virtual_cluster: name.parse().unwrap(),
        selector: Selector(requirements.iter().cloned().collect()),
    };
    let all = rules
        .iter()
        .map(|(namespace, rules)| ((*namespace).to_owned(), rules.iter().map(rule).collect()));
    Rules { bindings: Arc::new(Bindings(all.collect())), ..Rules::default() }
}

fn is(key: &str, value: &str) -> Requirement {
    Requirement::In { key: key.to_owned(), values: BTreeSet::from([value.to_owned()]) }
}

/// Namespace a is virtual cluster a's, b is b's; in `both`, a has what is labelled tier=a, and b
/// the rest.
fn rules() -> Rules {
    let tier = [is("tier", "a")];
    bound(&[("a", &[("a", &[])]), ("b", &[("b", &[])]), ("both", &[("a", &tier), ("b", &[])])])
}

const LISTED: [fn(bool) -> Event; 5] = [
    |begin| Event::Pod(if begin { Change::Begin } else { Change::Done }),
    |begin| Event::Service(if begin { Change::Begin } else { Change::Done }),
    |begin| Event::Slice(if begin { Change::Begin } else { Change::Done }),
    |begin| Event::Node(if begin { Change::Begin } else { Change::Done }),
    |begin| Event::Namespace(if begin { Change::Begin } else { Change::Done }),
];

fn listed() -> (Index, Told) {
    let mut index = Index::default();
    index.set_rules(rules());
    for kind in LISTED {
        index.apply(kind(true));
        index.apply(kind(false));
    }
    let mut told = Told::default();
    assert!(told.take(&mut index));
    (index, told)
}

fn applied(index: &mut Index, told: &mut Told, events: impl IntoIterator<Item = Event>) {
    for event in events {
        index.apply(event);
    }
    told.take(index);
}

fn put(pod: Pod) -> Event {
    Event::Pod(Change::Applied(pod))
}

fn gone(namespace: &str, name: &str) -> Event {
    Event::Pod(Change::Gone(Key::new(namespace, name)))
}

#[test]
fn nobody_is_told_anything_before_every_kind_was_listed() {
    let mut index = Index::default();
    index.set_rules(rules());
    for (at, kind) in LISTED.iter().enumerate() {
        index.apply(kind(true));
        assert_eq!(index.take(), None, "{at} kinds were listed");
        index.apply(put(pod("a", "p", "10.1.0.1")));
        index.apply(kind(false));
    }
    assert!(index.take().is_some_and(|change| change.whole && change.pods.len() == 1));
    assert_eq!(index.take(), None, "nothing changed since");
}

#[test]
fn a_pod_is_whose_its_namespace_and_labels_are() {
    let (mut index, mut told) = listed();
    let of_a = Pod { labels: Arc::new(labels(&[("tier", "a")])), ..pod("both", "1", "10.1.0.1") };
    let forged = Pod {
        labels: Arc::new(labels(&[("bulkhead.dev/virtual-cluster", "a"), ("tier", "a")])),
        ..pod("plain", "3", "10.1.0.3")
    };
    let events = [put(of_a), put(pod("both", "2", "10.1.0.2")), put(forged)];
    applied(&mut index, &mut told, events);
    assert_eq!(told.pod("both-1").owner, of("a"));
    assert_eq!(told.pod("both-2").owner, of("b"));
    assert_eq!(told.pod("plain-3").owner, Owner::Plain);
    let counts = index.counts(&"b".parse().unwrap());
    assert_eq!((counts.pods, counts.nodes), (1, 1));
}

#[test]
fn what_a_node_is_told_of_a_pod_is_as_it_is_labelled_now() {
    let (mut index, mut told) = listed();
    let young = Pod { node: None, ..pod("both", "p", "") };
    applied(&mut index, &mut told, [put(young.clone())]);
    assert_eq!(told.pod("both-p").node, "");
    let placed = Pod { node: Some("n2".into()), is_critical: true, ..young };
    applied(&mut index, &mut told, [put(placed.clone())]);
    let shown = told.pod("both-p");
    assert_eq!((&*shown.node, &*shown.namespace, &*shown.name), ("n2", "both", "p"));
    assert_eq!((&shown.owner, shown.is_critical), (&of("b"), true));
    let relabelled = Pod { labels: Arc::new(labels(&[("tier", "a")])), ..placed };
    applied(&mut index, &mut told, [put(relabelled)]);
    assert_eq!(told.pod("both-p").owner, of("a"));
}

#[test]
fn a_pod_that_ends_gives_up_its_address_at_once() {
    let (mut index, mut told) = listed();
    applied(&mut index, &mut told, [put(pod("a", "1", "10.1.0.1"))]);
    let ended = Pod { ended: true, ..pod("a", "1", "10.1.0.1") };
    let next = put(pod("b", "2", "10.1.0.1"));
    applied(&mut index, &mut told, [put(ended), next]);
    assert!(!told.0.pods.contains_key("a-1"));
    assert_eq!(told.pod("b-2").owner, of("b"));
    assert_eq!(index.pods(), 1);
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let (mut index, mut told) = listed();
    applied(&mut index, &mut told, [put(pod("a", "db-0", "10.1.0.1"))]);
    let again = Pod { uid: "younger".into(), ..pod("a", "db-0", "10.1.0.9") };
    applied(&mut index, &mut told, [put(again)]);
    assert!(!told.0.pods.contains_key("a-db-0"));
    assert_eq!(told.pod("younger").addresses, BTreeSet::from([ip("10.1.0.9")]));
}

#[test]
fn pods_of_the_hosts_network_hold_no_address_and_own_what_they_serve() {
    let (mut index, mut told) = listed();
    let host = Pod { host_network: true, ..pod("a", "h", "192.168.0.1") };
    let node = Node {
        name: "n1".into(),
        addresses: BTreeSet::from([ip("192.168.0.1")]),
        ..Node::default()
    };
    let events = [
        put(host),
        Event::Node(Change::Applied(node)),
        Event::Service(Change::Applied(service("a", "s", "10.96.0.1"))),
        Event::Slice(Change::Applied(slice("a", "s", &[("192.168.0.1", Some("h"))]))),
        Event::Slice(Change::Applied(slice("b", "t", &[("192.168.0.1", Some("h"))]))),
        Event::Service(Change::Applied(service("b", "t", "10.96.0.2"))),
    ];
    applied(&mut index, &mut told, events);
    assert!(told.pod("a-h").host_network);
    assert_eq!(*told.owner_of("a/s"), of("a"));
    assert_eq!(*told.owner_of("b/t"), Owner::Nobody, "another's pod cannot be named");
    assert_eq!(told.0.nodes["n1"], Some(BTreeSet::from([ip("192.168.0.1")])));
}

#[test]
fn the_api_server_node_local_dns_and_what_operators_name_are_shared() {
    let (mut index, mut told) = listed();
    let events = [
        Event::Service(Change::Applied(service("default", "kubernetes", "10.96.0.1"))),
        Event::Slice(Change::Applied(slice("default", "kubernetes", &[("192.168.0.5", None)]))),
        Event::Service(Change::Applied(service("b", "proxy", "10.96.0.3"))),
        Event::Slice(Change::Applied(slice("b", "proxy", &[("10.1.0.1", Some("1"))]))),
        put(pod("b", "1", "10.1.0.1")),
    ];
    applied(&mut index, &mut told, events);
    let always = ["10.96.0.1", "192.168.0.5", "169.254.20.10", "169.254.25.10"];
    let always: BTreeSet<AddressBlock> = always.iter().map(|it| it.parse().unwrap()).collect();
    assert_eq!(told.0.shared.as_ref(), Some(&always));
    assert_eq!(*told.owner_of("b/proxy"), of("b"));

    let named = Rules { shared_services: BTreeSet::from([Key::new("b", "proxy")]), ..rules() };
    index.set_rules(named);
    told.take(&mut index);
    let more = ["10.96.0.3", "10.1.0.1"].map(|it| it.parse().unwrap());
    let expected: BTreeSet<AddressBlock> = always.iter().copied().chain(more).collect();
    assert_eq!(told.0.shared, Some(expected));
    assert_eq!(*told.owner_of("b/proxy"), Owner::Shared);
    applied(&mut index, &mut told, [Event::Service(Change::Gone(Key::new("b", "proxy")))]);
    assert!(!told.0.shared.unwrap().contains(&"10.96.0.3".parse().unwrap()));
}

#[test]
fn ranges_come_from_nodes_merged() {
    let (mut index, mut told) = listed();
    let node = |name: &str, range: &str| Node {
        name: name.into(),
        ranges: BTreeSet::from([range.parse().unwrap()]),
        ..Node::default()
    };
    let events = [node("n1", "10.1.0.0/24"), node("n2", "10.1.1.0/24")];
    let events = events.map(|node| Event::Node(Change::Applied(node)));
    applied(&mut index, &mut told, events);
    let expected: BTreeSet<AddressBlock> = BTreeSet::from(["10.1.0.0/23".parse().unwrap()]);
    assert_eq!(told.0.cluster_ranges, Some(expected));
    let pods = [put(pod("a", "1", "10.1.1.7")), put(pod("a", "2", "10.9.0.1"))];
    applied(&mut index, &mut told, pods);
    assert_eq!(index.outside_of_ranges(&BTreeSet::new()), 1);
    assert_eq!(index.outside_of_ranges(&BTreeSet::from(["10.9.0.0/16".parse().unwrap()])), 0);
}

#[test]
fn what_is_not_listed_again_is_gone() {
    let (mut index, mut told) = listed();
    let kept = service("a", "kept", "10.96.0.1");
    let events = [
        put(pod("a", "1", "10.1.0.1")),
        put(pod("a", "2", "10.1.0.2")),
        Event::Service(Change::Applied(kept.clone())),
        Event::Service(Change::Applied(service("a", "gone", "10.96.0.2"))),
    ];
    applied(&mut index, &mut told, events);
    let again = [
        Event::Pod(Change::Begin),
        put(pod("a", "2", "10.1.0.2")),
        Event::Pod(Change::Done),
        Event::Service(Change::Begin),
        Event::Service(Change::Applied(kept)),
        Event::Service(Change::Done),
    ];
    for event in again {
        index.apply(event);
    }
    let change = index.take().unwrap();
    assert_eq!(change.pods, BTreeMap::from([("a-1".to_owned(), None)]));
    assert_eq!(change.services, BTreeMap::from([("a/gone".to_owned(), None)]));
}

#[test]
fn namespaces_are_told_of_once() {
    let (mut index, _) = listed();
    let namespace = Namespace { labels: labels(&[("team", "a")]), ..Namespace::named("a") };
    let apply = |namespace: &Namespace| Event::Namespace(Change::Applied(namespace.clone()));
    index.apply(apply(&namespace));
    assert_eq!(index.namespaces_changed(), BTreeSet::from(["a".to_owned()]));
    index.apply(apply(&namespace));
    assert_eq!(index.namespaces_changed(), BTreeSet::new());
    index.apply(Event::Namespace(Change::Gone("a".to_owned())));
    assert_eq!(index.namespaces_changed(), BTreeSet::from(["a".to_owned()]));
}

/// One of few pods, Services and endpoints, so that they meet often.
fn any_event() -> impl Strategy<Value = Event> {
    let spaces = proptest::sample::select(vec!["a", "b", "both", "plain"]);
    let pods = (spaces.clone(), 0_u8..3, 0_u8..4, any::<bool>(), any::<bool>(), 0_u8..8);
    let pods = pods.prop_map(|(space, name, at, of_a, host_network, kind)| {
        let name = name.to_string();
        let of_a = if of_a { labels(&[("tier", "a")]) } else { Labels::new() };
        let one = Pod { labels: Arc::new(of_a), ..pod(space, &name, &format!("10.1.0.{at}")) };
        match kind {
            0 => gone(space, &name),
            1 => put(Pod { ended: true, ..one }),
            2 => put(Pod { ending: true, ..one }),
            3 => put(Pod { uid: format!("{space}-{name}-again").into(), ..one }),
            4 => put(Pod { host_network, ..one }),
            _ => put(one),
        }
    });
    let services = (spaces.clone(), 0_u8..2, 0_u8..4, any::<bool>(), any::<bool>());
    let services = services.prop_map(|(space, name, at, external, is_gone)| {
        let mut one = service(space, &format!("s{name}"), &format!("10.96.0.{at}"));
        if external {
            one.external = vec![ip(&format!("10.1.0.{at}")), ip("10.96.0.1")];
        }
        let key = one.key.clone();
        Event::Service(if is_gone { Change::Gone(key) } else { Change::Applied(one) })
    });
    let slices = (spaces, 0_u8..2, 0_u8..4, 0_u8..3, any::<bool>());
    let slices = slices.prop_map(|(space, name, at, pod, is_gone)| {
        let (pod, address) = (pod.to_string(), format!("10.1.0.{at}"));
        let one = slice(space, &format!("s{name}"), &[(&address, Some(&pod))]);
        let key = one.key.clone();
        Event::Slice(if is_gone { Change::Gone(key) } else { Change::Applied(one) })
    });
    prop_oneof![pods, services, slices]
}

fn object(event: &Event) -> (u8, Key) {
    match event {
        Event::Pod(Change::Applied(pod)) => (0, pod.key.clone()),
        Event::Pod(Change::Gone(key)) => (0, key.clone()),
        Event::Service(Change::Applied(service)) => (1, service.key.clone()),
        Event::Service(Change::Gone(key)) => (1, key.clone()),
        Event::Slice(Change::Applied(slice)) => (2, slice.key.clone()),
        Event::Slice(Change::Gone(key)) => (2, key.clone()),
        other => panic!("{other:?} is about no object"),
    }
}

proptest! {
    /// What is told in the end depends on the last event about each object and on nothing else:
    /// not on their order, not on what was before, not on when it was asked.
    #[test]
    fn the_order_of_events_does_not_matter(
        events in proptest::collection::vec(any_event(), 0..40),
        asked in proptest::collection::vec(any::<bool>(), 40),
        before in any::<bool>(),
    ) {
        let (mut index, mut told) = listed();
        if before {
            index.set_rules(Rules::default());
        }
        for (event, asked) in events.iter().zip(asked) {
            index.apply(event.clone());
            if asked {
                told.take(&mut index);
            }
        }
        index.set_rules(rules());
        told.take(&mut index);

        let last: BTreeMap<_, _> = events.iter().map(|event| (object(event), event)).collect();
        let (mut fresh, mut expected) = listed();
        for event in last.into_values().rev() {
            fresh.apply(event.clone());
        }
        expected.take(&mut fresh);
        prop_assert_eq!(&told.0.pods, &expected.0.pods);
        prop_assert_eq!(&told.0.services, &expected.0.services);
        for name in ["a", "b"] {
            let name = name.parse().unwrap();
            prop_assert_eq!(index.counts(&name), fresh.counts(&name));
        }
    }

    /// A Service is a virtual cluster's only if no live backend is another's.
    #[test]
    fn a_service_is_never_told_for_one_whose_backends_are_anothers(
        events in proptest::collection::vec(any_event(), 0..40),
    ) {
        let (mut index, mut told) = listed();
        let mut slices = BTreeMap::new();
        for event in &events {
            applied(&mut index, &mut told, [event.clone()]);
            match event {
                Event::Slice(Change::Applied(slice)) => drop(slices.insert(slice.key.clone(), slice)),
                Event::Slice(Change::Gone(key)) => drop(slices.remove(key)),
                _ => {}
            }
        }
        for slice in slices.values() {
            let name = format!("{}/{}", slice.key.namespace, slice.service);
            let Some(Some(service)) = told.0.services.get(&name) else { continue };
            for backend in &slice.backends {
                let holders = told.0.pods.values().flatten().filter(|pod| {
                    !pod.host_network && pod.addresses.contains(&backend.address)
                });
                let holders: Vec<_> = holders.map(|pod| &pod.owner).collect();
                if let ([holder @ Owner::VirtualCluster(_)], Owner::VirtualCluster(_)) =
                    (&holders[..], &service.owner)
                {
                    prop_assert_eq!(*holder, &service.owner);
                }
            }
        }
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn a_pod_takes_few_bytes() {
    const PODS: u32 = 50_000;
    /// Twice what was measured: other tests of this process run meanwhile.
    const MOST: u64 = 2_048;
    let (mut index, _) = listed();
    let before = resident();
    for number in 0..PODS {
        let owner = (number / 20).to_string();
        let of_deployment = labels(&[
            ("app.kubernetes.io/name", "shop"),
            ("app.kubernetes.io/instance", &owner),
            ("pod-template-hash", "6d4cf56db6"),
        ]);
        let name = format!("shop-{owner}-6d4cf56db6-{number:05}");
        let [_, b, c, d] = number.to_be_bytes();
        let one = Pod {
            uid: format!("1a2b3c4d-0000-4000-8000-{number:012}").into(),
            labels: Arc::new(of_deployment),
            node: Some(format!("node-{}", number / 30).into()),
            ..pod("a", &name, &format!("10.{b}.{c}.{d}"))
        };
        index.apply(put(one));
    }
    let each = resident().saturating_sub(before) / u64::from(PODS);
    println!("{each} bytes for each pod, among them those that wait to be told");
    assert_eq!(index.pods(), 50_000);
    assert!(each < MOST, "{each} bytes for each pod");
}
