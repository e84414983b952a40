//! Pods as the controller names them: from the API server, each for the node that it is on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Pod, PodUid, Rank};
use crate::binding::Labels;
use crate::name::VirtualClusterName;

/// A pod that the API server places on this node. Its addresses are with the virtual cluster that
/// has them, in the same snapshot: said twice they could only differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Whose it is, by its labels as they are now; `None`: of no virtual cluster.
    pub owner: Option<VirtualClusterName>,
    /// Its priority is one that only the system's own classes give.
    pub is_critical: bool,
    /// It is the mirror of a static pod, which the kubelet knows by this UID.
    pub mirror_of: Option<PodUid>,
}

impl NamedPod {
    /// The UID that the kubelet gives to a static pod, as its mirror names it. A pod's owner can
    /// write that too, so it counts only where no pod of the API server's can have it: theirs have
    /// dashes.
    pub fn mirrored(text: &str) -> Option<PodUid> {
        const HASH_CHARACTERS: usize = 32;
        let is_hash = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_static = text.len() == HASH_CHARACTERS && text.chars().all(is_hash);
        is_static.then(|| text.parse().ok()).flatten()
    }

    /// The pod that runs here, where the API server knows it by `uid`.
    pub(super) fn running(&self, uid: &PodUid) -> Pod {
        Pod {
            uid: self.mirror_of.as_ref().unwrap_or(uid).clone(),
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            labels: Labels::new(),
            addresses: BTreeSet::new(),
            host_network: false,
            cgroup: None,
            rank: match (&self.mirror_of, self.is_critical) {
                (Some(_), _) => Rank::Mirrored,
                (None, true) => Rank::Critical,
                (None, false) => Rank::Ordinary,
            },
        }
    }
}
