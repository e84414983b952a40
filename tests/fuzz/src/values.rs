//! Core values: made of decisions, and what must hold of each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bulkhead_core::amount::Pids;
use bulkhead_core::control::{CpuMax, Device, IoMax, Max};
use bulkhead_core::{
    AddressBlock, Amount, BasisPoints, Binding, Bytes, Capacities, Control, ControlValue, Fact,
    Guarantee, Index, IoLimit, Limit, NamedPod, NanoCores, NetworkMode, NetworkPolicy, NodeFacts,
    NodePolicy, NodePort, OnStale, Protocol, Requirement, Selector, Snapshot, Support, Unknown,
    VirtualCluster, VirtualClusterName, VirtualClusterNumber, compile,
};
use bulkhead_proto::v1;
use prost::Message;

use crate::choices::Choices;

/// PID_MAX_LIMIT of a 64-bit kernel: the most that pids.max takes besides "max".
const MOST_PIDS: u64 = 4_194_304;
/// MAX_BW of the kernel's scheduler, microseconds.
const MOST_QUOTA_MICROSECONDS: u64 = (1 << 44) - 1;

/// A name that is one.
pub fn name(choices: &mut Choices<'_>) -> VirtualClusterName {
    let text = choices.text();
    let tag = choices.below(8);
    text.parse().unwrap_or_else(|_| format!("team-{tag}").parse().expect("it is a name"))
}

/// An address of either family.
pub fn address(choices: &mut Choices<'_>) -> IpAddr {
    let mut bytes = [0; 16];
    if choices.yes() {
        let given = choices.bytes(4);
        bytes[..given.len()].copy_from_slice(given);
        return IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]));
    }
    if choices.below(4) == 1 {
        (bytes[10], bytes[11]) = (0xff, 0xff);
        let given = choices.bytes(4);
        bytes[12..12 + given.len()].copy_from_slice(given);
    } else {
        let given = choices.bytes(16);
        bytes[..given.len()].copy_from_slice(given);
    }
    IpAddr::V6(Ipv6Addr::from(bytes))
}

/// A block of either family.
pub fn block(choices: &mut Choices<'_>) -> AddressBlock {
    let address = address(choices);
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = choices.below(most + 1);
    format!("{address}/{length}").parse().expect("it is a CIDR")
}

fn amount<T>(choices: &mut Choices<'_>, of: fn(u64) -> T) -> Option<Amount<T>> {
    let points = BasisPoints::new(u32::try_from(choices.number() % 10_000).unwrap_or(0) + 1)?;
    match choices.below(3) {
        0 => None,
        1 => Some(Amount::Absolute(of(choices.number()))),
        _ => Some(Amount::OfNode(points)),
    }
}

/// A rate; none is none, and nothing else is zero.
fn rate(choices: &mut Choices<'_>) -> Option<u64> {
    Some(choices.number()).filter(|rate| *rate > 0)
}

fn io_limit(choices: &mut Choices<'_>) -> IoLimit {
    let device = choices.of(["/dev/vda", "/dev/sda", "/dev/disk/by-id/a b", "/dev/\u{fe}"]);
    IoLimit {
        device: PathBuf::from(device),
        read_bytes_per_second: rate(choices),
        write_bytes_per_second: rate(choices),
        read_operations_per_second: rate(choices),
        write_operations_per_second: rate(choices),
    }
}

