//! What nodes are told and what they tell of their pods: through messages and back the same, and
//! what has no meaning is refused by name.

#![expect(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{
    AddressBlock, Binding, Bindings, Delta, Guarantee, Limit, LocalPod, LocalPods, NamedPod,
    NetworkPolicy, NodePolicy, NodePort, OnStale, PodUid, Protocol, Requirement, Selector,
    SetChange, Snapshot, Unknown, VirtualCluster, VirtualClusterNumber,
};
use bulkhead_proto::bindings::{add_bindings, local_pod, local_pods, namespace_bindings};
use bulkhead_proto::pods::add_pods;
use bulkhead_proto::{snapshots, v1};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use prost::Message;

fn blocks() -> impl Strategy<Value = BTreeSet<AddressBlock>> {
    let v4 = (any::<[u8; 4]>(), 8..=32_u8).prop_map(|(it, bits)| (it.into(), bits));
    let v6 = (any::<[u8; 16]>(), 8..=128_u8).prop_map(|(it, bits)| (it.into(), bits));
    let one = prop_oneof![v4, v6].prop_map(|(it, bits)| AddressBlock::around(it, bits).unwrap());
    btree_set(one, 0..5)
}

fn ports() -> impl Strategy<Value = BTreeSet<NodePort>> {
    let protocols = vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let one = (proptest::sample::select(protocols), 1..=u16::MAX);
    btree_set(one.prop_map(|(protocol, port)| NodePort { protocol, port }), 0..4)
}

fn port_change() -> impl Strategy<Value = SetChange<NodePort>> {
    (ports(), ports()).prop_map(|(added, removed)| SetChange { added, removed })
}

fn change() -> impl Strategy<Value = SetChange<AddressBlock>> {
    (blocks(), blocks()).prop_map(|(added, removed)| SetChange { added, removed })
}

fn cluster() -> impl Strategy<Value = VirtualCluster> {
    let some = ("[a-z][a-z0-9]{0,5}", 1..u32::MAX, blocks(), ports());
    some.prop_map(|(name, number, addresses, node_ports)| VirtualCluster {
        name: name.parse().unwrap(),
        number: VirtualClusterNumber::new(number).unwrap(),
        addresses,
        node_ports,
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy::default(),
    })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    (0..4, "[a-z/.]{1,20}", btree_set("[a-z]{0,5}", 1..4)).prop_map(
        |(kind, key, values)| match kind {
            0 => Requirement::In { key, values },
            1 => Requirement::NotIn { key, values },
            2 => Requirement::Exists { key },
            _ => Requirement::DoesNotExist { key },
        },
    )
}

fn bindings() -> impl Strategy<Value = Bindings> {
    let binding = ("[a-z]{1,5}", btree_set(requirement(), 0..3)).prop_map(|(name, selector)| {
        Binding { virtual_cluster: name.parse().unwrap(), selector: Selector(selector) }
    });
    btree_map("[a-z]{1,8}", vec(binding, 1..4), 0..4).prop_map(Bindings)
}

fn policy() -> impl Strategy<Value = NodePolicy> {
    let unknown = prop_oneof![Just(Unknown::Allow), Just(Unknown::Deny)];
    let on_stale = prop_oneof![Just(OnStale::AllowCounted), Just(OnStale::Deny)];
    (unknown, on_stale).prop_map(|(unknown, on_stale)| NodePolicy { unknown, on_stale })
}

fn named() -> impl Strategy<Value = BTreeMap<PodUid, NamedPod>> {
    let owner = proptest::option::of("[a-z]{1,5}");
    let hash = proptest::option::of("[0-9a-f]{32}");
    let pod = ("[a-z]{1,5}", "[a-z]{1,5}", owner, any::<bool>(), hash);
    let pod = pod.prop_map(|(namespace, name, owner, is_critical, hash)| NamedPod {
        namespace: namespace.into(),
        name: name.into(),
        owner: owner.map(|name| name.parse().unwrap()),
        is_critical,
        mirror_of: hash.map(|hash| hash.parse().unwrap()),
    });
    let pods = btree_map("[0-9a-f-]{1,36}", pod, 0..6);
    pods.prop_map(|pods| pods.into_iter().map(|(uid, pod)| (uid.parse().unwrap(), pod)).collect())
}

fn pods() -> impl Strategy<Value = LocalPods> {
    let own = proptest::option::of("[a-z]{1,5}");
    let hosts = btree_set(any::<[u8; 4]>().prop_map(Into::into), 0..4);
    let pod = ("[a-z]{1,5}", "[a-z]{1,5}", hosts, any::<bool>(), own);
    let pod = pod.prop_map(|(namespace, name, addresses, host_network, own)| LocalPod {
        namespace,
        name,
        addresses,
        host_network,
        virtual_cluster: own.map(|name| name.parse().unwrap()),
    });
    btree_map("[0-9a-f-]{1,36}", pod, 0..6)
}

