//! One object into core values: pure functions, each error with the path of its field.

mod shared;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::{Component, Path, PathBuf};

use bulkhead_core::amount::Pids;
use bulkhead_core::{
    AddressBlock, Amount, Bytes, Guarantee, IoLimit, Limit, NanoCores, NetworkMode, NetworkPolicy,
    VirtualClusterName,
};

use crate::object::{
    Allow, IoLimit as IoLimitSpec, Members, Mode, Network, PerNode, Quantity, VirtualClusterSpec,
};
use crate::quantity::{self, Measure, Unit};
use crate::rules;

pub use shared::{ServiceName, policy, shared, unknown};

/// A field of one object and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldProblem {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what would mend it.
    pub message: String,
}

/// Most addresses of one virtual cluster, so that it fits in one message to an agent.
pub const MAX_ADDRESSES: usize = 16_384;

/// Most virtual clusters that one names in its allow list, for the same reason.
pub const MAX_ALLOWED: usize = 1_024;

/// Longest name.
pub const MAX_NAME: usize = VirtualClusterName::MAX_LEN;

/// Most namespaces that a virtual cluster names.
pub const MAX_NAMESPACES: usize = 1_024;

/// Most requirements of a label selector, of each form.
pub const MAX_REQUIREMENTS: usize = 32;

/// Most devices that one virtual cluster limits.
pub const MAX_DEVICES: usize = 64;

/// Most values of a requirement of a label selector.
pub const MAX_VALUES: usize = 64;

/// Most ranges of the cluster.
pub const MAX_CLUSTER_RANGES: usize = 1_024;

/// Most shared services.
pub const MAX_SHARED_SERVICES: usize = 1_024;

pub(crate) type Result<T> = std::result::Result<T, FieldProblem>;

pub(crate) fn too_many(field: &str, count: usize, most: usize) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    wrong(field, format!("has {count} entries; at most {most} are possible"))
}

pub(crate) fn wrong<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(FieldProblem { field: field.into(), message: message.into() })
}

/// Field by field: what `own` sets, else what `class` sets. A list is one field: an own one
/// replaces the class's.
pub fn merged(
    own: &VirtualClusterSpec,
    class: Option<(&Option<PerNode>, &Option<Network>)>,
) -> VirtualClusterSpec {
    let Some((per_node, network)) = class else {
        return own.clone();
    };
    let below = per_node.clone().unwrap_or_default();
    let above = own.per_node.clone().unwrap_or_default();
    let (own_guarantee, class_guarantee) =
        (above.guarantee.unwrap_or_default(), below.guarantee.unwrap_or_default());
    let (own_limit, class_limit) =
        (above.limit.unwrap_or_default(), below.limit.unwrap_or_default());
    let own_network = own.network.clone().unwrap_or_default();
    let class_network = network.clone().unwrap_or_default();
    VirtualClusterSpec {
        per_node: Some(PerNode {
            guarantee: Some(crate::object::Guarantee {
                cpu: own_guarantee.cpu.or(class_guarantee.cpu),
                memory: own_guarantee.memory.or(class_guarantee.memory),
                io: own_guarantee.io.or(class_guarantee.io),
            }),
            limit: Some(crate::object::Limit {
                cpu: own_limit.cpu.or(class_limit.cpu),
                memory: own_limit.memory.or(class_limit.memory),
                pids: own_limit.pids.or(class_limit.pids),
                io: own_limit.io.or(class_limit.io),
            }),
        }),
        network: Some(Network {
            mode: own_network.mode.or(class_network.mode),
            allow: own_network.allow.or(class_network.allow),
            unknown: own_network.unknown.or(class_network.unknown),
        }),
        ..own.clone()
    }
}

/// The name of a virtual cluster.
pub fn name(name: &str) -> Result<VirtualClusterName> {
    name.parse().or_else(|error: bulkhead_core::name::NameError| {
        wrong("metadata.name", format!("{}: {error}", rules::NAME_OF_VIRTUAL_CLUSTER.message))
    })
}

/// What is kept for a virtual cluster.
pub fn guarantee(per_node: &PerNode) -> Result<Guarantee> {
    const AT: &str = "spec.perNode.guarantee";
    let spec = per_node.guarantee.clone().unwrap_or_default();
    let io_weight = match spec.io.and_then(|io| io.weight) {
        None => None,
        Some(weight) => match u16::try_from(weight) {
            Ok(weight @ 1..=10_000) => Some(weight),
            _ => return wrong(format!("{AT}.io.weight"), "is not between 1 and 10000"),
        },
    };
    Ok(Guarantee {
        cpu: amount(&format!("{AT}.cpu"), spec.cpu.as_ref(), quantity::NANOCORES)?.map(cores),
        memory: amount(&format!("{AT}.memory"), spec.memory.as_ref(), quantity::BYTES)?.map(bytes),
        io_weight,
    })
}

