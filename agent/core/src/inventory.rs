//! The pods of this node, in Kubernetes: what the runtime shows of them, and whose they are.
//!
//! A pod stays in the cgroup that the kubelet made for it. What decides whose it is: its
//! namespace and labels, by the bindings that operators wrote; nothing that its owner can write
//! brings it anywhere else, and what its own cgroup is, the kernel is asked each time.

mod named;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::binding::{Labels, Unknown};
use crate::facts::Snapshot;
use crate::name::VirtualClusterName;

pub use named::NamedPod;
pub use path::{PodPath, PodPathError, QosClass, children_to_list, expand_slice, pod_directory};

/// The namespace of the cluster's own pods.
pub const SYSTEM_NAMESPACE: &str = "kube-system";

/// The UID of a pod, with '-' also where systemd's names have '_'. A static pod's is a hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodUid(String);

/// Why a text is no UID of a pod.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no pod's UID: it is 1 to 63 characters of a-z, A-Z, 0-9 and '-'; is the pod made by \
     a kubelet?"
)]
pub struct PodUidError(String);

impl PodUid {
    const MOST_CHARACTERS: usize = 63;

    /// As the API has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PodUid {
    type Err = PodUidError;

    fn from_str(text: &str) -> Result<Self, PodUidError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > Self::MOST_CHARACTERS || !text.chars().all(plain) {
            return Err(PodUidError(text.chars().take(Self::MOST_CHARACTERS).collect()));
        }
        Ok(Self(text.replace('_', "-")))
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a pod is to the node, besides its owner's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Rank {
    /// One like others.
    #[default]
    Ordinary,
    /// The kubelet has it from a file or a URL of the node's, as the kubelet itself says.
    Static,
    /// The same, as its mirror at the API server says, which others can make too: so it is
    /// nobody's whatever namespace that has.
    Mirrored,
    /// Its priority is `system-node-critical` or `system-cluster-critical`.
    Critical,
}

/// A pod of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Which.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, which its owner may have written.
    pub labels: Labels,
    /// Its own addresses; none where it has the host's.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it has the host's network.
    pub host_network: bool,
    /// Its cgroup below the kubelet's root, where the runtime tells; else it is known by its name,
    /// which holds the UID.
    pub cgroup: Option<PodPath>,
    /// What it is to the node.
    pub rank: Rank,
}

/// Whose a pod is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim<'a> {
    /// A virtual cluster's.
    Member(&'a VirtualClusterName),
    /// Nobody's, and never cut off.
    Exempt,
    /// Nobody's, and left alone.
    LeftAlone,
    /// Nobody's, and cut off.
    CutOff,
}

impl Pod {
    /// Whose it is, by what the controller said: of this pod, as the API server has it now, or, of
    /// one that it has not named yet, by the labels with which it began.
    pub fn claim<'a>(&'a self, snapshot: &'a Snapshot) -> Claim<'a> {
        let named = snapshot.pods.get(&self.uid);
        let owner = match named {
            _ if self.rank == Rank::Mirrored => None,
            Some(named) => named.owner.as_ref(),
            None => snapshot.bindings.owner(&self.namespace, &self.labels),
        };
        // A binding of a virtual cluster that is gone binds nobody.
        match owner.filter(|name| snapshot.virtual_clusters.contains_key(*name)) {
            Some(owner) => Claim::Member(owner),
            None if self.is_exempt() || named.is_some_and(|it| it.is_critical) => Claim::Exempt,
            None => match snapshot.policy.unknown {
                Unknown::Allow => Claim::LeftAlone,
                Unknown::Deny => Claim::CutOff,
            },
        }
    }

    /// Whether it is never cut off for being nobody's.
    fn is_exempt(&self) -> bool {
        self.rank != Rank::Ordinary || self.namespace == SYSTEM_NAMESPACE
    }
}

/// Something that the node was told of its pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PodFact {
    /// These run, and no others.
    All(Vec<Pod>),
    /// This one runs, as it is now.
    Runs(Pod),
    /// A pod's addresses are these.
    Addresses(PodUid, BTreeSet<IpAddr>),
    /// This one is gone.
    Gone(PodUid),
    /// No runtime tells of pods now: those that begin are known when the controller names them.
    RuntimeAway,
}