proptest! {
    #[test]
    fn snapshots_come_back_the_same(
        clusters in vec(cluster(), 0..4),
        (shared, plain, cluster_ranges) in (blocks(), blocks(), blocks()),
        unclear_node_ports in ports(),
        bindings in bindings(),
        policy in policy(),
        (names_pods, pods) in (any::<bool>(), named()),
    ) {
        let virtual_clusters = clusters.into_iter().map(|it| (it.name.clone(), it)).collect();
        let node_addresses = ["192.0.2.1".parse().unwrap()].into();
        let snapshot = Snapshot {
            generation: 4,
            virtual_clusters,
            shared,
            plain,
            cluster_ranges,
            node_addresses,
            unclear_node_ports,
            bindings,
            policy,
            names_pods,
            pods,
        };
        let bytes = snapshots::whole(&snapshot).encode_to_vec();
        let chunk = v1::SnapshotChunk::decode(&*bytes).unwrap();
        prop_assert!(chunk.first && chunk.last);
        let back = snapshots::snapshot(&[chunk]);
        if snapshot.check().is_ok() {
            prop_assert_eq!(back, Ok(snapshot));
        } else {
            prop_assert!(back.is_err());
        }
    }

    #[test]
    fn changes_come_back_the_same(
        clusters in vec(cluster(), 0..4),
        addresses in btree_map("[a-z]{1,5}", change(), 0..3),
        node_ports in btree_map("[a-z]{1,5}", port_change(), 0..3),
        unclear_node_ports in port_change(),
        (shared, plain, cluster_ranges) in (change(), change(), change()),
        bindings in bindings(),
        unbound in btree_set("[a-z]{1,8}", 0..3),
        policy in proptest::option::of(policy()),
        (names_pods, pods) in (proptest::option::of(any::<bool>()), named()),
    ) {
        let delta = Delta {
            base: 3,
            generation: 9,
            upserted: clusters.into_iter().map(|it| (it.name.clone(), it)).collect(),
            removed: ["gone".parse().unwrap()].into(),
            addresses: addresses.into_iter().map(|(name, it)| (name.parse().unwrap(), it)).collect(),
            shared,
            plain,
            cluster_ranges,
            node_addresses: SetChange { added: ["::1".parse().unwrap()].into(), ..SetChange::default() },
            node_ports: node_ports.into_iter().map(|(name, it)| (name.parse().unwrap(), it)).collect(),
            unclear_node_ports,
            bindings: bindings.0,
            unbound,
            policy,
            names_pods,
            pods,
            pods_gone: ["gone".parse().unwrap()].into(),
        };
        let bytes = v1::SnapshotDelta::from(&delta).encode_to_vec();
        let message = v1::SnapshotDelta::decode(&*bytes).unwrap();
        prop_assert_eq!(Delta::try_from(&message), Ok(delta));
    }

    #[test]
    fn bindings_keep_their_order(bindings in bindings()) {
        let messages: Vec<_> =
            bindings.0.iter().flat_map(|(name, bound)| namespace_bindings(name, bound)).collect();
        let mut back = Bindings::default();
        // As chunks cut them.
        for part in messages.chunks(2) {
            prop_assert_eq!(add_bindings(&mut back, part), Ok(()));
        }
        prop_assert_eq!(back, bindings);
    }

    #[test]
    fn pods_come_back_the_same(pods in pods()) {
        let messages: Vec<_> = pods.iter().map(|(uid, pod)| local_pod(uid, pod)).collect();
        prop_assert_eq!(local_pods(&messages), Ok(pods));
    }
}

#[test]
fn a_binding_that_has_no_meaning_is_refused_by_namespace_and_field() {
    type Break = fn(&mut v1::NamespaceBinding);
    let good = || v1::NamespaceBinding {
        namespace: "shop".to_owned(),
        virtual_cluster: "team-a".to_owned(),
        pod_selector: vec![v1::LabelRequirement {
            key: "app".to_owned(),
            operator: v1::label_requirement::Operator::In.into(),
            values: vec!["web".to_owned()],
        }],
    };
    assert_eq!(add_bindings(&mut Bindings::default(), &[good()]), Ok(()));
    let cases: [(&str, Break); 9] = [
        ("namespace", |it| it.namespace.clear()),
        ("namespace", |it| it.namespace = "x".repeat(64)),
        ("virtual_cluster", |it| it.virtual_cluster = "../a".to_owned()),
        ("pod_selector[0].key", |it| it.pod_selector[0].key.clear()),
        ("pod_selector[0].operator", |it| it.pod_selector[0].operator = 0),
        ("pod_selector[0].operator", |it| it.pod_selector[0].operator = 77),
        ("pod_selector[0].values", |it| it.pod_selector[0].values.clear()),
        ("pod_selector[0].values", |it| it.pod_selector[0].operator = 3),
        ("pod_selector", |it| it.pod_selector = vec![it.pod_selector[0].clone(); 257]),
    ];
    for (field, break_it) in cases {
        let mut broken = good();
        break_it(&mut broken);
        let error = add_bindings(&mut Bindings::default(), &[broken]).unwrap_err();
        assert_eq!(error.field, field);
        assert!(error.to_string().starts_with("binding of namespace \""), "{error}");
    }
}

