//! What a node should look like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_abi::{Address, AllowKey, FarEnd, Member, Prefix};

use crate::address::to_abi;
use crate::binding::Unknown;
use crate::control::{Control, ControlValue, Controller};
use crate::inventory::{PodPath, PodUid};
use crate::name::VirtualClusterName;

/// What this node should look like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// The generation of the snapshot that it was made of.
    pub generation: u64,
    /// One cgroup for each virtual cluster; none in overlay.
    pub cgroups: BTreeMap<VirtualClusterName, DesiredCgroup>,
    /// Whose the kubelet's cgroups are; `None` where virtual clusters have their own.
    pub overlay: Option<Overlay>,
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

/// Whose the kubelet's cgroups of pods are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overlay {
    /// Pods that are in MEMBERS.
    pub pods: BTreeMap<PodUid, DesiredPod>,
    /// Pods that are known and not in MEMBERS.
    pub others: BTreeSet<PodUid>,
    /// Whether all pods were told of. Else addresses that are registered stay so.
    pub is_complete: bool,
    /// Whether a pod that is registered and of which nobody tells stays so: not all were told of
    /// yet, or no runtime tells that one has ended.
    pub unnamed_stay: bool,
    /// What becomes of pods that are nobody's.
    pub unknown: Unknown,
}

/// A pod that is registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredPod {
    /// Whose it is; `None`: nobody's, and never cut off.
    pub owner: Option<VirtualClusterName>,
    /// Its cgroup, where the runtime tells.
    pub path: Option<PodPath>,
    /// As MEMBERS has it.
    pub member: Member,
}

/// What MEMBERS says of a pod that is nobody's and never cut off.
pub const EXEMPT: Member = Member { virtual_cluster: 0, mode: bulkhead_abi::MODE_OFF };

impl Overlay {
    /// Whether anybody told of it.
    pub fn is_known(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid) || self.others.contains(uid)
    }

    /// What is registered for the pod that has this cgroup.
    pub fn pod(&self, path: &PodPath) -> Option<&DesiredPod> {
        let pod = self.pods.get(path.uid())?;
        pod.path.as_ref().is_none_or(|told| told == path).then_some(pod)
    }
}

/// The kernel tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DesiredNetwork {
    /// What MEMBERS says of each virtual cluster, by name: the cgroup's id is known only when it
    /// is there.
    pub members: BTreeMap<VirtualClusterName, Member>,
    /// ADDRESSES, with node ports under addresses of their own.
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

/// What the tables say of an address, looked up as the kernel programs do: exact first, then the
/// longest prefix.
pub fn look_up(
    addresses: &BTreeMap<Address, FarEnd>,
    prefixes: &BTreeMap<Prefix, FarEnd>,
    address: IpAddr,
) -> Option<FarEnd> {
    let address = to_abi(address);
    let covers = |prefix: &Prefix| {
        let differing = u128::from_be_bytes(prefix.address.0) ^ u128::from_be_bytes(address.0);
        differing.leading_zeros() >= prefix.prefix_len
    };
    // Where the table has node ports, no address is looked up.
    let exact = addresses.get(&address).filter(|_| !address.is_of_node_port());
    exact.copied().or_else(|| {
        let covering = prefixes.iter().filter(|(prefix, _)| covers(prefix));
        let longest = covering.max_by_key(|(prefix, _)| prefix.prefix_len);
        longest.map(|(_, far)| *far)
    })
}
