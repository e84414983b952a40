//! Sandboxes as the runtime tells of them, as pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_core::inventory::PodUidError;
use bulkhead_core::{Pod, PodPath, PodUid, Rank};
use bulkhead_nri::messages::PodSandbox;

/// Where a pod comes from. The kubelet writes it over whatever a pod's owner wrote there
/// (`pkg/kubelet/config`), so that it can be believed.
const SOURCE: &str = "kubernetes.io/config.source";
const FROM_API: &str = "api";

/// A sandbox as a pod; `root` is the kubelet's root below the mount of cgroup v2. Addresses are
/// those that the runtime tells itself, and no others.
pub fn pod_of(sandbox: &PodSandbox, root: &str) -> Result<Pod, PodUidError> {
    let uid: PodUid = sandbox.uid.parse()?;
    let host_network = sandbox.linux.is_some() && sandbox.network_namespace().is_none();
    let addresses = sandbox.ips.iter().filter_map(|address| address.parse().ok());
    let cgroup = sandbox.cgroup_parent().and_then(|parent| {
        let path = PodPath::from_cgroup_parent(parent, root);
        path.inspect_err(|error| tracing::warn!(pod = %uid, %error, "a cgroup elsewhere")).ok()
    });
    let rank = match sandbox.annotations.get(SOURCE) {
        Some(source) if source != FROM_API => Rank::Static,
        _ => Rank::Ordinary,
    };
    Ok(Pod {
        namespace: sandbox.namespace.clone(),
        name: sandbox.name.clone(),
        labels: sandbox.labels.clone(),
        addresses: if host_network { BTreeSet::new() } else { addresses.collect() },
        host_network,
        cgroup,
        rank,
        uid,
    })
}

/// Whether an address is a pod's own, as others know it.
pub(super) fn is_of_the_cluster(address: &IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Which sandboxes each pod has: a kubelet may make another one for a pod whose first has died, and
/// removes the first later.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sandboxes {
    /// By pod: each sandbox, and whether it was stopped.
    by_pod: BTreeMap<PodUid, BTreeMap<String, bool>>,
}

impl Sandboxes {
    /// These are there, and no others.
    pub fn all<'a>(&mut self, sandboxes: impl Iterator<Item = (&'a PodUid, &'a str)>) {
        self.by_pod.clear();
        for (uid, id) in sandboxes {
            self.begins(uid, id);
        }
    }

    /// One begins.
    pub fn begins(&mut self, uid: &PodUid, id: &str) {
        self.by_pod.entry(uid.clone()).or_default().insert(id.to_owned(), false);
    }

    /// One was stopped. Says whether nothing of its pod runs any more.
    pub fn stopped(&mut self, uid: &PodUid, id: &str) -> bool {
        let Some(sandboxes) = self.by_pod.get_mut(uid) else { return true };
        if let Some(is_stopped) = sandboxes.get_mut(id) {
            *is_stopped = true;
        }
        sandboxes.values().all(|is_stopped| *is_stopped)
    }

    /// One was removed. Says whether it was its pod's last.
    pub fn removed(&mut self, uid: &PodUid, id: &str) -> bool {
        if let Some(sandboxes) = self.by_pod.get_mut(uid) {
            sandboxes.remove(id);
            if !sandboxes.is_empty() {
                return false;
            }
        }
        self.by_pod.remove(uid);
        true
    }
}
