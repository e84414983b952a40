use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_abi::{
    AllowKey, Class, FarEnd, MODE_ENFORCE, MODE_OBSERVE, Verdict, classify, counted_as, decide,
    mode_for,
};
use proptest::prelude::*;

use super::*;
use crate::address::from_abi;
use crate::amount::{Amount, BasisPoints, Bytes, NanoCores, Pids};
use crate::binding::{OnStale, Unknown};
use crate::control::{Control, ControlValue};
use crate::desired::{self, DesiredNetwork};
use crate::facts::{Fact, Snapshot};
use crate::name::VirtualClusterNumber;
use crate::node_port::Protocol;
use crate::observed::{Capacities, Support};
use crate::tenant::{Guarantee, Limit, NetworkMode, NetworkPolicy, VirtualCluster};

pub(crate) fn node() -> NodeFacts {
    NodeFacts {
        cpu: NanoCores(2_000_000_000),
        memory: Bytes(8 << 30),
        pids: Pids(32_768),
        page_bytes: 4_096,
        addresses: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
        devices: BTreeMap::new(),
        support: Support::default(),
        capacities: Capacities::default(),
        placement: Placement::Directory,
    }
}

pub(crate) fn virtual_cluster(name: &str, number: u32, addresses: &[&str]) -> VirtualCluster {
    VirtualCluster {
        name: name.parse().unwrap(),
        number: VirtualClusterNumber::new(number).unwrap(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        node_ports: BTreeSet::new(),
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy::default(),
    }
}

pub(crate) fn snapshot(virtual_clusters: Vec<VirtualCluster>) -> Snapshot {
    Snapshot {
        generation: 1,
        virtual_clusters: virtual_clusters.into_iter().map(|vc| (vc.name.clone(), vc)).collect(),
        ..Snapshot::default()
    }
}

pub(crate) fn compiled(snapshot: Snapshot, node: &NodeFacts) -> Desired {
    let mut index = Index::default();
    index.apply(Fact::from(snapshot)).unwrap();
    compile(&index, node).unwrap().unwrap()
}

fn controls(virtual_cluster: VirtualCluster, node: &NodeFacts) -> BTreeMap<Control, String> {
    let name = virtual_cluster.name.clone();
    let desired = compiled(snapshot(vec![virtual_cluster]), node);
    let controls = &desired.cgroups[&name].controls;
    controls.iter().map(|(control, value)| (*control, value.to_string())).collect()
}

fn look_up(network: &DesiredNetwork, address: IpAddr) -> Option<FarEnd> {
    desired::look_up(&network.addresses, &network.prefixes, address)
}

#[test]
fn nothing_told_means_nothing_to_change() {
    assert_eq!(compile(&Index::default(), &node()), Ok(None));
}

#[test]
fn a_virtual_cluster_that_only_names_members_limits_nothing_and_observes() {
    let controls = controls(virtual_cluster("a", 1, &["10.0.0.1"]), &node());
    for (control, value) in &controls {
        let default = match control {
            Control::CgroupMaxDepth => MAX_DEPTH.to_string(),
            Control::CgroupMaxDescendants => MAX_DESCENDANTS.to_string(),
            other => other.default_value().to_string(),
        };
        assert_eq!(value, &default, "{control}");
    }
    assert_eq!(controls.len(), Control::ALL.len());
    let desired = compiled(snapshot(vec![virtual_cluster("a", 1, &[])]), &node());
    assert_eq!(desired.network.members.values().next().unwrap().mode, MODE_OBSERVE);
}

#[test]
fn amounts_become_controls() {
    let mut vc = virtual_cluster("a", 1, &[]);
    vc.guarantee.cpu = Some(Amount::OfNode(BasisPoints::new(2_500).unwrap()));
    vc.guarantee.memory = Some(Amount::Absolute(Bytes((1 << 30) + 5)));
    vc.guarantee.io_weight = Some(200);
    vc.limit.cpu = Some(Amount::Absolute(NanoCores(1_500_000_000)));
    vc.limit.memory = Some(Amount::OfNode(BasisPoints::new(5_000).unwrap()));
    vc.limit.pids = Some(Amount::Absolute(Pids(64)));
    let controls = controls(vc, &node());
    let expected = [
        (Control::CpuWeight, "2500"),
        (Control::CpuMax, "150000 100000"),
        (Control::MemoryLow, "1073741824"),
        (Control::MemoryMax, "4294967296"),
        (Control::PidsMax, "64"),
        (Control::IoWeight, "200"),
    ];
    for (control, value) in expected {
        assert_eq!(controls[&control], value, "{control}");
    }
}

#[test]
fn a_limit_under_the_least_quota_takes_a_longer_period() {
    let mut vc = virtual_cluster("a", 1, &[]);
    vc.limit.cpu = Some(Amount::Absolute(NanoCores(2_000_000)));
    assert_eq!(controls(vc.clone(), &node())[&Control::CpuMax], "2000 1000000");
    vc.limit.cpu = Some(Amount::Absolute(NanoCores(1)));
    assert_eq!(controls(vc.clone(), &node())[&Control::CpuMax], "1000 1000000");
    vc.limit.cpu = Some(Amount::Absolute(NanoCores(u64::MAX)));
    assert!(controls(vc, &node()).contains_key(&Control::CpuMax));
}

#[test]
fn a_limit_above_all_that_the_kernel_takes_is_none() {
    let mut vc = virtual_cluster("a", 1, &[]);
    vc.limit.cpu = Some(Amount::Absolute(NanoCores(u64::MAX)));
    vc.limit.pids = Some(Amount::Absolute(Pids(4_194_305)));
    let wanted = controls(vc.clone(), &node());
    assert_eq!(wanted[&Control::CpuMax], "max 100000");
    assert_eq!(wanted[&Control::PidsMax], "max");
    vc.limit.pids = Some(Amount::Absolute(Pids(4_194_304)));
    assert_eq!(controls(vc, &node())[&Control::PidsMax], "4194304");
}

#[test]
fn what_the_node_cannot_enforce_is_degraded_with_its_reason_and_not_written() {
    let mut node = node();
    let reason = "memory: controller is bound to cgroup v1".to_owned();
    node.support.missing.insert(Control::MemoryMax, reason.clone());
    let mut vc = virtual_cluster("a", 1, &[]);
    let desired = compiled(snapshot(vec![vc.clone()]), &node);
    assert!(desired.degraded.is_empty(), "nothing was asked for");
    vc.limit.memory = Some(Amount::Absolute(Bytes(1 << 20)));
    let desired = compiled(snapshot(vec![vc.clone()]), &node);
    let degraded = &desired.degraded[&vc.name];
    assert_eq!(degraded[0].subject, "memory.max");
    assert_eq!(degraded[0].message, reason);
    assert!(!desired.cgroups[&vc.name].controls.contains_key(&Control::MemoryMax));
}

#[test]
fn a_guarantee_over_the_limit_on_this_node_is_cut_and_told() {
    let mut vc = virtual_cluster("a", 1, &[]);
    vc.guarantee.memory = Some(Amount::OfNode(BasisPoints::new(5_000).unwrap()));
    vc.limit.memory = Some(Amount::Absolute(Bytes(1 << 30)));
    let desired = compiled(snapshot(vec![vc.clone()]), &node());
    assert_eq!(desired.degraded[&vc.name][0].subject, "memory.low");
    let low = &desired.cgroups[&vc.name].controls[&Control::MemoryLow];
    assert_eq!(low, &ControlValue::Max(crate::control::Max::At(1 << 30)));
}

#[test]
fn a_device_that_is_not_there_is_told() {
    let mut vc = virtual_cluster("a", 1, &[]);
    vc.limit.io = vec![crate::tenant::IoLimit {
        device: "/dev/absent".into(),
        read_bytes_per_second: Some(1),
        write_bytes_per_second: None,
        read_operations_per_second: None,
        write_operations_per_second: None,
    }];
    let desired = compiled(snapshot(vec![vc.clone()]), &node());
    assert!(desired.degraded[&vc.name][0].message.contains("/dev/absent"));
}

#[test]
fn the_far_end_is_decided_in_the_documented_order() {
    let mut facts = snapshot(vec![
        virtual_cluster("a", 1, &["10.1.0.0/24", "fd00:1::1"]),
        virtual_cluster("b", 2, &["10.1.1.1", "192.0.2.9"]),
    ]);
    facts.shared = BTreeSet::from(["10.96.0.10".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]);
    facts.cluster_ranges = BTreeSet::from(["10.0.0.0/8".parse().unwrap()]);
    facts.node_addresses = BTreeSet::from(["192.0.2.9".parse().unwrap()]);
    let network = compiled(facts, &node()).network;
    let class = |address: &str| classify(1, look_up(&network, address.parse().unwrap()));
    assert_eq!(class("10.1.0.7"), Class::Own);
    assert_eq!(class("fd00:1::1"), Class::Own);
    assert_eq!(class("192.0.2.9"), Class::Node, "node before another virtual cluster");
    assert_eq!(class("192.0.2.1"), Class::Node, "this node's own address");
    assert_eq!(class("127.0.0.1"), Class::Node);
    assert_eq!(class("10.96.0.10"), Class::Shared, "shared inside the cluster's range");
    assert_eq!(class("10.1.1.1"), Class::Shared, "shared before another virtual cluster");
    assert_eq!(class("10.2.0.1"), Class::Cluster);
    assert_eq!(class("8.8.8.8"), Class::Outside);
    let as_b = classify(2, look_up(&network, "10.1.0.7".parse().unwrap()));
    assert_eq!(as_b, Class::Shared);
}

#[test]
fn who_is_closed_to_what_is_nobodys_is_not_on_the_allow_list() {
    let mut closed = virtual_cluster("closed", 2, &[]);
    closed.network.unknown = Unknown::Deny;
    let mut facts = snapshot(vec![virtual_cluster("open", 1, &[]), closed]);
    assert!(compiled(facts.clone(), &node()).network.allowed.is_empty(), "there is no such thing");
    let (dns, plain) = ("10.96.0.10".parse().unwrap(), "10.1.0.9".parse().unwrap());
    facts.shared = BTreeSet::from([dns, plain]);
    facts.plain = BTreeSet::from([plain]);
    let network = compiled(facts, &node()).network;
    assert_eq!(network.allowed, [AllowKey { from: 1, to: 0 }].into());
    let class = |me, address: &str| {
        let far = look_up(&network, address.parse().unwrap());
        let class = classify(me, far);
        let allowed = network.allowed.contains(&AllowKey { from: me, to: 0 });
        (decide(class, allowed) == Verdict::Pass, counted_as(class, far, allowed))
    };
    assert_eq!(class(1, "10.1.0.9"), (true, Class::Shared));
    assert_eq!(class(2, "10.1.0.9"), (false, Class::Other));
    assert_eq!(class(2, "10.96.0.10"), (true, Class::Shared));
}

#[test]
fn while_the_controller_is_away_what_it_never_told_of_passes_unless_that_is_denied() {
    let mut facts = snapshot(vec![virtual_cluster("a", 1, &["10.1.0.7"])]);
    facts.cluster_ranges = BTreeSet::from(["10.0.0.0/8".parse().unwrap()]);
    let mode = |facts: &Snapshot, is_stale, address: &str| {
        let mut index = Index::default();
        index.apply(Fact::from(facts.clone())).unwrap();
        index.apply(Fact::Stale(is_stale)).unwrap();
        let network = compile(&index, &node()).unwrap().unwrap().network;
        let far = look_up(&network, address.parse().unwrap());
        mode_for(classify(2, far), far, MODE_ENFORCE)
    };
    assert_eq!(mode(&facts, false, "10.2.0.1"), MODE_ENFORCE);
    assert_eq!(mode(&facts, true, "10.2.0.1"), MODE_OBSERVE);
    assert_eq!(mode(&facts, true, "10.1.0.7"), MODE_ENFORCE, "it told of this one");
    facts.policy.on_stale = OnStale::Deny;
    assert_eq!(mode(&facts, true, "10.2.0.1"), MODE_ENFORCE);
}

#[test]
fn a_prefix_as_wide_as_all_ipv6_does_not_speak_for_ipv4() {
    let mut facts = snapshot(vec![]);
    facts.cluster_ranges = BTreeSet::from(["::/0".parse().unwrap()]);
    let network = compiled(facts, &node()).network;
    assert_eq!(classify(1, look_up(&network, "8.8.8.8".parse().unwrap())), Class::Outside);
    assert_eq!(classify(1, look_up(&network, "2001:db8::1".parse().unwrap())), Class::Cluster);
}

#[test]
fn overlapping_addresses_refuse_the_snapshot_and_name_both() {
    for (one, other) in [("10.0.0.1", "10.0.0.1"), ("10.0.0.0/8", "10.0.0.1")] {
        let facts =
            snapshot(vec![virtual_cluster("a", 1, &[one]), virtual_cluster("b", 2, &[other])]);
        let mut index = Index::default();
        index.apply(Fact::from(facts)).unwrap();
        let error = compile(&index, &node()).unwrap_err().to_string();
        assert!(error.contains("\"a\"") && error.contains("\"b\""), "{error}");
        assert!(error.contains("10.0.0.1"), "{error}");
    }
}

fn port(text: &str) -> NodePort {
    let (port, protocol) = text.split_once('/').unwrap();
    let protocol = Protocol::from_name(protocol).unwrap();
    NodePort::new(protocol, port.parse().unwrap()).unwrap()
}

#[test]
fn a_node_port_is_its_virtual_clusters_one_of_nobody_is_inside_and_others_are_not_there() {
    let mut a = virtual_cluster("a", 1, &["10.1.0.1"]);
    a.node_ports = BTreeSet::from([port("30080/TCP"), port("30053/UDP")]);
    let mut facts = snapshot(vec![a, virtual_cluster("b", 2, &[])]);
    facts.unclear_node_ports = BTreeSet::from([port("30099/TCP")]);
    let network = compiled(facts, &node()).network;
    let class = |me, text: &str| {
        let far = network.addresses.get(&port(text).to_abi())?;
        Some(classify(me, Some(*far)))
    };
    assert_eq!(class(1, "30080/TCP"), Some(Class::Own));
    assert_eq!(class(2, "30080/TCP"), Some(Class::Other));
    assert_eq!(class(2, "30053/UDP"), Some(Class::Other));
    assert_eq!(class(1, "30099/TCP"), Some(Class::Cluster));
    assert_eq!(class(2, "30053/TCP"), None, "of another protocol");
    assert_eq!(class(2, "30081/TCP"), None);
}

#[test]
fn an_address_in_the_form_of_a_node_port_is_what_is_said_of_it_and_no_node_port() {
    let mut a = virtual_cluster("a", 1, &[]);
    a.node_ports = BTreeSet::from([port("30080/TCP")]);
    let text = from_abi(port("30080/TCP").to_abi());
    let facts = |b| snapshot(vec![a.clone(), b]);
    let network = compiled(facts(virtual_cluster("b", 2, &[])), &node()).network;
    assert_eq!(look_up(&network, text), None, "nobody said anything of it");
    let network = compiled(facts(virtual_cluster("b", 2, &[&text.to_string()])), &node()).network;
    assert_eq!(classify(2, look_up(&network, text)), Class::Own);
    assert_eq!(network.addresses[&port("30080/TCP").to_abi()].virtual_cluster, 1);
}

#[test]
fn a_node_port_of_two_refuses_the_snapshot_and_names_both() {
    let with = |name, number| {
        let mut one = virtual_cluster(name, number, &[]);
        one.node_ports = BTreeSet::from([port("30080/TCP")]);
        one
    };
    let mut index = Index::default();
    index.apply(Fact::from(snapshot(vec![with("a", 1), with("b", 2)]))).unwrap();
    let error = compile(&index, &node()).unwrap_err().to_string();
    assert!(error.contains("\"a\"") && error.contains("\"b\""), "{error}");
    assert!(error.contains("30080/TCP"), "{error}");
}

#[test]
fn an_allowed_pair_may_talk_in_both_directions_once_both_are_known() {
    let mut a = virtual_cluster("a", 1, &[]);
    a.network.allow = BTreeSet::from(["b".parse().unwrap(), "later".parse().unwrap()]);
    let network = compiled(snapshot(vec![a, virtual_cluster("b", 2, &[])]), &node()).network;
    let pairs = [AllowKey { from: 1, to: 2 }, AllowKey { from: 2, to: 1 }];
    assert_eq!(network.allowed, BTreeSet::from(pairs));
}

#[test]
fn enforce_reaches_the_member_table() {
    let mut a = virtual_cluster("a", 1, &[]);
    a.network.mode = NetworkMode::Enforce;
    let network = compiled(snapshot(vec![a]), &node()).network;
    assert_eq!(network.members.values().next().unwrap().mode, MODE_ENFORCE);
}

/// Few enough addresses that random blocks cover each other.
fn block() -> impl Strategy<Value = AddressBlock> {
    let v4 = (0u8..4, 0u8..4, 24u8..=32).prop_map(|(c, d, len)| format!("10.0.{c}.{d}/{len}"));
    let v6 = (0u16..4, 100u8..=128).prop_map(|(d, len)| format!("fd00::{d:x}/{len}"));
    prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap())
}

