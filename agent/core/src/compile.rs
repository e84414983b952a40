//! From what a node was told to what it should look like.

mod controls;
mod network;
mod overlay;

use crate::address::AddressBlock;
use crate::desired::Desired;
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
        return overlay::compile(snapshot, index.inventory(), node).map(Some);
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
    Ok(Some(desired))
}

#[cfg(test)]
pub(crate) mod tests;
