//! What a node was told, and what it remembers of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::address::AddressBlock;
use crate::name::{VirtualClusterName, VirtualClusterNumber};
use crate::tenant::VirtualCluster;

/// Something that a node was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// Everything that the controller knows, whole.
    Snapshot(Snapshot),
}

/// Everything that the controller knows and a node needs, of one generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// All virtual clusters.
    pub virtual_clusters: BTreeMap<VirtualClusterName, VirtualCluster>,
    /// The operator's shared list.
    pub shared: BTreeSet<AddressBlock>,
    /// The cluster's pod, service and node ranges.
    pub cluster_ranges: BTreeSet<AddressBlock>,
    /// Every host address of every node.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// What the node remembers of what it was told. Empty: nothing was told yet, and nothing that
/// stands may be changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    snapshot: Option<Snapshot>,
}

/// Why a fact was not taken; the index is as before.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FactError {
    /// Two virtual clusters have one number.
    #[error(
        "virtual clusters \"{first}\" and \"{second}\" both have number {number}; the controller's \
         identity table is damaged: restore it from its backup"
    )]
    SharedNumber {
        /// One of them.
        first: VirtualClusterName,
        /// The other.
        second: VirtualClusterName,
        /// Their number.
        number: VirtualClusterNumber,
    },
    /// An object is filed under another object's name.
    #[error("virtual cluster \"{name}\" came under the name \"{key}\"")]
    Misfiled {
        /// Its name.
        name: VirtualClusterName,
        /// Where it was.
        key: VirtualClusterName,
    },
}

impl Index {
    /// Takes in a fact. The same fact twice changes nothing.
    pub fn apply(&mut self, fact: Fact) -> Result<(), FactError> {
        match fact {
            Fact::Snapshot(snapshot) => {
                check(&snapshot)?;
                self.snapshot = Some(snapshot);
            }
        }
        Ok(())
    }

    /// The newest snapshot; `None`: nothing was told yet.
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Its generation; 0: nothing was told yet.
    pub fn generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.generation)
    }
}

fn check(snapshot: &Snapshot) -> Result<(), FactError> {
    let mut numbers = BTreeMap::new();
    for (key, virtual_cluster) in &snapshot.virtual_clusters {
        let name = &virtual_cluster.name;
        if key != name {
            return Err(FactError::Misfiled { name: name.clone(), key: key.clone() });
        }
        if let Some(first) = numbers.insert(virtual_cluster.number, name) {
            return Err(FactError::SharedNumber {
                first: first.clone(),
                second: name.clone(),
                number: virtual_cluster.number,
            });
        }
    }
    Ok(())
}
