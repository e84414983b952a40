//! The markers of other projects, and who can write each.
//!
//! | Project | Marker | Who writes it |
//! |---|---|---|
//! | vCluster | pod label `vcluster.loft.sh/managed-by` = name | the syncer, over what the tenant wrote; unique only within a host namespace, so believed only in the one that the operator named |
//! | vCluster | pod labels `app`, `release` of the control plane | the chart; a synced pod can carry the same, so only without `managed-by` |
//! | vCluster | namespace label `vcluster.loft.sh/managed-by` = `<host namespace>-x-<name>`, and `vcluster-name`, `vcluster-namespace` | the syncer, over what the tenant wrote; every other label of such a namespace is the tenant's |
//! | k3k | pod label `k3k.io/clusterName` | k3k's kubelet, over what the tenant wrote; believed only in the named namespace |
//! | k3k | pod labels `cluster`, `role`, `type` of servers and agents | the k3k controller; a synced pod can carry the same, so only without `k3k.io/clusterName` |
//! | Cluster API Nested | namespace annotations `tenancy.x-k8s.io/*` | the manager and the syncer, over what the tenant wrote |
//! | Capsule | namespace label `capsule.clastix.io/tenant` and the owner reference to the Tenant | Capsule's webhook; the label alone could come from elsewhere, so both are asked for |
//! | HNC | namespace label `<root>.tree.hnc.x-k8s.io/depth` | HNC only: its webhook refuses everybody else |
//!
//! Pod labels of a preset are believed in the one host namespace that the operator named, and
//! nowhere else.

use bulkhead_core::{Requirement, Selector};

use super::Namespace;

/// On synced pods: the virtual cluster's name; on mapped namespaces: also the host namespace.
pub(crate) const VCLUSTER_MANAGED_BY: &str = "vcluster.loft.sh/managed-by";
/// On mapped namespaces, from vCluster 0.20 on.
pub(crate) const VCLUSTER_NAME: &str = "vcluster.loft.sh/vcluster-name";
/// On mapped namespaces, from vCluster 0.20 on.
pub(crate) const VCLUSTER_NAMESPACE: &str = "vcluster.loft.sh/vcluster-namespace";
/// Values of the label `app` of a vCluster's control plane.
pub(crate) const VCLUSTER_APPS: [&str; 3] = ["vcluster", "vcluster-etcd", "vcluster-snapshot"];
/// On synced pods: the Cluster's name.
pub(crate) const K3K_CLUSTER: &str = "k3k.io/clusterName";
/// What every mark of Cluster API Nested begins with.
pub(crate) const CAPN_PREFIX: &str = "tenancy.x-k8s.io/";
/// On synced namespaces: the root namespace.
pub(crate) const CAPN_CLUSTER: &str = "tenancy.x-k8s.io/cluster";
/// On root and synced namespaces: the VirtualCluster's name.
pub(crate) const CAPN_NAME: &str = "tenancy.x-k8s.io/vcname";
/// On root and synced namespaces: the VirtualCluster's namespace.
pub(crate) const CAPN_NAMESPACE: &str = "tenancy.x-k8s.io/vcnamespace";
/// On the root namespace.
pub(crate) const CAPN_ROOT: &str = "tenancy.x-k8s.io/vcrootns";
/// On a tenant's namespaces: the Tenant's name.
pub(crate) const CAPSULE: &str = "capsule.clastix.io/tenant";
/// What the API version of a Tenant begins with.
pub(crate) const CAPSULE_GROUP: &str = "capsule.clastix.io/";
/// What the label of a tree ends with; before it stands the name of an ancestor.
pub(crate) const HNC_SUFFIX: &str = ".tree.hnc.x-k8s.io/depth";

/// Longest marker that vCluster writes out; a longer one is cut and hashed.
const VCLUSTER_MARKER: usize = 63;
/// How much of a cut marker is as it was.
const VCLUSTER_CUT: usize = 52;
/// As [`VCLUSTER_CUT`], of a namespace's name of Cluster API Nested.
const CAPN_CUT: usize = 57;

/// A virtual cluster of another project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Preset {
    /// vCluster.
    VCluster {
        /// Where it was installed.
        namespace: String,
        /// Of the release.
        name: String,
    },
    /// k3k.
    K3k {
        /// Of the Cluster.
        namespace: String,
        /// Of the Cluster.
        name: String,
    },
    /// Cluster API Provider Nested.
    ClusterApiNested {
        /// Of the VirtualCluster.
        namespace: String,
        /// Of the VirtualCluster.
        name: String,
    },
    /// Capsule.
    Capsule {
        /// The Tenant.
        tenant: String,
    },
    /// Hierarchical Namespaces.
    Hnc {
        /// The namespace on top.
        root: String,
    },
}