/// What a virtual cluster can have at most.
pub fn limit(per_node: &PerNode) -> Result<Limit> {
    const AT: &str = "spec.perNode.limit";
    let spec = per_node.limit.clone().unwrap_or_default();
    let limits = spec.io.unwrap_or_default();
    too_many(&format!("{AT}.io"), limits.len(), MAX_DEVICES)?;
    let mut io: Vec<IoLimit> = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("{AT}.io[{index}]");
        let limit = io_limit(&field, limit)?;
        if io.iter().any(|other| other.device == limit.device) {
            let message = format!("{} is limited twice; keep one", limit.device.display());
            return wrong(format!("{field}.device"), message);
        }
        io.push(limit);
    }
    Ok(Limit {
        cpu: some(&format!("{AT}.cpu"), spec.cpu.as_ref(), quantity::NANOCORES)?.map(cores),
        memory: some(&format!("{AT}.memory"), spec.memory.as_ref(), quantity::BYTES)?.map(bytes),
        pids: some(&format!("{AT}.pids"), spec.pids.as_ref(), quantity::TASKS)?.map(tasks),
        io,
    })
}

fn cores(measure: Measure) -> Amount<NanoCores> {
    match measure {
        Measure::Absolute(units) => Amount::Absolute(NanoCores(units)),
        Measure::OfNode(part) => Amount::OfNode(part),
    }
}

fn bytes(measure: Measure) -> Amount<Bytes> {
    match measure {
        Measure::Absolute(units) => Amount::Absolute(Bytes(units)),
        Measure::OfNode(part) => Amount::OfNode(part),
    }
}

fn tasks(measure: Measure) -> Amount<Pids> {
    match measure {
        Measure::Absolute(units) => Amount::Absolute(Pids(units)),
        Measure::OfNode(part) => Amount::OfNode(part),
    }
}

/// An amount; zero is none, so an object can undo what its class keeps.
fn amount(field: &str, quantity: Option<&Quantity>, unit: Unit) -> Result<Option<Measure>> {
    let Some(quantity) = quantity else {
        return Ok(None);
    };
    quantity::measure(quantity, unit).or_else(|error| wrong(field, error.to_string()))
}

/// An amount that is not zero: nothing runs with a limit of nothing.
fn some(field: &str, quantity: Option<&Quantity>, unit: Unit) -> Result<Option<Measure>> {
    match amount(field, quantity, unit)? {
        None if quantity.is_some() => wrong(field, NO_ZERO),
        measure => Ok(measure),
    }
}

const NO_ZERO: &str = "is 0, and nothing runs with a limit of nothing; leave it out for no limit";

fn io_limit(field: &str, spec: &IoLimitSpec) -> Result<IoLimit> {
    let rate = |name: &str, rate: Option<&Quantity>, unit: Unit| -> Result<Option<u64>> {
        let field = format!("{field}.{name}");
        let Some(quantity) = rate else {
            return Ok(None);
        };
        match quantity::measure_absolute(quantity, unit) {
            Ok(None) => wrong(field, NO_ZERO),
            Ok(rate) => Ok(rate),
            Err(error) => wrong(field, error.to_string()),
        }
    };
    let (data, calls) = (quantity::BYTES_PER_SECOND, quantity::OPERATIONS_PER_SECOND);
    let limit = IoLimit {
        device: device(&format!("{field}.device"), &spec.device)?,
        read_bytes_per_second: rate(
            "readBytesPerSecond",
            spec.read_bytes_per_second.as_ref(),
            data,
        )?,
        write_bytes_per_second: rate(
            "writeBytesPerSecond",
            spec.write_bytes_per_second.as_ref(),
            data,
        )?,
        read_operations_per_second: rate(
            "readOperationsPerSecond",
            spec.read_operations_per_second.as_ref(),
            calls,
        )?,
        write_operations_per_second: rate(
            "writeOperationsPerSecond",
            spec.write_operations_per_second.as_ref(),
            calls,
        )?,
    };
    let none = IoLimit {
        device: limit.device.clone(),
        read_bytes_per_second: None,
        write_bytes_per_second: None,
        read_operations_per_second: None,
        write_operations_per_second: None,
    };
    if limit == none {
        return wrong(field, rules::IO_LIMITS_SOMETHING.message);
    }
    Ok(limit)
}

fn device(field: &str, text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let below = path.strip_prefix("/dev").is_ok_and(|rest| !rest.as_os_str().is_empty());
    if !below || text.contains('\0') || !path.components().all(plain) {
        return wrong(field, format!("\"{text}\" is no path of a device below /dev"));
    }
    Ok(path.to_owned())
}