/// A virtual cluster as the controller could have made it.
pub fn virtual_cluster(choices: &mut Choices<'_>) -> VirtualCluster {
    let number = u32::try_from(choices.number() % u64::from(u32::MAX)).unwrap_or(0) + 1;
    let weight = u16::try_from(choices.number() % 10_001).unwrap_or(0);
    VirtualCluster {
        name: name(choices),
        number: VirtualClusterNumber::new(number).expect("it is not 0"),
        addresses: (0..choices.below(5)).map(|_| block(choices)).collect(),
        guarantee: Guarantee {
            cpu: amount(choices, NanoCores),
            memory: amount(choices, Bytes),
            io_weight: Some(weight).filter(|weight| *weight > 0),
        },
        limit: Limit {
            cpu: amount(choices, NanoCores),
            memory: amount(choices, Bytes),
            pids: amount(choices, Pids),
            io: (0..choices.below(3)).map(|_| io_limit(choices)).collect(),
        },
        network: NetworkPolicy {
            mode: choices.of([NetworkMode::Observe, NetworkMode::Off, NetworkMode::Enforce]),
            allow: (0..choices.below(3)).map(|_| name(choices)).collect(),
            unknown: choices.of([Unknown::Allow, Unknown::Deny]),
        },
        node_ports: (0..choices.below(3)).map(|_| node_port(choices)).collect(),
    }
}

fn node_port(choices: &mut Choices<'_>) -> NodePort {
    let protocol = choices.of([Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let port = u16::try_from(choices.number() % u64::from(u16::MAX)).unwrap_or(0) + 1;
    NodePort::new(protocol, port).expect("it is not 0")
}

fn requirement(choices: &mut Choices<'_>) -> Requirement {
    let key = choices.of(["app", "example.com/tier"]).to_owned();
    let values = ["a", "b"].into_iter().take(usize::from(choices.below(2)) + 1);
    let values = values.map(str::to_owned).collect();
    match choices.below(4) {
        0 => Requirement::In { key, values },
        1 => Requirement::NotIn { key, values },
        2 => Requirement::Exists { key },
        _ => Requirement::DoesNotExist { key },
    }
}

fn binding(choices: &mut Choices<'_>) -> Binding {
    let selector = Selector((0..choices.below(3)).map(|_| requirement(choices)).collect());
    Binding { virtual_cluster: name(choices), selector }
}

/// A snapshot as the controller could have made it, but that two may have one number.
pub fn snapshot(choices: &mut Choices<'_>, generation: u64) -> Snapshot {
    let mut snapshot = Snapshot { generation, ..Snapshot::default() };
    for _ in 0..=choices.below(3) {
        let cluster = virtual_cluster(choices);
        survives_the_wire(&cluster);
        snapshot.virtual_clusters.insert(cluster.name.clone(), cluster);
    }
    snapshot.shared = (0..choices.below(3)).map(|_| block(choices)).collect();
    snapshot.plain = (0..choices.below(3)).map(|_| block(choices)).collect();
    snapshot.cluster_ranges = (0..choices.below(3)).map(|_| block(choices)).collect();
    snapshot.node_addresses = (0..choices.below(3)).map(|_| address(choices)).collect();
    for _ in 0..choices.below(3) {
        let namespace = choices.of(["team", "shop", "kube-system"]).to_owned();
        let bound = (0..=choices.below(2)).map(|_| binding(choices)).collect();
        snapshot.bindings.0.insert(namespace, bound);
    }
    snapshot.unclear_node_ports = (0..choices.below(2)).map(|_| node_port(choices)).collect();
    snapshot.policy = NodePolicy {
        unknown: choices.of([Unknown::Allow, Unknown::Deny]),
        on_stale: choices.of([OnStale::AllowCounted, OnStale::Deny]),
    };
    snapshot.names_pods = choices.yes();
    for _ in 0..choices.below(3) {
        let uid = choices.of(["1", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "podless"]);
        snapshot.pods.insert(uid.parse().expect("it is a UID"), named_pod(choices));
    }
    snapshot
}

/// A pod as the controller could name it.
fn named_pod(choices: &mut Choices<'_>) -> NamedPod {
    let mirror_of = choices.of(["", "0123456789abcdef0123456789abcdef"]);
    NamedPod {
        namespace: choices.of(["team", "shop", "kube-system"]).into(),
        name: "p".into(),
        owner: choices.yes().then(|| name(choices)),
        is_critical: choices.yes(),
        mirror_of: NamedPod::mirrored(mirror_of),
    }
}

/// Sent to a node, it is the same there.
pub fn survives_the_wire(cluster: &VirtualCluster) {
    let bytes = v1::AgentVirtualCluster::from(cluster).encode_to_vec();
    let message = v1::AgentVirtualCluster::decode(&*bytes).expect("it was encoded");
    assert_eq!(VirtualCluster::try_from(&message).as_ref(), Ok(cluster));
}

/// A node that has everything.
fn node() -> NodeFacts {
    let device = |minor| Device { major: 254, minor };
    NodeFacts {
        cpu: NanoCores(4_000_000_000),
        memory: Bytes(8 << 30),
        pids: Pids(32_768),
        page_bytes: 4_096,
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, 1])]),
        devices: BTreeMap::from([("/dev/vda".into(), device(0)), ("/dev/sda".into(), device(16))]),
        support: Support::default(),
        capacities: Capacities::default(),
        placement: bulkhead_core::Placement::Directory,
    }
}