impl Preset {
    /// The host namespace in which some pods are its own.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::VCluster { namespace, .. } | Self::K3k { namespace, .. } => Some(namespace),
            Self::ClusterApiNested { .. } | Self::Capsule { .. } | Self::Hnc { .. } => None,
        }
    }

    /// Which pods of a namespace it claims.
    pub(super) fn claims(&self, within: &Namespace) -> Vec<Selector> {
        let is_whole = match self {
            Self::VCluster { namespace, name } if *namespace == within.name => {
                return vcluster_pods(name);
            }
            Self::K3k { namespace, name } if *namespace == within.name => return k3k_pods(name),
            Self::K3k { .. } => false,
            Self::VCluster { namespace, name } => is_mapped(within, namespace, name),
            Self::ClusterApiNested { namespace, name } => is_nested(within, namespace, name),
            Self::Capsule { tenant } => {
                within.labels.get(CAPSULE) == Some(tenant)
                    && within.capsule_tenant.as_ref() == Some(tenant)
                    && within.labels_of_a_virtual_cluster().is_none()
            }
            Self::Hnc { root } => {
                depth(within, root).is_some() && within.labels_of_a_virtual_cluster().is_none()
            }
        };
        // The cluster's own namespaces are nobody's, whatever they are marked with.
        let is_own = super::OWN_NAMESPACES.contains(&within.name.as_str());
        if is_whole && !is_own { vec![Selector::default()] } else { Vec::new() }
    }
}

fn vcluster_pods(name: &str) -> Vec<Selector> {
    vec![
        all([is_in(VCLUSTER_MANAGED_BY, &[name])]),
        all([is_in("app", &VCLUSTER_APPS), is_in("release", &[name]), no(VCLUSTER_MANAGED_BY)]),
    ]
}

fn k3k_pods(name: &str) -> Vec<Selector> {
    let part =
        |label, value| all([is_in("cluster", &[name]), is_in(label, &[value]), no(K3K_CLUSTER)]);
    vec![all([is_in(K3K_CLUSTER, &[name])]), part("role", "server"), part("type", "agent")]
}

/// Whether a vCluster maps a namespace of its own to this one.
fn is_mapped(within: &Namespace, namespace: &str, name: &str) -> bool {
    let label = |key| within.labels.get(key).map(String::as_str);
    let Some(marker) = label(VCLUSTER_MANAGED_BY) else {
        return false;
    };
    let whole = format!("{namespace}-x-{name}");
    let (named, placed) = (label(VCLUSTER_NAME), label(VCLUSTER_NAMESPACE));
    if (named, placed) == (None, None) {
        // Older versions leave only the marker, which two can share where a name holds "-x-".
        let is_plain = !namespace.contains("-x-") && !name.contains("-x-");
        return is_plain && marker == whole;
    }
    let is_its_marker = if whole.len() <= VCLUSTER_MARKER {
        marker == whole
    } else {
        whole.get(..VCLUSTER_CUT).is_some_and(|begin| marker.starts_with(begin))
    };
    is_its_marker && named == Some(name) && placed == Some(namespace)
}

/// Whether a namespace is the root of a VirtualCluster, or one that is synced from it.
fn is_nested(within: &Namespace, namespace: &str, name: &str) -> bool {
    let mark = |key| within.annotations.get(key).map(String::as_str);
    if mark(CAPN_NAME) != Some(name) || mark(CAPN_NAMESPACE) != Some(namespace) {
        return false;
    }
    match mark(CAPN_CLUSTER) {
        None => mark(CAPN_ROOT) == Some("true"),
        Some(root) => {
            let begin = format!("{root}-");
            within.name.starts_with(begin.get(..CAPN_CUT).unwrap_or(&begin))
        }
    }
}

/// How far below a root a namespace is; 0: it is the root.
pub(crate) fn depth(within: &Namespace, root: &str) -> Option<u32> {
    within.labels.get(&format!("{root}{HNC_SUFFIX}"))?.parse().ok()
}

fn all<const N: usize>(requirements: [Requirement; N]) -> Selector {
    Selector(requirements.into())
}

fn is_in(key: &str, values: &[&str]) -> Requirement {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Requirement::In { key: key.to_owned(), values }
}

fn no(key: &str) -> Requirement {
    Requirement::DoesNotExist { key: key.to_owned() }
}
