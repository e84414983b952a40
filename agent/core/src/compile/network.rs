//! Members, addresses and allowed pairs as kernel tables.
//!
//! One look-up in the kernel must answer what an address is, so every entry carries what all
//! blocks that cover it say: flags add up, and the nearest virtual cluster counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_abi::{Address, AllowKey, FarEnd, Member};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::CompileError;
use crate::address::{AddressBlock, to_abi};
use crate::binding::Unknown;
use crate::desired::DesiredNetwork;
use crate::facts::Snapshot;
use crate::name::VirtualClusterName;
use crate::observed::NodeFacts;
use crate::tenant::VirtualCluster;

/// What is said of one block itself.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    owner: Option<&'a VirtualClusterName>,
    flags: u32,
}

type Blocks<'a> = BTreeMap<AddressBlock, Said<'a>>;

/// Addresses of pods that run here, as the runtime showed them.
#[derive(Default)]
pub(super) struct Local<'a> {
    pub(super) addresses: BTreeMap<IpAddr, &'a VirtualClusterName>,
    /// The runtime still tells: it is newer than anything that the controller can know.
    pub(super) is_newest: bool,
}

/// An address of a pod here that an object gives to another virtual cluster as part of a block:
/// the object's word holds.
pub(super) struct Contested<'a> {
    pub(super) address: IpAddr,
    pub(super) owner: &'a VirtualClusterName,
    pub(super) other: &'a VirtualClusterName,
}

pub(super) fn compile<'a>(
    snapshot: &'a Snapshot,
    node: &NodeFacts,
    local: &Local<'a>,
) -> Result<(DesiredNetwork, Vec<Contested<'a>>), CompileError> {
    let mut blocks = collect(snapshot, node)?;
    let contested = put_local(&mut blocks, local);
    let lengths = lengths(&blocks);
    let mut network = DesiredNetwork {
        members: members(snapshot),
        allowed: allowed(snapshot).chain(allowed_nobodys(snapshot)).collect(),
        ..DesiredNetwork::default()
    };
    for block in blocks.keys() {
        let said = accumulate(*block, &blocks, &lengths)?;
        let number = said.owner.and_then(|name| snapshot.virtual_clusters.get(name));
        let far_end = FarEnd {
            virtual_cluster: number.map_or(0, |owner| owner.number.get()),
            flags: said.flags,
        };
        match block.single().map(to_abi).filter(|address| !address.is_of_node_port()) {
            Some(address) => drop(network.addresses.insert(address, far_end)),
            None => drop(network.prefixes.insert(block.prefix(), far_end)),
        }
    }
    network.addresses.extend(node_ports(snapshot)?);
    Ok((network, contested))
}

/// Node ports, as entries of the table of addresses. One that is nobody's is inside the cluster
/// and not known, as the cluster address of its Service is.
fn node_ports(snapshot: &Snapshot) -> Result<BTreeMap<Address, FarEnd>, CompileError> {
    let unclear = FarEnd { virtual_cluster: 0, flags: FarEnd::CLUSTER };
    let unclear = snapshot.unclear_node_ports.iter().map(|port| (port.to_abi(), unclear));
    let mut entries: BTreeMap<Address, FarEnd> = unclear.collect();
    let mut owners = BTreeMap::new();
    for (name, virtual_cluster) in &snapshot.virtual_clusters {
        let far_end =
            FarEnd { virtual_cluster: virtual_cluster.number.get(), flags: FarEnd::CLUSTER };
        for port in &virtual_cluster.node_ports {
            if let Some(first) = owners.insert(*port, name) {
                return Err(CompileError::SharedNodePort {
                    first: VirtualClusterName::clone(first),
                    second: name.clone(),
                    port: *port,
                });
            }
            entries.insert(port.to_abi(), far_end);
        }
    }
    Ok(entries)
}

/// Pods' addresses become their owners', also where the controller still has them with somebody
/// else; those of hosts stay the hosts'.
fn put_local<'a>(blocks: &mut Blocks<'a>, local: &Local<'a>) -> Vec<Contested<'a>> {
    let mut contested = Vec::new();
    if local.addresses.is_empty() {
        return contested;
    }
    let lengths = lengths(blocks);
    for (address, owner) in &local.addresses {
        let block = AddressBlock::host(*address);
        let said = blocks.get(&block).copied().unwrap_or_default();
        let is_others = said.owner.map_or(said.flags & FarEnd::PLAIN != 0, |other| other != *owner);
        if said.flags & FarEnd::NODE != 0 || (is_others && !local.is_newest) {
            continue;
        }
        let net = block.net();
        let wider = lengths[family(net)].range(..net.prefix_len());
        let mut wider = wider.filter_map(|length| blocks.get(&widen(net, *length)?)?.owner);
        if let Some(other) = wider.find(|other| other != owner) {
            contested.push(Contested { address: *address, owner, other });
            continue;
        }
        let said = blocks.entry(block).or_default();
        said.owner = Some(owner);
        said.flags = without_plain(said.flags);
    }
    contested
}

/// What is left of an address's flags when it becomes a virtual cluster's: it was shared for being
/// nobody's.
pub(crate) const fn without_plain(flags: u32) -> u32 {
    if flags & FarEnd::PLAIN == 0 { flags } else { flags & !(FarEnd::PLAIN | FarEnd::SHARED) }
}

