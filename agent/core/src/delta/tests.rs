//! Deltas lead where they say, from where they say, and from nowhere else.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::amount::{Amount, Pids};
use crate::binding::{Bindings, OnStale, Requirement, Selector, Unknown};
use crate::inventory::tests::named;
use crate::name::VirtualClusterNumber;
use crate::node_port::Protocol;
use crate::tenant::{Guarantee, Limit, NetworkPolicy};

fn blocks() -> impl Strategy<Value = BTreeSet<AddressBlock>> {
    let one = (0..12_u8).prop_map(|n| AddressBlock::host([10, 0, 0, n].into()));
    proptest::collection::btree_set(one, 0..8)
}

/// Few enough that two snapshots have some in common.
fn ports() -> impl Strategy<Value = BTreeSet<NodePort>> {
    let protocol = proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    let one = (protocol, 1..5_u16).prop_map(|(protocol, port)| NodePort { protocol, port });
    proptest::collection::btree_set(one, 0..4)
}

/// Number and name go together, so no two have one number.
fn cluster() -> impl Strategy<Value = VirtualCluster> {
    let pids = proptest::option::of(0..3_u64);
    (1..6_u32, blocks(), ports(), pids).prop_map(|(number, addresses, node_ports, pids)| {
        VirtualCluster {
            name: format!("team-{number}").parse().unwrap(),
            number: VirtualClusterNumber::new(number).unwrap(),
            addresses,
            node_ports,
            guarantee: Guarantee::default(),
            limit: Limit { pids: pids.map(|n| Amount::Absolute(Pids(n))), ..Limit::default() },
            network: NetworkPolicy::default(),
        }
    })
}

fn binding() -> impl Strategy<Value = Binding> {
    (1..6_u32, proptest::bool::ANY).prop_map(|(number, narrow)| {
        let requirement = Requirement::Exists { key: "app".to_owned() };
        Binding {
            virtual_cluster: format!("team-{number}").parse().unwrap(),
            selector: Selector(narrow.then_some(requirement).into_iter().collect()),
        }
    })
}

fn bindings() -> impl Strategy<Value = Bindings> {
    let bound = proptest::collection::vec(binding(), 1..3);
    proptest::collection::btree_map("[a-c]", bound, 0..3).prop_map(Bindings)
}

fn policy() -> impl Strategy<Value = NodePolicy> {
    (proptest::bool::ANY, proptest::bool::ANY).prop_map(|(unknown, stale)| NodePolicy {
        unknown: if unknown { Unknown::Deny } else { Unknown::Allow },
        on_stale: if stale { OnStale::Deny } else { OnStale::AllowCounted },
    })
}

fn pods() -> impl Strategy<Value = BTreeMap<PodUid, NamedPod>> {
    let pod =
        (proptest::option::of(1..6_u32), proptest::bool::ANY).prop_map(|(owner, critical)| {
            let owner = owner.map(|number| format!("team-{number}"));
            NamedPod { is_critical: critical, ..named("n", owner.as_deref()) }
        });
    proptest::collection::btree_map("[0-9a]{2}", pod, 0..5)
        .prop_map(|pods| pods.into_iter().map(|(uid, pod)| (uid.parse().unwrap(), pod)).collect())
}

fn snapshot(generation: u64) -> impl Strategy<Value = Snapshot> {
    let nodes =
        proptest::collection::btree_set((0..9_u8).prop_map(|n| [192, 0, 2, n].into()), 0..5);
    let clusters = proptest::collection::vec(cluster(), 0..6);
    let lists = (blocks(), blocks(), nodes, ports(), blocks());
    (clusters, lists, bindings(), policy(), proptest::bool::ANY, pods()).prop_map(
        move |(clusters, lists, bindings, policy, names_pods, pods)| Snapshot {
            generation,
            virtual_clusters: clusters.into_iter().map(|it| (it.name.clone(), it)).collect(),
            shared: lists.0,
            plain: lists.4,
            cluster_ranges: lists.1,
            node_addresses: lists.2,
            unclear_node_ports: lists.3,
            bindings,
            policy,
            names_pods,
            pods,
        },
    )
}