#[test]
fn a_named_pod_that_has_no_meaning_is_refused_by_field() {
    type Break = fn(&mut v1::NamedPod);
    let good = || v1::NamedPod {
        uid: "1".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-0".to_owned(),
        ..v1::NamedPod::default()
    };
    assert_eq!(add_pods(&mut BTreeMap::new(), &[good()]), Ok(()));
    let cases: [(&str, Break); 6] = [
        ("uid", |it| it.uid.clear()),
        ("uid", |it| it.uid = "../x".to_owned()),
        ("namespace", |it| it.namespace.clear()),
        ("name", |it| it.name = "x".repeat(254)),
        ("virtual_cluster", |it| it.virtual_cluster = "A".to_owned()),
        // Nobody can say that a pod of the API server's is a static one.
        ("mirror_of", |it| it.mirror_of = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".to_owned()),
    ];
    for (field, break_it) in cases {
        let mut broken = good();
        break_it(&mut broken);
        assert_eq!(add_pods(&mut BTreeMap::new(), &[broken]).unwrap_err().field, field);
    }
    let twice = add_pods(&mut BTreeMap::new(), &[good(), good()]).unwrap_err();
    assert_eq!(twice.problem, "comes twice");
}

#[test]
fn node_ports_that_have_no_meaning_are_refused_by_place() {
    let good = v1::NodePort { protocol: 6, port: 30_080 };
    let cluster = |ports: &[v1::NodePort]| {
        let node_ports = ports.to_vec();
        let name = "a".to_owned();
        let message = v1::AgentVirtualCluster { name, number: 1, spec: None, node_ports };
        VirtualCluster::try_from(&message)
    };
    assert_eq!(cluster(&[good]).unwrap().node_ports.len(), 1);
    for wrong in [(6, 0), (6, 65_536), (0, 30_080), (1, 30_080), (6 + 256, 30_080)] {
        let wrong = v1::NodePort { protocol: wrong.0, port: wrong.1 };
        assert_eq!(cluster(&[good, wrong]).unwrap_err().field, "node_ports[1]", "{wrong:?}");
        let change = v1::NodePortChange {
            virtual_cluster: "a".to_owned(),
            added: vec![],
            removed: vec![wrong],
        };
        let delta = v1::SnapshotDelta { node_ports: vec![change], ..Default::default() };
        let error = Delta::try_from(&delta).unwrap_err().to_string();
        assert!(error.starts_with("node_ports.removed[0]: "), "{error}");
        let unclear_node_ports_added = vec![good, wrong];
        let delta = v1::SnapshotDelta { unclear_node_ports_added, ..Default::default() };
        let error = Delta::try_from(&delta).unwrap_err().to_string();
        assert!(error.starts_with("unclear_node_ports_added[1]: "), "{error}");
        let chunk = v1::SnapshotChunk { unclear_node_ports: vec![wrong], ..Default::default() };
        assert!(snapshots::snapshot(&[chunk]).is_err());
    }
    let change =
        v1::NodePortChange { virtual_cluster: "a".to_owned(), added: vec![good], removed: vec![] };
    let twice =
        v1::SnapshotDelta { node_ports: vec![change.clone(), change], ..Default::default() };
    assert!(Delta::try_from(&twice).is_err(), "one name twice");
}

#[test]
fn pods_and_policies_that_have_no_meaning_are_refused_by_field() {
    type Break = fn(&mut v1::LocalPod);
    let good = || v1::LocalPod {
        uid: "1".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-0".to_owned(),
        ..v1::LocalPod::default()
    };
    assert_eq!(local_pods(&[good()]).unwrap()["1"].virtual_cluster, None);
    let cases: [(&str, Break); 6] = [
        ("uid", |it| it.uid.clear()),
        ("uid", |it| it.uid = "a b".to_owned()),
        ("namespace", |it| it.namespace.clear()),
        ("name", |it| it.name = "x".repeat(254)),
        ("addresses[1]", |it| it.addresses = vec!["::1".to_owned(), "10.0.0.0/8".to_owned()]),
        ("virtual_cluster", |it| it.virtual_cluster = "A".to_owned()),
    ];
    for (field, break_it) in cases {
        let mut broken = good();
        break_it(&mut broken);
        assert_eq!(local_pods(&[broken]).unwrap_err().field, field);
    }
    let many = v1::LocalPod { addresses: vec!["::1".to_owned(); 65], ..good() };
    assert_eq!(local_pods(&[many]).unwrap_err().field, "addresses");
    assert_eq!(local_pods(&[good(), good()]).unwrap_err().problem, "comes twice");
    let newer = v1::NodePolicy { unknown: 9, on_stale: 0 };
    assert_eq!(NodePolicy::try_from(&newer).unwrap_err().field, "unknown");
    assert_eq!(NodePolicy::try_from(&v1::NodePolicy::default()), Ok(NodePolicy::default()));
}
