//! What a node was told, and what it remembers of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::AddressBlock;
use crate::binding::{Bindings, NodePolicy};
use crate::inventory::{Inventory, NamedPod, PodFact, PodUid};
use crate::name::{VirtualClusterName, VirtualClusterNumber};
use crate::node_port::NodePort;
use crate::tenant::VirtualCluster;

/// Something that a node was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// Everything that the controller knows, whole.
    Snapshot(Arc<Snapshot>),
    /// Something about the pods of this node.
    Pods(PodFact),
    /// Whether the controller is away for so long that what it said last may be out of date.
    Stale(bool),
}

impl From<Snapshot> for Fact {
    fn from(snapshot: Snapshot) -> Self {
        Self::Snapshot(Arc::new(snapshot))
    }
}

/// Everything that the controller knows and a node needs, of one generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// All virtual clusters.
    pub virtual_clusters: BTreeMap<VirtualClusterName, VirtualCluster>,
    /// The operator's shared list, and what is of no virtual cluster.
    pub shared: BTreeSet<AddressBlock>,
    /// Those of `shared` which are there only because they are of no virtual cluster.
    pub plain: BTreeSet<AddressBlock>,
    /// The cluster's pod, service and node ranges.
    pub cluster_ranges: BTreeSet<AddressBlock>,
    /// Every host address of every node.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Node ports of Services that are several virtual clusters', or of which it is not known
    /// whose they are: inside the cluster, and nobody's.
    pub unclear_node_ports: BTreeSet<NodePort>,
    /// Which pods belong to which virtual cluster.
    pub bindings: Bindings,
    /// How the node treats what it does not know.
    pub policy: NodePolicy,
    /// Whether `pods` names every pod of the node. Else the controller does not know pods, or it
    /// said so long ago.
    pub names_pods: bool,
    /// The pods that the API server places on this node and that have not ended, by its UIDs.
    pub pods: BTreeMap<PodUid, NamedPod>,
}

/// What the node remembers of what it was told. Empty: nothing was told yet, and nothing that
/// stands may be changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    snapshot: Option<Arc<Snapshot>>,
    inventory: Inventory,
    is_stale: bool,
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
                snapshot.check()?;
                self.inventory.name(&snapshot);
                self.snapshot = Some(snapshot);
            }
            Fact::Pods(fact) => self.inventory.apply(fact),
            Fact::Stale(is_stale) => self.is_stale = is_stale,
        }
        Ok(())
    }

    /// The newest snapshot; `None`: nothing was told yet.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref()
    }

    /// The newest snapshot, to be shared; `None`: nothing was told yet.
    pub const fn shared_snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The pods of this node.
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Whether what the controller said last may be out of date.
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Its generation; 0: nothing was told yet.
    pub fn generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.generation)
    }
}

impl Snapshot {
    /// Whether its parts fit together; an [`Index`] takes no other.
    pub fn check(&self) -> Result<(), FactError> {
        let mut numbers = BTreeMap::new();
        for (key, virtual_cluster) in &self.virtual_clusters {
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
}
