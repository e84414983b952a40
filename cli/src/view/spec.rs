//! What was asked for.

use bulkhead_proto::v1;
use serde::Serialize;

use super::open_enum::open_enum;

open_enum! {
    /// What the kernel programs do with traffic to other virtual clusters.
    NetworkMode from v1::NetworkMode {
        /// Nothing is judged, everything is counted.
        Off,
        /// Everything passes; what Enforce would deny is counted.
        Observe,
        /// Traffic with other virtual clusters is denied.
        Enforce,
    }
}

/// What a virtual cluster should have and be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Spec {
    /// Addresses and CIDRs of its members.
    pub(crate) addresses: Vec<String>,
    /// What each node keeps for it.
    pub(crate) guarantee: Guarantee,
    /// What it can have on each node at most.
    pub(crate) limit: Limit,
    /// Its network.
    pub(crate) network: Network,
    /// The class whose defaults were applied.
    pub(crate) class: Option<String>,
}

/// Its network policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    /// What is done with traffic to others.
    pub(crate) mode: NetworkMode,
    /// Virtual clusters that it may talk with, in both directions.
    pub(crate) allow: Vec<String>,
    /// Traffic with pods and Services of no virtual cluster is denied too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) denies_unknown: bool,
}

/// What each node keeps for a virtual cluster while others want it too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Guarantee {
    /// Processor time.
    pub(crate) cpu: Option<Cpu>,
    /// Memory.
    pub(crate) memory: Option<Memory>,
    /// io.weight.
    pub(crate) io_weight: Option<u32>,
}

/// What a virtual cluster can have on one node at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Limit {
    /// Processor time.
    pub(crate) cpu: Option<Cpu>,
    /// Memory.
    pub(crate) memory: Option<Memory>,
    /// Tasks.
    pub(crate) pids: Option<Pids>,
    /// Block devices.
    pub(crate) io: Vec<Io>,
}

/// An amount of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cpu {
    /// 1 core = 1,000,000,000.
    Nanocores(u64),
    /// Hundredths of a percent of the node's cores.
    NodeBasisPoints(u32),
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Memory {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of a percent of the node's memory.
    NodeBasisPoints(u32),
}

/// A number of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pids {
    /// Tasks.
    Pids(u64),
    /// Hundredths of a percent of the node's `kernel.pid_max`.
    NodeBasisPoints(u32),
}

/// io.max of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Io {
    /// Path of the block device.
    pub(crate) device: String,
    /// None: not limited.
    pub(crate) read_bytes_per_second: Option<u64>,
    /// None: not limited.
    pub(crate) write_bytes_per_second: Option<u64>,
    /// None: not limited.
    pub(crate) read_operations_per_second: Option<u64>,
    /// None: not limited.
    pub(crate) write_operations_per_second: Option<u64>,
}

impl From<v1::VirtualClusterSpec> for Spec {
    fn from(spec: v1::VirtualClusterSpec) -> Self {
        Self {
            addresses: spec.addresses,
            guarantee: spec.guarantee.map(Guarantee::from).unwrap_or_default(),
            limit: spec.limit.map(Limit::from).unwrap_or_default(),
            network: Network {
                mode: NetworkMode::from_wire(spec.network_mode),
                allow: spec.network_allow,
                denies_unknown: spec.network_denies_unknown,
            },
            class: Some(spec.class).filter(|class| !class.is_empty()),
        }
    }
}

impl From<v1::Guarantee> for Guarantee {
    fn from(guarantee: v1::Guarantee) -> Self {
        Self {
            cpu: guarantee.cpu.and_then(cpu),
            memory: guarantee.memory.and_then(memory),
            io_weight: Some(guarantee.io_weight).filter(|weight| *weight > 0),
        }
    }
}

impl From<v1::Limit> for Limit {
    fn from(limit: v1::Limit) -> Self {
        Self {
            cpu: limit.cpu.and_then(cpu),
            memory: limit.memory.and_then(memory),
            pids: limit.pids.and_then(pids),
            io: limit.io.into_iter().map(Io::from).collect(),
        }
    }
}

impl From<v1::IoLimit> for Io {
    fn from(limit: v1::IoLimit) -> Self {
        let set = |rate: u64| (rate > 0).then_some(rate);
        Self {
            device: limit.device,
            read_bytes_per_second: set(limit.read_bytes_per_second),
            write_bytes_per_second: set(limit.write_bytes_per_second),
            read_operations_per_second: set(limit.read_operations_per_second),
            write_operations_per_second: set(limit.write_operations_per_second),
        }
    }
}

fn cpu(amount: v1::CpuAmount) -> Option<Cpu> {
    Some(match amount.amount? {
        v1::cpu_amount::Amount::Nanocores(nanocores) => Cpu::Nanocores(nanocores),
        v1::cpu_amount::Amount::NodeBasisPoints(points) => Cpu::NodeBasisPoints(points),
    })
}

fn memory(amount: v1::MemoryAmount) -> Option<Memory> {
    Some(match amount.amount? {
        v1::memory_amount::Amount::Bytes(bytes) => Memory::Bytes(bytes),
        v1::memory_amount::Amount::NodeBasisPoints(points) => Memory::NodeBasisPoints(points),
    })
}

fn pids(amount: v1::PidsAmount) -> Option<Pids> {
    Some(match amount.amount? {
        v1::pids_amount::Amount::Pids(pids) => Pids::Pids(pids),
        v1::pids_amount::Amount::NodeBasisPoints(points) => Pids::NodeBasisPoints(points),
    })
}