fn members(snapshot: &Snapshot) -> BTreeMap<VirtualClusterName, Member> {
    let member = |virtual_cluster: &VirtualCluster| Member {
        virtual_cluster: virtual_cluster.number.get(),
        mode: virtual_cluster.network.mode.to_abi(),
    };
    let all = snapshot.virtual_clusters.iter();
    all.map(|(name, virtual_cluster)| (name.clone(), member(virtual_cluster))).collect()
}

/// Both directions of every pair of which one names the other; a name that is not known yet
/// takes effect when it appears.
fn allowed(snapshot: &Snapshot) -> impl Iterator<Item = AllowKey> {
    let both = |one: &VirtualCluster, other: &VirtualCluster| {
        let (from, to) = (one.number.get(), other.number.get());
        [AllowKey { from, to }, AllowKey { from: to, to: from }]
    };
    let all = snapshot.virtual_clusters.values();
    all.flat_map(move |one| {
        let others = one.network.allow.iter();
        let others = others.filter_map(|name| snapshot.virtual_clusters.get(name));
        others.flat_map(move |other| both(one, other))
    })
}

/// Who may talk with what is of no virtual cluster, where there is such.
fn allowed_nobodys(snapshot: &Snapshot) -> impl Iterator<Item = AllowKey> {
    let all = snapshot.virtual_clusters.values().filter(|_| !snapshot.plain.is_empty());
    let may = all.filter(|one| one.network.unknown == Unknown::Allow);
    may.map(|one| AllowKey { from: one.number.get(), to: 0 })
}

/// Every block that anybody names, with what is said of just it.
fn collect<'a>(snapshot: &'a Snapshot, node: &NodeFacts) -> Result<Blocks<'a>, CompileError> {
    let mut blocks = Blocks::new();
    for (name, virtual_cluster) in &snapshot.virtual_clusters {
        for block in &virtual_cluster.addresses {
            let said = blocks.entry(*block).or_default();
            if let Some(first) = said.owner.replace(name) {
                return Err(overlap(first, name, *block));
            }
        }
    }
    let hosts = snapshot.node_addresses.iter().chain(&node.addresses).copied();
    let hosts = hosts.map(AddressBlock::host).chain(host_itself());
    // The prefix table has IPv4 inside ::/0: without this entry an IPv6 prefix as wide as that
    // would speak for IPv4 too.
    blocks.entry(AddressBlock::new(IpNet::V4(Ipv4Net::default()))).or_default();
    let flagged = (hosts.map(|block| (block, FarEnd::NODE)))
        .chain(snapshot.shared.iter().map(|block| (*block, FarEnd::SHARED)))
        .chain(snapshot.plain.iter().map(|block| (*block, FarEnd::SHARED | FarEnd::PLAIN)))
        .chain(snapshot.cluster_ranges.iter().map(|block| (*block, FarEnd::CLUSTER)));
    for (block, flag) in flagged {
        blocks.entry(block).or_default().flags |= flag;
    }
    Ok(blocks)
}

/// Loopback, and the unspecified address, which connect(2) takes for loopback.
fn host_itself() -> impl Iterator<Item = AddressBlock> {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    [
        AddressBlock::new(IpNet::V4(loopback)),
        AddressBlock::host(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressBlock::host(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        AddressBlock::host(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ]
    .into_iter()
}

/// The prefix lengths that occur, by family (IPv4 first), shortest first.
fn lengths(blocks: &Blocks<'_>) -> [BTreeSet<u8>; 2] {
    let mut lengths = [BTreeSet::new(), BTreeSet::new()];
    for block in blocks.keys() {
        let net = block.net();
        lengths[family(net)].insert(net.prefix_len());
    }
    lengths
}

const fn family(net: IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// What all blocks that cover `block` say of it, from the widest to itself.
fn accumulate<'a>(
    block: AddressBlock,
    blocks: &Blocks<'a>,
    lengths: &[BTreeSet<u8>; 2],
) -> Result<Said<'a>, CompileError> {
    let net = block.net();
    let mut sum = Said::default();
    for length in lengths[family(net)].range(..=net.prefix_len()) {
        let Some(said) = widen(net, *length).and_then(|wider| blocks.get(&wider)) else {
            continue;
        };
        sum.flags |= said.flags;
        match (sum.owner, said.owner) {
            (Some(first), Some(second)) if first != second => {
                return Err(overlap(first, second, block));
            }
            (None, Some(owner)) => sum.owner = Some(owner),
            _ => {}
        }
    }
    Ok(sum)
}

fn widen(net: IpNet, length: u8) -> Option<AddressBlock> {
    let wider = match net {
        IpNet::V4(v4) => IpNet::V4(Ipv4Net::new(v4.addr(), length).ok()?),
        IpNet::V6(v6) => IpNet::V6(Ipv6Net::new(v6.addr(), length).ok()?),
    };
    Some(AddressBlock::new(wider))
}

fn overlap(
    first: &VirtualClusterName,
    second: &VirtualClusterName,
    block: AddressBlock,
) -> CompileError {
    CompileError::OverlappingAddresses { first: first.clone(), second: second.clone(), block }
}
