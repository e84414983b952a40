//! What Kubernetes says, as changes of it. Whoever watches the API server resolves each pod and
//! each Service to whom it belongs and hands on what changed; sets of addresses, and who of two
//! holders has an address, are made of it here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::{
    AddressBlock, Bindings, NamedPod, NodePolicy, NodePort, PodUid, VirtualClusterName,
};

/// Whose the addresses of a pod or a Service are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Owner {
    /// A virtual cluster's.
    VirtualCluster(VirtualClusterName),
    /// Everybody may talk with it.
    Shared,
    /// Of no virtual cluster, and everybody may talk with it that is not closed to such.
    Plain,
    /// Of no virtual cluster, and nothing is said of it.
    #[default]
    Nobody,
}

/// A pod that lives: one that has ended holds no address and is not named any more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// Its node (spec.nodeName); empty: none yet.
    pub node: String,
    /// Whose it is, by the bindings and its labels as the API server has them.
    pub owner: Owner,
    /// status.podIPs, as far as they are known.
    pub addresses: BTreeSet<IpAddr>,
    /// Its addresses are its node's: none is the pod's own.
    pub host_network: bool,
    /// It is being deleted (metadata.deletionTimestamp): whoever else has one of its addresses
    /// has it now.
    pub ending: bool,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name; empty: its node is told nothing of it.
    pub name: Arc<str>,
    /// Its priority is one that only the system's own classes give.
    pub is_critical: bool,
    /// The static pod whose mirror it is.
    pub mirror_of: Option<PodUid>,
}

impl Pod {
    /// What its node is told of it; `None`: nothing.
    pub(super) fn named(&self) -> Option<NamedPod> {
        let is_told = !self.node.is_empty() && !self.namespace.is_empty() && !self.name.is_empty();
        is_told.then(|| NamedPod {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
            owner: match &self.owner {
                // Its own namespace says nothing of the pod whose mirror it is.
                Owner::VirtualCluster(name) if self.mirror_of.is_none() => Some(name.clone()),
                _ => None,
            },
            is_critical: self.is_critical,
            mirror_of: self.mirror_of.clone(),
        })
    }
}

/// The frontends of a Service: cluster, load balancer and external addresses, and node ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Whose they are.
    pub owner: Owner,
    /// All of them.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports of every node that lead to it.
    pub node_ports: BTreeSet<NodePort>,
}

/// What changed in the cluster. `None` within a map: it is gone. A change that says what is known
/// already costs a comparison and sends nothing; many changes in one are one generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterChange {
    /// The maps name everything that there is: what they do not name is gone. For the first list,
    /// and after a watch had to list again.
    pub whole: bool,
    /// The whole table, where it changed.
    pub bindings: Option<Bindings>,
    /// Where it changed.
    pub policy: Option<NodePolicy>,
    /// Besides what objects name as shared: endpoints of the API server and the like; all of
    /// them, where they changed.
    pub shared: Option<BTreeSet<AddressBlock>>,
    /// Besides what objects name: ranges of pods, Services and nodes; all of them, where they
    /// changed.
    pub cluster_ranges: Option<BTreeSet<AddressBlock>>,
    /// By UID.
    pub pods: BTreeMap<String, Option<Pod>>,
    /// By any name of theirs that is unique ("namespace/name").
    pub services: BTreeMap<String, Option<Service>>,
    /// Addresses of Node objects by name, besides what agents report.
    pub nodes: BTreeMap<String, Option<BTreeSet<IpAddr>>>,
}
