//! What the kernel counted: raw values as they were read, at one moment.

use std::collections::BTreeMap;

use bulkhead_abi::Counters;

use crate::name::{CgroupId, VirtualClusterName};

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixNanos(pub u64);

/// Everything that was counted for the virtual clusters of a node, read at about one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// When reading began, by the wall clock: it decides the window.
    pub at: UnixNanos,
    /// When reading began, by a clock that never steps (`CLOCK_BOOTTIME`): nanoseconds since
    /// boot. Time integrals use it.
    pub since_boot_nanoseconds: u64,
    /// When the network counters began at zero.
    pub network_epoch: UnixNanos,
    /// What programs of other versions of the agent have counted in tables of their own.
    pub foreign: Vec<ForeignCounters>,
    /// One for each virtual cluster that has a cgroup and could be read.
    pub virtual_clusters: BTreeMap<VirtualClusterName, VirtualClusterSample>,
    /// Virtual clusters that could not be read, and why: a gap, never a zero.
    pub failed: BTreeMap<VirtualClusterName, String>,
    /// Pods that are members, and those that were and of which network counters are left.
    pub pods: BTreeMap<CgroupId, PodSample>,
    /// Pods that could not be read, and why.
    pub failed_pods: BTreeMap<CgroupId, String>,
}

/// What was counted for one pod. `None`: this node does not count it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodSample {
    /// From its cgroup's files; nothing of a cgroup that is gone.
    pub cgroup_counters: CgroupCounters,
    /// From the network programs, added over CPUs.
    pub network: Option<Box<Counters>>,
}

/// What programs of another version have counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignCounters {
    /// When those counters began at zero.
    pub epoch: UnixNanos,
    /// By cgroup, added over CPUs.
    pub by_cgroup: BTreeMap<CgroupId, Counters>,
}

/// What was counted for one virtual cluster. `None`: this node does not count it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualClusterSample {
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// From its cgroup's files.
    pub cgroup_counters: CgroupCounters,
    /// From the network programs, added over CPUs.
    pub network: Option<Box<Counters>>,
}

/// From the files of one cgroup, dead children included. `None`: the file is not there, because
/// its controller is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CgroupCounters {
    /// cpu.stat
    pub cpu: Option<CpuCounters>,
    /// memory.*
    pub memory: Option<MemoryCounters>,
    /// io.stat, added over devices
    pub io: Option<IoCounters>,
    /// pids.*
    pub pids: Option<PidsCounters>,
    /// *.pressure
    pub pressure: Option<PressureCounters>,
}

/// cpu.stat
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuCounters {
    /// `usage_usec` × 1,000
    pub usage_nanoseconds: u64,
    /// `user_usec` × 1,000
    pub user_nanoseconds: u64,
    /// `system_usec` × 1,000
    pub system_nanoseconds: u64,
    /// `nr_throttled` and `throttled_usec` × 1,000; `None` without the cpu controller.
    pub throttled: Option<Throttled>,
}

/// What cpu.max held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Throttled {
    /// `nr_throttled`
    pub periods: u64,
    /// `throttled_usec` × 1,000
    pub nanoseconds: u64,
}

/// memory.current, memory.peak, memory.events
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryCounters {
    /// memory.current
    pub current_bytes: u64,
    /// memory.peak; `None` before kernel 5.19
    pub peak_bytes: Option<u64>,
    /// `oom_kill` of memory.events
    pub oom_kills: u64,
}

/// io.stat
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoCounters {
    /// rbytes
    pub read_bytes: u64,
    /// wbytes
    pub write_bytes: u64,
    /// rios
    pub read_operations: u64,
    /// wios
    pub write_operations: u64,
}

/// pids.current, pids.peak, pids.events
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PidsCounters {
    /// pids.current
    pub current: u64,
    /// pids.peak; `None` before kernel 6.1
    pub peak: Option<u64>,
    /// max of pids.events; `None` where the kernel counts it in the cgroup of whoever forked
    /// (before 6.11), and that may be one below
    pub refused: Option<u64>,
}

/// Totals of PSI files (Documentation/accounting/psi.rst) × 1,000. `None`: no such line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PressureCounters {
    /// cpu.pressure, some
    pub cpu_some_nanoseconds: Option<u64>,
    /// memory.pressure, some
    pub memory_some_nanoseconds: Option<u64>,
    /// memory.pressure, full
    pub memory_full_nanoseconds: Option<u64>,
    /// io.pressure, some
    pub io_some_nanoseconds: Option<u64>,
    /// io.pressure, full
    pub io_full_nanoseconds: Option<u64>,
}