/// A node can be told this: either it is refused whole and nothing has changed, or every value
/// that it asks the kernel for is one that the kernel takes.
pub fn can_be_told(snapshot: &Snapshot) {
    let mut index = Index::default();
    let before = index.clone();
    if index.apply(Fact::from(snapshot.clone())).is_err() {
        assert_eq!(index, before, "a refused snapshot changes nothing");
        return;
    }
    assert_eq!(index.snapshot(), Some(snapshot));
    let Ok(desired) = compile(&index, &node()) else { return };
    let desired = desired.expect("something was told");
    assert!(desired.cgroups.keys().eq(snapshot.virtual_clusters.keys()));
    for (control, value) in desired.cgroups.values().flat_map(|cgroup| &cgroup.controls) {
        assert!(is_taken(*control, value), "{control} does not take {value}");
    }
    for (address, far) in &desired.network.addresses {
        assert!(far.virtual_cluster == 0 || is_member(snapshot, far.virtual_cluster));
        assert_eq!(
            bulkhead_core::address::to_abi(bulkhead_core::address::from_abi(*address)),
            *address
        );
    }
    for (prefix, far) in &desired.network.prefixes {
        assert!(far.virtual_cluster == 0 || is_member(snapshot, far.virtual_cluster));
        let block = AddressBlock::from_prefix(*prefix).expect("it is a block");
        assert_eq!(block.prefix(), *prefix);
    }
}

fn is_member(snapshot: &Snapshot, number: u32) -> bool {
    snapshot.virtual_clusters.values().any(|cluster| cluster.number.get() == number)
}

/// What cgroup-v2.rst and the kernel's source say of each file.
fn is_taken(control: Control, value: &ControlValue) -> bool {
    let up_to = |max: &Max, most: u64| match max {
        Max::At(value) => *value <= most,
        Max::Unlimited => true,
    };
    match (control, value) {
        (Control::CpuWeight | Control::IoWeight, ControlValue::Weight(weight)) => {
            (1..=10_000).contains(weight)
        }
        (Control::CpuMax, ControlValue::CpuMax(CpuMax { quota, period_microseconds })) => {
            (1_000..=1_000_000).contains(period_microseconds)
                && *quota >= Max::At(1_000)
                && up_to(quota, MOST_QUOTA_MICROSECONDS)
        }
        (Control::PidsMax, ControlValue::Max(max)) => up_to(max, MOST_PIDS),
        (Control::CgroupMaxDepth | Control::CgroupMaxDescendants, ControlValue::Max(max)) => {
            up_to(max, i32::MAX.unsigned_abs().into())
        }
        (
            Control::MemoryMin | Control::MemoryLow | Control::MemoryHigh | Control::MemoryMax,
            ControlValue::Max(_),
        ) => true,
        (Control::IoMax, ControlValue::IoMax(devices)) => {
            let rates = |max: &IoMax| [max.rbps, max.wbps, max.riops, max.wiops];
            devices.values().flat_map(rates).all(|rate| rate != Max::At(0))
        }
        _ => false,
    }
}
