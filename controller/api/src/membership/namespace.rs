//! A namespace of the host cluster, as far as membership goes.

use std::collections::BTreeMap;

use bulkhead_core::Labels;
use k8s_openapi::api::core::v1 as core;

use super::presets;

/// A namespace of the host cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Those of its annotations that mark virtual clusters.
    pub annotations: BTreeMap<String, String>,
    /// Name of the Capsule Tenant that owns it.
    pub capsule_tenant: Option<String>,
}

impl Namespace {
    /// One of which nothing else is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// As Kubernetes has it.
    pub fn of(namespace: &core::Namespace) -> Self {
        let metadata = namespace.metadata.clone();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key.starts_with(presets::CAPN_PREFIX));
        let owner = metadata.owner_references.unwrap_or_default().into_iter().find(|owner| {
            owner.kind == "Tenant" && owner.api_version.starts_with(presets::CAPSULE_GROUP)
        });
        Self {
            name: metadata.name.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations,
            capsule_tenant: owner.map(|owner| owner.name),
        }
    }

    /// Why its labels may be a tenant's own words; `None`: they are the operator's.
    pub(super) fn labels_of_a_tenant(&self) -> Option<&'static str> {
        let capsule = self.capsule_tenant.is_some() || self.labels.contains_key(presets::CAPSULE);
        self.labels_of_a_virtual_cluster()
            .or(capsule.then_some("a Capsule tenant's owners may have written"))
    }

    /// As [`Self::labels_of_a_tenant`], for labels that Capsule and HNC guard themselves.
    pub(crate) fn labels_of_a_virtual_cluster(&self) -> Option<&'static str> {
        let vcluster = [presets::VCLUSTER_MANAGED_BY, presets::VCLUSTER_NAME];
        if vcluster.iter().any(|marker| self.labels.contains_key(*marker)) {
            return Some("vCluster copies from a tenant's");
        }
        let capn = self.annotations.contains_key(presets::CAPN_CLUSTER);
        capn.then_some("Cluster API Nested copies from a tenant's")
    }
}
