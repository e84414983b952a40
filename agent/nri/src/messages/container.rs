use std::collections::BTreeMap;

use super::{LinuxNamespace, LinuxResources};

/// A container, as the runtime tells it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// The runtime's identifier of the container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Identifier of the sandbox that it is in.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// The container's name in the pod.
    #[prost(string, tag = "3")]
    pub name: String,
    /// How far it is in its life.
    #[prost(enumeration = "ContainerState", tag = "4")]
    pub state: i32,
    /// Labels that the kubelet gave.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the kubelet gave.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    /// The command line.
    #[prost(string, repeated, tag = "7")]
    pub args: Vec<String>,
    /// Environment variables, `NAME=value`.
    #[prost(string, repeated, tag = "8")]
    pub env: Vec<String>,
    /// Mounts.
    #[prost(message, repeated, tag = "9")]
    pub mounts: Vec<Mount>,
    /// OCI hooks.
    #[prost(message, optional, tag = "10")]
    pub hooks: Option<Hooks>,
    /// What only Linux has.
    #[prost(message, optional, tag = "11")]
    pub linux: Option<LinuxContainer>,
    /// The first process, in the runtime's PID namespace; 0 before it runs.
    #[prost(uint32, tag = "12")]
    pub pid: u32,
    /// POSIX resource limits.
    #[prost(message, repeated, tag = "13")]
    pub rlimits: Vec<PosixRlimit>,
    /// When it was created, in nanoseconds since 1970; 0 where the runtime does not tell.
    #[prost(int64, tag = "14")]
    pub created_at: i64,
    /// When it was started, in nanoseconds since 1970; 0 for never or not told.
    #[prost(int64, tag = "15")]
    pub started_at: i64,
    /// When it ended, in nanoseconds since 1970; 0 for not yet or not told.
    #[prost(int64, tag = "16")]
    pub finished_at: i64,
    /// The exit code.
    #[prost(int32, tag = "17")]
    pub exit_code: i32,
    /// Why it is in this state, in one word.
    #[prost(string, tag = "18")]
    pub status_reason: String,
    /// Why it is in this state.
    #[prost(string, tag = "19")]
    pub status_message: String,
    /// Devices of the Container Device Interface.
    #[prost(message, repeated, tag = "20")]
    pub cdi_devices: Vec<CdiDevice>,
    /// User and groups.
    #[prost(message, optional, tag = "21")]
    pub user: Option<User>,
    /// The image.
    #[prost(message, optional, tag = "22")]
    pub image: Option<Image>,
}

impl Container {
    /// The container's cgroup in the runtime's form: a path, or `slice:prefix:name` with systemd.
    pub fn cgroups_path(&self) -> Option<&str> {
        let path = &self.linux.as_ref()?.cgroups_path;
        (!path.is_empty()).then_some(&**path)
    }
}

/// How far a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Not told, or not known to this crate.
    Unknown = 0,
    /// Made, not started.
    Created = 1,
    /// Frozen.
    Paused = 2,
    /// Running.
    Running = 3,
    /// Ended.
    Stopped = 4,
}

/// A container on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainer {
    /// Namespaces.
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Devices.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<LinuxDevice>,
    /// Resources.
    #[prost(message, optional, tag = "3")]
    pub resources: Option<LinuxResources>,
    /// Adjustment of the out-of-memory killer's choice, -1,000 to 1,000.
    #[prost(message, optional, tag = "4")]
    pub oom_score_adj: Option<i64>,
    /// The cgroup, in the runtime's form.
    #[prost(string, tag = "5")]
    pub cgroups_path: String,
    /// Priority of I/O.
    #[prost(message, optional, tag = "6")]
    pub io_priority: Option<LinuxIoPriority>,
    /// Kernel parameters of the container's namespaces.
    #[prost(btree_map = "string, string", tag = "9")]
    pub sysctl: BTreeMap<String, String>,
}

/// A mount in a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    /// Path in the container.
    #[prost(string, tag = "1")]
    pub destination: String,
    /// Kind of file system.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Path on the host, or a device.
    #[prost(string, tag = "3")]
    pub source: String,
    /// Options.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// OCI hooks of a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hooks {
    /// Before the start (deprecated by OCI).
    #[prost(message, repeated, tag = "1")]
    pub prestart: Vec<Hook>,
    /// While the container is made, in the runtime's namespace.
    #[prost(message, repeated, tag = "2")]
    pub create_runtime: Vec<Hook>,
    /// While the container is made, in the container's namespace.
    #[prost(message, repeated, tag = "3")]
    pub create_container: Vec<Hook>,
    /// Before the container's command begins.
    #[prost(message, repeated, tag = "4")]
    pub start_container: Vec<Hook>,
    /// After the start.
    #[prost(message, repeated, tag = "5")]
    pub poststart: Vec<Hook>,
    /// After the end.
    #[prost(message, repeated, tag = "6")]
    pub poststop: Vec<Hook>,
}

/// One OCI hook.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hook {
    /// The program.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Its command line.
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
    /// Its environment.
    #[prost(string, repeated, tag = "3")]
    pub env: Vec<String>,
    /// Seconds that it may take.
    #[prost(message, optional, tag = "4")]
    pub timeout: Option<i64>,
}

/// A device in a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxDevice {
    /// Path in the container.
    #[prost(string, tag = "1")]
    pub path: String,
    /// `b`, `c`, `u` or `p`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Major number.
    #[prost(int64, tag = "3")]
    pub major: i64,
    /// Minor number.
    #[prost(int64, tag = "4")]
    pub minor: i64,
    /// Permissions.
    #[prost(message, optional, tag = "5")]
    pub file_mode: Option<u32>,
    /// Owner.
    #[prost(message, optional, tag = "6")]
    pub uid: Option<u32>,
    /// Group.
    #[prost(message, optional, tag = "7")]
    pub gid: Option<u32>,
}

/// A POSIX resource limit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PosixRlimit {
    /// Name, such as `RLIMIT_NOFILE`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Hard limit.
    #[prost(uint64, tag = "2")]
    pub hard: u64,
    /// Soft limit.
    #[prost(uint64, tag = "3")]
    pub soft: u64,
}

/// A device of the Container Device Interface.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CdiDevice {
    /// Its full name: `vendor/class=name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// User and groups of a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct User {
    /// User.
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    /// Further groups.
    #[prost(uint32, repeated, tag = "3")]
    pub additional_gids: Vec<u32>,
}

/// The image of a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Image {
    /// Its reference.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Digest of its index or manifest.
    #[prost(string, tag = "2")]
    pub digest: String,
    /// Digest of its configuration.
    #[prost(string, tag = "3")]
    pub config_digest: String,
}

/// Priority of I/O.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxIoPriority {
    /// Class: 0 none, 1 realtime, 2 best effort, 3 idle.
    #[prost(int32, tag = "1")]
    pub class: i32,
    /// Priority within the class, 0 (first) to 7.
    #[prost(int32, tag = "2")]
    pub priority: i32,
}
