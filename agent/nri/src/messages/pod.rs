use std::collections::BTreeMap;

use super::LinuxResources;

/// A pod sandbox, as the runtime tells it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// The runtime's identifier of the sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The pod's name in Kubernetes.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The pod's UID in Kubernetes.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// The pod's namespace in Kubernetes.
    #[prost(string, tag = "4")]
    pub namespace: String,
    /// Labels that the kubelet gave; the pod's owner can write them.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the kubelet gave; the pod's owner can write them.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler of the pod's runtime class; empty for the default.
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    /// What only Linux has.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
    /// The process that holds the sandbox open (pause), in the runtime's PID namespace; 0 where
    /// the runtime does not tell.
    #[prost(uint32, tag = "9")]
    pub pid: u32,
    /// The pod's addresses; only newer runtimes tell them.
    #[prost(string, repeated, tag = "10")]
    pub ips: Vec<String>,
}

impl PodSandbox {
    /// The path of the pod's network namespace; `None` for a pod in the host's.
    pub fn network_namespace(&self) -> Option<&str> {
        let namespaces = &self.linux.as_ref()?.namespaces;
        let network = namespaces.iter().find(|namespace| namespace.kind == "network")?;
        (!network.path.is_empty()).then_some(&*network.path)
    }

    /// The cgroup that the kubelet made for the pod, in the form of the kubelet's cgroup driver:
    /// `/kubepods/burstable/pod<uid>`, or with systemd `/kubepods.slice/…/kubepods-….slice`.
    pub fn cgroup_parent(&self) -> Option<&str> {
        let parent = &self.linux.as_ref()?.cgroup_parent;
        (!parent.is_empty()).then_some(&**parent)
    }
}

/// A pod sandbox on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandbox {
    /// What the pod takes beside its containers.
    #[prost(message, optional, tag = "1")]
    pub pod_overhead: Option<LinuxResources>,
    /// The sum of the containers' resources.
    #[prost(message, optional, tag = "2")]
    pub pod_resources: Option<LinuxResources>,
    /// The pod's cgroup, made by the kubelet.
    #[prost(string, tag = "3")]
    pub cgroup_parent: String,
    /// The cgroup of the sandbox itself, in the runtime's form.
    #[prost(string, tag = "4")]
    pub cgroups_path: String,
    /// Namespaces of the sandbox.
    #[prost(message, repeated, tag = "5")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Resources of the sandbox itself.
    #[prost(message, optional, tag = "6")]
    pub resources: Option<LinuxResources>,
}

/// A kernel namespace.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxNamespace {
    /// `network`, `pid`, `ipc`, `uts`, `mount`, `user` or `cgroup`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// A file that names the namespace; empty for one that the runtime makes.
    #[prost(string, tag = "2")]
    pub path: String,
}
