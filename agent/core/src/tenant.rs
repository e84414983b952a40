//! What an operator asks of a node for one virtual cluster, valid by construction.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::address::AddressBlock;
use crate::amount::{Amount, Bytes, NanoCores, Pids};
use crate::binding::Unknown;
use crate::name::{VirtualClusterName, VirtualClusterNumber};
use crate::node_port::NodePort;

/// A virtual cluster as a node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualCluster {
    /// Its name; also the name of its cgroup.
    pub name: VirtualClusterName,
    /// Its number in the kernel tables.
    pub number: VirtualClusterNumber,
    /// Addresses of its members, on any node.
    pub addresses: BTreeSet<AddressBlock>,
    /// Node ports of its Services: on every host's addresses these are its own.
    pub node_ports: BTreeSet<NodePort>,
    /// What a node keeps for it while others want it too.
    pub guarantee: Guarantee,
    /// What it can have of a node at most.
    pub limit: Limit,
    /// Whom it may talk with.
    pub network: NetworkPolicy,
}

/// What a node keeps for a virtual cluster. Nothing set: nothing is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guarantee {
    /// Share of the CPUs under contention (cpu.weight).
    pub cpu: Option<Amount<NanoCores>>,
    /// Memory that reclaim leaves alone while others have some to give (memory.low).
    pub memory: Option<Amount<Bytes>>,
    /// io.weight, 1 to 10,000.
    pub io_weight: Option<u16>,
}

/// What a virtual cluster can have of a node at most. Nothing set: no limit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limit {
    /// cpu.max.
    pub cpu: Option<Amount<NanoCores>>,
    /// memory.max.
    pub memory: Option<Amount<Bytes>>,
    /// pids.max.
    pub pids: Option<Amount<Pids>>,
    /// io.max, one for each device.
    pub io: Vec<IoLimit>,
}

/// io.max of one block device. `None`: not limited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoLimit {
    /// Path of the block device on the node.
    pub device: PathBuf,
    /// rbps.
    pub read_bytes_per_second: Option<u64>,
    /// wbps.
    pub write_bytes_per_second: Option<u64>,
    /// riops.
    pub read_operations_per_second: Option<u64>,
    /// wiops.
    pub write_operations_per_second: Option<u64>,
}

/// Whom a virtual cluster may talk with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkPolicy {
    /// How verdicts are applied.
    pub mode: NetworkMode,
    /// Virtual clusters that it may talk with, in both directions.
    pub allow: BTreeSet<VirtualClusterName>,
    /// Whether it may talk with pods and Services of no virtual cluster.
    pub unknown: Unknown,
}

/// How verdicts are applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum NetworkMode {
    /// Nothing is judged, everything is counted.
    Off,
    /// Everything passes; what [`NetworkMode::Enforce`] would deny is counted.
    #[default]
    Observe,
    /// Traffic with other virtual clusters is denied.
    Enforce,
}

impl NetworkMode {
    /// As the kernel tables have it.
    pub const fn to_abi(self) -> u32 {
        match self {
            Self::Off => bulkhead_abi::MODE_OFF,
            Self::Observe => bulkhead_abi::MODE_OBSERVE,
            Self::Enforce => bulkhead_abi::MODE_ENFORCE,
        }
    }
}
