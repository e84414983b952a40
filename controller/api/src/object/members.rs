//! Who belongs to a virtual cluster, as users write it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::object::{ADDRESS, LABEL_KEY, LABEL_VALUE, NAME};
use crate::rules;

/// Who belongs to a virtual cluster: what the fields select, together. A pod of two virtual
/// clusters belongs to the older object.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" =
    rules::cel(&[rules::POD_SELECTOR_NARROWS, rules::NAMESPACE_SELECTOR_SELECTS])))]
pub struct Members {
    /// Namespaces of the host cluster, by name: their pods and Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = convert::MAX_NAMESPACES),
        inner(length(min = 1, max = 63), regex(pattern = NAME)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub namespaces: Vec<String>,
    /// Namespaces of the host cluster, by their labels; never those of the cluster itself
    /// (kube-system, kube-public, kube-node-lease), which only namespaces can name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which pods of namespaces and of what namespaceSelector selects; all where absent. It
    /// reaches into no other namespace, and a preset is not narrowed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub pod_selector: Option<LabelSelector>,
    /// A virtual cluster of another project, whose markers are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Preset")]
    pub preset: Option<Preset>,
    /// IPv4 and IPv6 addresses and CIDRs, for members that no Kubernetes tells us of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = convert::MAX_ADDRESSES),
        inner(length(min = 2, max = 49), regex(pattern = ADDRESS))
    )]
    pub addresses: Vec<String>,
}

/// A virtual cluster of another project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" =
    rules::cel(&[rules::PRESET_NEEDS_NAMESPACE, rules::PRESET_HAS_NO_NAMESPACE])))]
pub struct Preset {
    /// Which project.
    pub kind: PresetKind,
    /// Namespace of the host cluster in which it was made: for `VCluster` where it was
    /// installed, for `K3k` that of its Cluster, for `ClusterApiNested` that of its
    /// VirtualCluster. `Capsule` and `HNC` have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63), regex(pattern = NAME))]
    pub namespace: Option<String>,
    /// Its name: for `VCluster` that of the release, for `K3k` of the Cluster, for
    /// `ClusterApiNested` of the VirtualCluster, for `Capsule` of the Tenant, for `HNC` of the
    /// root namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    pub name: String,
}

/// The projects whose markers are known.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
pub enum PresetKind {
    /// vCluster (loft-sh/vcluster).
    VCluster,
    /// k3k (rancher/k3k).
    #[serde(rename = "K3k")]
    K3k,
    /// Cluster API Provider Nested.
    ClusterApiNested,
    /// Capsule (projectcapsule/capsule).
    Capsule,
    /// Hierarchical Namespaces (kubernetes-sigs/hierarchical-namespaces).
    #[serde(rename = "HNC")]
    Hnc,
}

impl PresetKind {
    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VCluster => "VCluster",
            Self::K3k => "K3k",
            Self::ClusterApiNested => "ClusterApiNested",
            Self::Capsule => "Capsule",
            Self::Hnc => "HNC",
        }
    }

    /// Whether it is made in a namespace of the host cluster.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::VCluster | Self::K3k | Self::ClusterApiNested)
    }
}

/// A label selector as Kubernetes has it: everything must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels and the value that each must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "match_labels")]
    pub match_labels: BTreeMap<String, String>,
    /// More requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = convert::MAX_REQUIREMENTS))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::OPERATOR_AND_VALUES])))]
pub struct LabelRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317), regex(pattern = LABEL_KEY))]
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// With what: values for `In` and `NotIn`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = convert::MAX_VALUES),
        inner(length(max = 63), regex(pattern = LABEL_VALUE))
    )]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It is there and has one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

fn match_labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": convert::MAX_REQUIREMENTS,
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE },
    })
}