fn blocks() -> impl Strategy<Value = BTreeSet<AddressBlock>> {
    prop::collection::btree_set(block(), 0..6)
}

proptest! {
    #[test]
    fn one_look_up_says_the_same_as_asking_every_block(
        owned in prop::collection::vec(blocks(), 3),
        shared in blocks(),
        ranges in blocks(),
        hosts in blocks(),
        asked in block(),
        me in 1u32..=3,
    ) {
        let clusters = (1u32..).zip(&owned).map(|(number, blocks)| VirtualCluster {
            addresses: blocks.clone(),
            ..virtual_cluster(&format!("vc{number}"), number, &[])
        });
        let mut facts = snapshot(clusters.collect());
        facts.shared = shared.clone();
        facts.cluster_ranges = ranges.clone();
        facts.node_addresses = hosts.iter().map(|block| block.net().addr()).collect();
        let overlapping = owned.iter().enumerate().any(|(at, one)| {
            owned[at + 1..].iter().flatten().any(|other| one.iter().any(|own| own.overlaps(*other)))
        });
        let mut index = Index::default();
        index.apply(Fact::from(facts.clone())).unwrap();
        let result = compile(&index, &node());
        prop_assert_eq!(result.is_err(), overlapping);
        if let Ok(Some(desired)) = result {
            let address = asked.net().addr();
            let host = AddressBlock::host(address);
            let within = |set: &BTreeSet<AddressBlock>| set.iter().any(|block| block.covers(host));
            let owner = (1u32..).zip(&owned).find(|(_, blocks)| within(blocks)).map(|(n, _)| n);
            let expected = if owner == Some(me) {
                Class::Own
            } else if facts.node_addresses.contains(&address) {
                Class::Node
            } else if within(&shared) {
                Class::Shared
            } else if owner.is_some() {
                Class::Other
            } else if within(&ranges) {
                Class::Cluster
            } else {
                Class::Outside
            };
            prop_assert_eq!(classify(me, look_up(&desired.network, address)), expected);
        }
    }
}