/// Whether a runtime tells of pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Runtime {
    /// Nobody has said yet.
    #[default]
    Unheard,
    /// It does.
    Tells,
    /// None does.
    Away,
}

/// The node's pods, as it was told of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// By the runtime.
    shown: BTreeMap<PodUid, Pod>,
    /// By the controller.
    named: BTreeMap<PodUid, Pod>,
    runtime: Runtime,
    shown_all: bool,
    named_all: bool,
}

impl Inventory {
    /// Takes in what was told.
    pub fn apply(&mut self, fact: PodFact) {
        match fact {
            PodFact::All(pods) => {
                let before = std::mem::take(&mut self.shown);
                for pod in pods {
                    let known = before.get(&pod.uid);
                    self.shown.insert(pod.uid.clone(), following(pod, known));
                }
                (self.runtime, self.shown_all) = (Runtime::Tells, true);
            }
            PodFact::Runs(pod) => {
                self.take_away(&pod.addresses);
                self.shown.insert(pod.uid.clone(), pod);
            }
            PodFact::Addresses(uid, addresses) => {
                self.take_away(&addresses);
                if let Some(pod) = self.shown.get_mut(&uid) {
                    pod.addresses = addresses;
                }
            }
            PodFact::Gone(uid) => drop(self.shown.remove(&uid)),
            PodFact::RuntimeAway => self.runtime = Runtime::Away,
        }
    }

    /// Takes in which pods the controller names.
    pub(crate) fn name(&mut self, snapshot: &Snapshot) {
        let pods = snapshot.pods.iter().map(|(uid, pod)| pod.running(uid));
        let named = pods.map(|pod| (pod.uid.clone(), pod)).collect();
        let before = std::mem::replace(&mut self.named, named);
        self.named_all |= snapshot.names_pods;
        // Nobody else tells that they are gone, and that their addresses are others'.
        if self.runtime == Runtime::Away {
            self.shown.retain(|uid, _| !before.contains_key(uid) || self.named.contains_key(uid));
        }
    }

    /// Addresses are given to one pod at a time: whoever had them before is as good as gone.
    fn take_away(&mut self, addresses: &BTreeSet<IpAddr>) {
        if !addresses.is_empty() {
            for pod in self.shown.values_mut() {
                pod.addresses.retain(|address| !addresses.contains(address));
            }
        }
    }

    /// A pod; what the runtime shows counts before what the controller knows.
    pub fn get(&self, uid: &PodUid) -> Option<&Pod> {
        self.shown.get(uid).or_else(|| self.named.get(uid))
    }

    /// Every pod that the runtime shows, by UID.
    pub fn shown(&self) -> impl Iterator<Item = &Pod> {
        self.shown.values()
    }

    /// Every pod that is known, by UID.
    pub fn iter(&self) -> impl Iterator<Item = &Pod> {
        let others = self.named.values().filter(|pod| !self.shown.contains_key(&pod.uid));
        self.shown.values().chain(others)
    }

    /// Whether it was told of all pods at least once. Before, that one is not known says nothing.
    /// The controller's word is not waited for where a runtime may tell more.
    pub fn is_complete(&self) -> bool {
        self.shown_all || (self.runtime == Runtime::Away && self.named_all)
    }

    /// Whether no runtime tells of pods: each is known when the controller names it, and of one
    /// that goes nobody tells but its cgroup.
    pub fn is_runtime_away(&self) -> bool {
        self.runtime == Runtime::Away
    }
}

/// A pod that was known before, shown again: addresses that are not shown this time stay.
fn following(pod: Pod, known: Option<&Pod>) -> Pod {
    match known {
        Some(known) if pod.addresses.is_empty() && !pod.host_network => {
            Pod { addresses: known.addresses.clone(), ..pod }
        }
        _ => pod,
    }
}

#[cfg(test)]
pub(crate) mod tests;