proptest! {
    #[test]
    fn a_delta_leads_from_the_old_to_the_new(old in snapshot(3), new in snapshot(8)) {
        let delta = Delta::between(&old, &new);
        prop_assert_eq!(old.changed_by(&delta), Ok(new.clone()));
        let same = Snapshot { generation: old.generation, ..new.clone() } == old;
        prop_assert_eq!(delta.is_empty(), same);
    }

    #[test]
    fn a_delta_of_another_base_is_refused(
        old in snapshot(3),
        new in snapshot(8),
        base in 0..10_u64,
        generation in 0..10_u64,
    ) {
        let delta = Delta { base, generation, ..Delta::between(&old, &new) };
        let before = old.clone();
        let expected = if base != 3 {
            Err(DeltaError::OtherBase { base, held: 3 })
        } else if generation <= base {
            Err(DeltaError::Backwards { base, generation })
        } else {
            Ok(Snapshot { generation, ..new })
        };
        prop_assert_eq!(old.changed_by(&delta), expected);
        prop_assert_eq!(old, before);
    }

    /// Whoever has another snapshot of the same number notices, or gets what was meant for what
    /// the delta touches: it never adds twice and never takes away what is not there.
    #[test]
    fn a_delta_for_another_content_is_no_silent_mixture(
        old in snapshot(3),
        new in snapshot(8),
        held in snapshot(3),
    ) {
        let delta = Delta::between(&old, &new);
        if let Ok(got) = held.changed_by(&delta) {
            for one in &delta.shared.added {
                prop_assert!(got.shared.contains(one) && !held.shared.contains(one));
            }
            for one in &delta.shared.removed {
                prop_assert!(!got.shared.contains(one) && held.shared.contains(one));
            }
            prop_assert!(got.check().is_ok());
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let name = |text: &str| text.parse::<VirtualClusterName>().unwrap();
    let host: AddressBlock = "10.0.0.1".parse().unwrap();
    let old = Snapshot { generation: 1, shared: [host].into(), ..Snapshot::default() };
    let delta = || Delta { base: 1, generation: 2, ..Delta::default() };
    let add = || SetChange { added: [host].into(), removed: BTreeSet::new() };
    let dns = NodePort { protocol: Protocol::Udp, port: 53 };
    let none = SetChange::default();
    let cases = [
        (Delta { removed: [name("a")].into(), ..delta() }, "virtual clusters: \"a\" is not there"),
        (
            Delta { addresses: [(name("a"), add())].into(), ..delta() },
            "virtual clusters: \"a\" is not there",
        ),
        (
            Delta { node_ports: [(name("a"), SetChange::default())].into(), ..delta() },
            "virtual clusters: \"a\" is not there",
        ),
        (
            Delta { unclear_node_ports: SetChange { removed: [dns].into(), ..none }, ..delta() },
            "unclear node ports: \"53/UDP\" is not there",
        ),
        (Delta { shared: add(), ..delta() }, "shared: \"10.0.0.1\" is there already"),
        (Delta { unbound: ["n".to_owned()].into(), ..delta() }, "bindings: \"n\" is not there"),
        (Delta { pods_gone: ["1".parse().unwrap()].into(), ..delta() }, "pods: \"1\" is not there"),
    ];
    for (wrong, expected) in cases {
        let error = old.changed_by(&wrong).unwrap_err();
        assert!(error.is_misfit() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn what_a_delta_leads_to_must_make_sense() {
    let cluster = |name: &str| VirtualCluster {
        name: name.parse().unwrap(),
        number: VirtualClusterNumber::new(7).unwrap(),
        addresses: BTreeSet::new(),
        node_ports: BTreeSet::new(),
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy::default(),
    };
    let (first, second) = (cluster("a"), cluster("b"));
    let virtual_clusters = [(first.name.clone(), first)].into();
    let old = Snapshot { generation: 1, virtual_clusters, ..Snapshot::default() };
    let upserted = [(second.name.clone(), second)].into();
    let delta = Delta { base: 1, generation: 2, upserted, ..Delta::default() };
    let error = old.changed_by(&delta).unwrap_err();
    assert!(!error.is_misfit() && error.to_string().contains("number 7"), "{error}");
}