/// Where both are of one form, a guarantee is not more than its limit. A percentage and an
/// absolute amount can only be compared on a node; the agent does.
pub fn guarantee_within_limit(guarantee: &Guarantee, limit: &Limit) -> Result<()> {
    fn over<T: Ord + Copy>(kept: Option<Amount<T>>, most: Option<Amount<T>>) -> bool {
        match (kept, most) {
            (Some(Amount::Absolute(kept)), Some(Amount::Absolute(most))) => kept > most,
            (Some(Amount::OfNode(kept)), Some(Amount::OfNode(most))) => kept > most,
            _ => false,
        }
    }
    let over =
        [("cpu", over(guarantee.cpu, limit.cpu)), ("memory", over(guarantee.memory, limit.memory))];
    match over.iter().find(|(_, over)| *over) {
        None => Ok(()),
        Some((name, _)) => wrong(
            format!("spec.perNode.guarantee.{name}"),
            format!("is more than spec.perNode.limit.{name}; lower it, or raise the limit"),
        ),
    }
}

/// Addresses of members.
pub fn addresses(members: &Members) -> Result<BTreeSet<AddressBlock>> {
    let count = members.addresses.len();
    if count > MAX_ADDRESSES {
        let message = format!("are {count} addresses; at most {MAX_ADDRESSES} are possible");
        return wrong("spec.members.addresses", format!("{message}: use CIDRs"));
    }
    let mut blocks = BTreeSet::new();
    for (index, text) in members.addresses.iter().enumerate() {
        let field = format!("spec.members.addresses[{index}]");
        let block = block(&field, text)?;
        if let Some(what) = no_member(block) {
            let message = format!("{text} holds {what} addresses, which no one member has");
            return wrong(field, message);
        }
        blocks.insert(block);
    }
    Ok(blocks)
}

/// A list of addresses and CIDRs.
pub fn blocks(field: &str, texts: &[String]) -> Result<BTreeSet<AddressBlock>> {
    let one = |(index, text): (usize, &String)| block(&format!("{field}[{index}]"), text);
    texts.iter().enumerate().map(one).collect()
}

fn block(field: &str, text: &str) -> Result<AddressBlock> {
    text.parse()
        .or_else(|error: bulkhead_core::address::AddressError| wrong(field, error.to_string()))
}

/// What a block holds that cannot be told apart by address.
fn no_member(block: AddressBlock) -> Option<&'static str> {
    const SPECIAL: [(&str, &str); 8] = [
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    ];
    // A short IPv6 prefix around ::ffff:0:0/96 would hold all of IPv4 in the kernel's tables.
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    if let ipnet::IpNet::V6(net) = block.net()
        && net.contains(&mapped)
    {
        return Some("IPv4-mapped");
    }
    SPECIAL.iter().find_map(|(special, what)| {
        let special: AddressBlock = special.parse().ok()?;
        special.overlaps(block).then_some(*what)
    })
}

/// Whom a virtual cluster may talk with. `default`: the mode where none is set.
pub fn network(
    name: &VirtualClusterName,
    spec: &Network,
    default: NetworkMode,
) -> Result<NetworkPolicy> {
    let allow = allowed(spec)?;
    if let Some(index) = allow.iter().position(|other| other == name) {
        let field = format!("spec.network.allow[{index}].virtualCluster");
        return wrong(field, rules::ALLOWS_ANOTHER.message);
    }
    let allow = allow.into_iter().collect();
    let unknown = unknown(spec.unknown.unwrap_or_default());
    Ok(NetworkPolicy { mode: spec.mode.map_or(default, mode), allow, unknown })
}

/// The virtual clusters that are allowed, in the order in which they are written.
pub(crate) fn allowed(spec: &Network) -> Result<Vec<VirtualClusterName>> {
    let allow = spec.allow.as_deref().unwrap_or_default();
    let count = allow.len();
    if count > MAX_ALLOWED {
        let message = format!("are {count} virtual clusters; at most {MAX_ALLOWED} are possible");
        return wrong("spec.network.allow", message);
    }
    let one = |(index, Allow { virtual_cluster }): (usize, &Allow)| {
        let field = format!("spec.network.allow[{index}].virtualCluster");
        let name = virtual_cluster.parse();
        name.or_else(|error: bulkhead_core::name::NameError| wrong(field, error.to_string()))
    };
    allow.iter().enumerate().map(one).collect()
}

/// A mode as core has it.
pub fn mode(mode: Mode) -> NetworkMode {
    match mode {
        Mode::Enforce => NetworkMode::Enforce,
        Mode::Observe => NetworkMode::Observe,
        Mode::Off => NetworkMode::Off,
    }
}
