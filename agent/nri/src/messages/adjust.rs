use std::collections::BTreeMap;

use super::{
    CdiDevice, Hooks, LinuxDevice, LinuxIoPriority, LinuxNamespace, LinuxResources, Mount,
    PosixRlimit,
};

/// How a container that is being created shall differ from what was asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAdjustment {
    /// Annotations to set; a name that begins with `-` removes.
    #[prost(btree_map = "string, string", tag = "2")]
    pub annotations: BTreeMap<String, String>,
    /// Mounts to add; a destination that begins with `-` removes.
    #[prost(message, repeated, tag = "3")]
    pub mounts: Vec<Mount>,
    /// Environment variables to set; a name that begins with `-` removes.
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<KeyValue>,
    /// OCI hooks to add.
    #[prost(message, optional, tag = "5")]
    pub hooks: Option<Hooks>,
    /// What only Linux has.
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxContainerAdjustment>,
    /// POSIX resource limits to set.
    #[prost(message, repeated, tag = "7")]
    pub rlimits: Vec<PosixRlimit>,
    /// Devices of the Container Device Interface to add.
    #[prost(message, repeated, tag = "8")]
    pub cdi_devices: Vec<CdiDevice>,
    /// A new command line.
    #[prost(string, repeated, tag = "9")]
    pub args: Vec<String>,
}

impl ContainerAdjustment {
    /// An adjustment of nothing but the cgroup: a path, or `slice:prefix:name` with systemd.
    pub fn cgroups_path(path: impl Into<String>) -> Self {
        let linux = LinuxContainerAdjustment { cgroups_path: path.into(), ..Default::default() };
        Self { linux: Some(linux), ..Default::default() }
    }
}

/// How a container shall differ on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainerAdjustment {
    /// Devices to add; a path that begins with `-` removes.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<LinuxDevice>,
    /// Resources to set.
    #[prost(message, optional, tag = "2")]
    pub resources: Option<LinuxResources>,
    /// The cgroup that the container shall be in; empty to leave it.
    #[prost(string, tag = "3")]
    pub cgroups_path: String,
    /// Adjustment of the out-of-memory killer's choice.
    #[prost(message, optional, tag = "4")]
    pub oom_score_adj: Option<i64>,
    /// Priority of I/O.
    #[prost(message, optional, tag = "5")]
    pub io_priority: Option<LinuxIoPriority>,
    /// Namespaces to set.
    #[prost(message, repeated, tag = "7")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Kernel parameters to set.
    #[prost(btree_map = "string, string", tag = "8")]
    pub sysctl: BTreeMap<String, String>,
}

/// A name and a value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A change of a container that exists.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerUpdate {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// What only Linux has.
    #[prost(message, optional, tag = "2")]
    pub linux: Option<LinuxContainerUpdate>,
    /// Whether a failure is none.
    #[prost(bool, tag = "3")]
    pub ignore_failure: bool,
}

/// A change of a container on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainerUpdate {
    /// Resources to set.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<LinuxResources>,
}

/// A wish that a container be stopped.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerEviction {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub reason: String,
}
