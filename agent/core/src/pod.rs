//! Pods of a node, as its runtime shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::name::VirtualClusterName;

/// Every pod of a node by UID.
pub type LocalPods = BTreeMap<String, LocalPod>;

/// A pod that runs on the node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct LocalPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of its network namespace; empty where it has the host's, or while they are not known.
    pub addresses: BTreeSet<IpAddr>,
    /// It has the host's network namespace.
    pub host_network: bool,
    /// What the node takes it for; `None`: of no virtual cluster.
    pub virtual_cluster: Option<VirtualClusterName>,
}
