//! From what a node was told to what it should look like.

mod controls;
mod network;
mod overlay;

use bulkhead_abi::FarEnd;

use crate::address::AddressBlock;
use crate::binding::OnStale;
use crate::desired::{Desired, DesiredNetwork};
use crate::facts::Index;
use crate::name::VirtualClusterName;
use crate::node_port::NodePort;
use crate::observed::{NodeFacts, Placement};

pub use controls::{MAX_DEPTH, MAX_DESCENDANTS, UNWRITTEN};
pub(crate) use network::without_plain;
pub(crate) use overlay::register;

/// Why a snapshot was refused whole; what stood before stands on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// Two virtual clusters claim one address.
    #[error(
        "virtual clusters \"{first}\" and \"{second}\" both claim addresses in {block}; take it \
         out of one of them"
    )]
    OverlappingAddresses {
        /// One of them.
        first: VirtualClusterName,
        /// The other.
        second: VirtualClusterName,
        /// The smaller of the two blocks.
        block: AddressBlock,
    },
    /// Two virtual clusters have one node port.
    #[error(
        "virtual clusters \"{first}\" and \"{second}\" both have node port {port}; give one of their \
         Services another"
    )]
    SharedNodePort {
        /// One of them.
        first: VirtualClusterName,
        /// The other.
        second: VirtualClusterName,
        /// The port.
        port: NodePort,
    },
}

/// Decides what the node should look like; `None` where nothing was told yet.
///
/// The same facts give the same result, whatever was before.
pub fn compile(index: &Index, node: &NodeFacts) -> Result<Option<Desired>, CompileError> {
    let Some(snapshot) = index.snapshot() else {
        return Ok(None);
    };
    if node.placement == Placement::Overlay {
        let mut desired = overlay::compile(snapshot, index.inventory(), node)?;
        while_stale(index, &mut desired.network);
        return Ok(Some(desired));
    }
    let mut desired = Desired {
        generation: snapshot.generation,
        network: network::compile(snapshot, node, &network::Local::default())?.0,
        ..Desired::default()
    };
    for (name, virtual_cluster) in &snapshot.virtual_clusters {
        let (cgroup, degraded) = controls::compile(virtual_cluster, node);
        desired.cgroups.insert(name.clone(), cgroup);
        if !degraded.is_empty() {
            desired.degraded.insert(name.clone(), degraded);
        }
    }
    while_stale(index, &mut desired.network);
    Ok(Some(desired))
}

/// While the controller is away, nobody can tell of peers that come: what it never told of passes,
/// and is counted, unless the operator wants it refused.
fn while_stale(index: &Index, network: &mut DesiredNetwork) {
    let policy = index.snapshot().map(|snapshot| snapshot.policy.on_stale);
    if !index.is_stale() || policy != Some(OnStale::AllowCounted) {
        return;
    }
    for far in network.prefixes.values_mut().filter(|far| far.flags & FarEnd::CLUSTER != 0) {
        far.flags |= FarEnd::STALE;
    }
}

#[cfg(test)]
pub(crate) mod tests;
