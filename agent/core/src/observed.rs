//! What the kernel says: read, never remembered.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{Address, AllowKey, FarEnd, Member, Prefix};

use crate::binding::Unknown;
use crate::control::{Control, ControlValue};
use crate::inventory::PodPath;
use crate::name::{CgroupId, VirtualClusterName};

/// What stands on the node now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// The cgroups below our root.
    pub cgroups: BTreeMap<VirtualClusterName, ObservedCgroup>,
    /// The kubelet's cgroups of pods, in [`Placement::Overlay`].
    pub pods: BTreeMap<CgroupId, PodPath>,
    /// Tables and programs.
    pub network: ObservedNetwork,
}

/// One virtual cluster's cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedCgroup {
    /// Its incarnation.
    pub id: CgroupId,
    /// What its controls hold; a control whose file is not there is absent.
    pub controls: BTreeMap<Control, ControlValue>,
    /// Whether any process lives in it or below.
    pub populated: bool,
}

/// What the kernel tables hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedNetwork {
    /// MEMBERS
    pub members: BTreeMap<CgroupId, Member>,
    /// ADDRESSES
    pub addresses: BTreeMap<Address, FarEnd>,
    /// PREFIXES
    pub prefixes: BTreeMap<Prefix, FarEnd>,
    /// ALLOWED
    pub allowed: BTreeSet<AllowKey>,
    /// Keys of SLOTS
    pub counters: BTreeSet<CgroupId>,
    /// Programs that are attached to our root, by name.
    pub attached: BTreeSet<&'static str>,
    /// Whether CONFIG holds our ABI version and level.
    pub configured: bool,
    /// What the programs do with cgroups of nobody; `None`: below our own root they know but one
    /// thing, to drop.
    pub unknown: Option<Unknown>,
    /// ABI versions of other agents that have counted in tables of their own, and do so no more.
    pub retired: BTreeSet<u32>,
}

/// How many entries each table can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// MEMBERS
    pub members: usize,
    /// CELLS, and SLOTS
    pub counters: usize,
    /// ADDRESSES
    pub addresses: usize,
    /// PREFIXES
    pub prefixes: usize,
    /// ALLOWED
    pub allowed: usize,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            members: 16_384,
            counters: 1_024,
            addresses: 131_072,
            prefixes: 16_384,
            allowed: 16_384,
        }
    }
}

/// Where the processes of virtual clusters live.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Placement {
    /// In one cgroup of ours for each virtual cluster.
    #[default]
    Directory,
    /// In the kubelet's cgroups of pods, which are registered and never written to.
    Overlay,
}

/// Which controls this node can enforce.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Support {
    /// Controls that cannot be enforced, with the reason ("memory: controller is bound to
    /// cgroup v1").
    pub missing: BTreeMap<Control, String>,
}

/// What a node is, as far as deciding needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFacts {
    /// Its CPUs.
    pub cpu: crate::amount::NanoCores,
    /// `MemTotal`.
    pub memory: crate::amount::Bytes,
    /// `kernel.pid_max`.
    pub pids: crate::amount::Pids,
    /// Its page size; the kernel rounds memory limits down to it.
    pub page_bytes: u64,
    /// Every address of the host: interfaces, gateways, tunnel devices.
    pub addresses: BTreeSet<std::net::IpAddr>,
    /// Block devices that objects name, as far as they are there.
    pub devices: BTreeMap<std::path::PathBuf, crate::control::Device>,
    /// Which controls can be enforced.
    pub support: Support,
    /// How many entries each table can hold.
    pub capacities: Capacities,
    /// Where the processes of virtual clusters live.
    pub placement: Placement,
}
