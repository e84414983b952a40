use std::collections::BTreeMap;

/// Resources of a container or pod on Linux. What is absent is not set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxResources {
    /// Memory.
    #[prost(message, optional, tag = "1")]
    pub memory: Option<LinuxMemory>,
    /// CPU.
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<LinuxCpu>,
    /// Limits of huge pages.
    #[prost(message, repeated, tag = "3")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Name of a class of block I/O, from the runtime's configuration.
    #[prost(message, optional, tag = "4")]
    pub blockio_class: Option<String>,
    /// Name of a class of Resource Director Technology, from the runtime's configuration.
    #[prost(message, optional, tag = "5")]
    pub rdt_class: Option<String>,
    /// Files of cgroup v2 and what to write to them.
    #[prost(btree_map = "string, string", tag = "6")]
    pub unified: BTreeMap<String, String>,
    /// Rules for devices.
    #[prost(message, repeated, tag = "7")]
    pub devices: Vec<LinuxDeviceCgroup>,
    /// Number of processes.
    #[prost(message, optional, tag = "8")]
    pub pids: Option<LinuxPids>,
}

/// Memory, in bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxMemory {
    /// Bytes at most.
    #[prost(message, optional, tag = "1")]
    pub limit: Option<i64>,
    /// Bytes that are asked for (a soft limit).
    #[prost(message, optional, tag = "2")]
    pub reservation: Option<i64>,
    /// Bytes of memory and swap at most.
    #[prost(message, optional, tag = "3")]
    pub swap: Option<i64>,
    /// Bytes of kernel memory at most.
    #[prost(message, optional, tag = "4")]
    pub kernel: Option<i64>,
    /// Bytes of TCP buffers at most.
    #[prost(message, optional, tag = "5")]
    pub kernel_tcp: Option<i64>,
    /// Tendency to swap, 0 to 100.
    #[prost(message, optional, tag = "6")]
    pub swappiness: Option<u64>,
    /// Whether tasks wait instead of being killed at the limit (cgroup v1).
    #[prost(message, optional, tag = "7")]
    pub disable_oom_killer: Option<bool>,
    /// Whether children count (cgroup v1).
    #[prost(message, optional, tag = "8")]
    pub use_hierarchy: Option<bool>,
}

/// CPU time and placement.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxCpu {
    /// Relative weight, in shares of cgroup v1 (2 to 262,144; 1,024 is one CPU's request).
    #[prost(message, optional, tag = "1")]
    pub shares: Option<u64>,
    /// Microseconds of CPU time in each period; negative for no limit.
    #[prost(message, optional, tag = "2")]
    pub quota: Option<i64>,
    /// Length of the period in microseconds.
    #[prost(message, optional, tag = "3")]
    pub period: Option<u64>,
    /// Microseconds of realtime scheduling in each realtime period.
    #[prost(message, optional, tag = "4")]
    pub realtime_runtime: Option<i64>,
    /// Length of the realtime period in microseconds.
    #[prost(message, optional, tag = "5")]
    pub realtime_period: Option<u64>,
    /// CPUs as a list (`0-3,8`); empty for all.
    #[prost(string, tag = "6")]
    pub cpus: String,
    /// Memory nodes as a list; empty for all.
    #[prost(string, tag = "7")]
    pub mems: String,
}

/// A limit of huge pages of one size.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HugepageLimit {
    /// The size as the kernel names it, such as `2MB`.
    #[prost(string, tag = "1")]
    pub page_size: String,
    /// Bytes at most.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

/// A rule for devices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxDeviceCgroup {
    /// Whether the rule allows.
    #[prost(bool, tag = "1")]
    pub allow: bool,
    /// `a`, `b` or `c`: all, block or character devices.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Major number; absent for any.
    #[prost(message, optional, tag = "3")]
    pub major: Option<i64>,
    /// Minor number; absent for any.
    #[prost(message, optional, tag = "4")]
    pub minor: Option<i64>,
    /// Some of `rwm`: read, write, make.
    #[prost(string, tag = "5")]
    pub access: String,
}

/// Number of processes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxPids {
    /// Processes and threads at most.
    #[prost(int64, tag = "1")]
    pub limit: i64,
}
