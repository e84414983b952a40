//! What each project leaves in a cluster. A name that could not be written into an object is
//! passed over.

use std::collections::BTreeMap;

use super::{Key, Seen, Workload};
use crate::membership::Namespace;
use crate::membership::presets::{
    CAPN_CLUSTER, CAPN_NAME, CAPN_NAMESPACE, CAPN_ROOT, CAPSULE, HNC_SUFFIX, K3K_CLUSTER,
    VCLUSTER_MANAGED_BY, depth,
};
use crate::object::PresetKind;
use crate::validate::is_dns_label;

/// Every virtual cluster and how it was found.
pub(super) fn all(seen: &Seen<'_>) -> BTreeMap<Key, String> {
    let mut found = Found::default();
    for workload in seen.workloads {
        found.vcluster(workload);
        found.k3k(workload);
    }
    for namespace in seen.namespaces {
        found.nested(namespace);
        found.capsule(namespace);
    }
    found.trees(seen.namespaces);
    found.0
}

#[derive(Default)]
struct Found(BTreeMap<Key, String>);

impl Found {
    fn take(&mut self, kind: PresetKind, namespace: &str, name: &str, how: &str) {
        let has_place = kind.is_namespaced() == is_dns_label(namespace);
        if has_place && is_dns_label(name) {
            let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
            let what = match namespace {
                "" => format!("{} {name}", kind.name()),
                namespace => format!("{} {namespace}/{name}", kind.name()),
            };
            // The least of several, so that their order does not matter.
            let how = format!("{what}, found by {how}");
            let known = self.0.entry(key).or_insert_with(|| how.clone());
            if how < *known {
                *known = how;
            }
        }
    }

    /// By its control plane. Synced pods alone are no sign: anybody can label a pod.
    fn vcluster(&mut self, workload: &Workload) {
        let Workload { kind, namespace, name, labels } = workload;
        let label = |key| labels.get(key).map(String::as_str);
        let is_its_own = label(VCLUSTER_MANAGED_BY).is_none();
        if let (Some("vcluster"), Some(release), true) =
            (label("app"), label("release"), is_its_own)
        {
            let how = format!("{kind} {namespace}/{name} (app=vcluster, release={release})");
            self.take(PresetKind::VCluster, namespace, release, &how);
        }
    }

    /// By its servers.
    fn k3k(&mut self, workload: &Workload) {
        let Workload { kind, namespace, name, labels } = workload;
        let label = |key| labels.get(key).map(String::as_str);
        let (Some(cluster), Some("server"), None) =
            (label("cluster"), label("role"), label(K3K_CLUSTER))
        else {
            return;
        };
        // Others use these labels, too: k3k calls its servers k3k-NAME-server.
        if name.starts_with(&format!("k3k-{cluster}-")) {
            let how = format!("{kind} {namespace}/{name} (cluster={cluster}, role=server)");
            self.take(PresetKind::K3k, namespace, cluster, &how);
        }
    }

    /// By its root namespace.
    fn nested(&mut self, namespace: &Namespace) {
        let mark = |key| namespace.annotations.get(key).map(String::as_str);
        if let (Some("true"), None, Some(name), Some(placed)) =
            (mark(CAPN_ROOT), mark(CAPN_CLUSTER), mark(CAPN_NAME), mark(CAPN_NAMESPACE))
        {
            let how = format!("root namespace {} ({CAPN_ROOT}=true)", namespace.name);
            self.take(PresetKind::ClusterApiNested, placed, name, &how);
        }
    }

    /// By a namespace that the tenant owns.
    fn capsule(&mut self, namespace: &Namespace) {
        if let Some(tenant) = &namespace.capsule_tenant
            && namespace.labels.get(CAPSULE) == Some(tenant)
            && namespace.labels_of_a_virtual_cluster().is_none()
        {
            let how = format!("namespace {} ({CAPSULE}={tenant})", namespace.name);
            self.take(PresetKind::Capsule, "", tenant, &how);
        }
    }

    /// By trees of at least two namespaces; a tree within a tree is part of it.
    fn trees(&mut self, namespaces: &[Namespace]) {
        let guarded = |it: &&Namespace| it.labels_of_a_virtual_cluster().is_none();
        for root in namespaces.iter().filter(guarded) {
            let ancestors = root.labels.keys().filter_map(|key| key.strip_suffix(HNC_SUFFIX));
            if ancestors.collect::<Vec<_>>() != [root.name.as_str()] {
                continue;
            }
            let below = namespaces.iter().filter(guarded);
            let below =
                below.filter(|it| depth(it, &root.name).is_some_and(|depth| depth > 0)).count();
            if below > 0 {
                let how = format!("the tree below namespace {} ({below} more)", root.name);
                self.take(PresetKind::Hnc, "", &root.name, &how);
            }
        }
    }
}
