//! What a node should look like.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{Address, AllowKey, FarEnd, Member, Prefix};

use crate::control::{Control, ControlValue, Controller};
use crate::name::VirtualClusterName;

/// What this node should look like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// The generation of the snapshot that it was made of.
    pub generation: u64,
    /// One cgroup for each virtual cluster.
    pub cgroups: BTreeMap<VirtualClusterName, DesiredCgroup>,
    /// The kernel tables.
    pub network: DesiredNetwork,
    /// What was asked for and cannot be enforced here.
    pub degraded: BTreeMap<VirtualClusterName, Vec<Degradation>>,
}

/// The cgroup of one virtual cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DesiredCgroup {
    /// Controllers that it needs from its parent.
    pub controllers: BTreeSet<Controller>,
    /// Every control that this node can enforce, asked for or at its default: so a change by
    /// somebody else is found.
    pub controls: BTreeMap<Control, ControlValue>,
}

/// The kernel tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DesiredNetwork {
    /// MEMBERS, by name: the cgroup's id is known only when it is there.
    pub members: BTreeMap<VirtualClusterName, Member>,
    /// ADDRESSES
    pub addresses: BTreeMap<Address, FarEnd>,
    /// PREFIXES
    pub prefixes: BTreeMap<Prefix, FarEnd>,
    /// ALLOWED
    pub allowed: BTreeSet<AllowKey>,
}

/// Something that was asked for and is not enforced as asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Degradation {
    /// What it is about ("memory.max").
    pub subject: String,
    /// What is wrong and what would mend it.
    pub message: String,
}
