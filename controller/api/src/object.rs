//! The kinds, as users write them. Nothing here is validated beyond its shape: an object that
//! is wrong can still be read, named and reported.

mod members;
mod network;
mod per_node;
mod status;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{convert, rules};

pub use members::{LabelOperator, LabelRequirement, LabelSelector, Members, Preset, PresetKind};
pub use network::{Allow, Mode, Network, Unknown};
pub use per_node::{Guarantee, IoGuarantee, IoLimit, Limit, PerNode, Quantity};
pub use status::{ObjectStatus, VirtualClusterStatus};

/// A name of ours, and of a namespace: a DNS label (RFC 1123).
pub(crate) const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The characters of addresses and CIDRs; what they mean is checked by the controller.
pub(crate) const ADDRESS: &str = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$";
/// An address, a CIDR, or the namespace and name of a Service.
pub(crate) const SERVICE: &str = "^([0-9A-Fa-f:.]+(/[0-9]{1,3})?|\
    [a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z]([-a-z0-9]*[a-z0-9])?)$";
/// The name of an object whose name is a DNS subdomain.
pub(crate) const SUBDOMAIN: &str = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// A label's key: with or without the domain that it belongs to.
pub(crate) const LABEL_KEY: &str =
    "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$";
/// A label's value.
pub(crate) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$";

/// A virtual cluster: who belongs to it, what it gets of every node, and whom it may talk with.
/// One that only names members denies nothing and limits nothing: it measures.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "VirtualCluster",
    shortname = "bvc",
    category = "bulkhead",
    status = "VirtualClusterStatus",
    derive = "PartialEq",
    doc = "Who belongs together, what they get of every node, and whom they may talk with.",
    validation = kube::core::Rule::new(rules::NAME_OF_VIRTUAL_CLUSTER.cel)
        .message(rules::NAME_OF_VIRTUAL_CLUSTER.message),
    validation = kube::core::Rule::new(rules::ALLOWS_ANOTHER.cel)
        .message(rules::ALLOWS_ANOTHER.message),
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".status.mode"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Enforced","type":"string","jsonPath":".status.conditions[?(@.type==\"Enforced\")].status"}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualClusterSpec {
    /// Who belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// What it gets of each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<PerNode>,
    /// Whom it may talk with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Network")]
    pub network: Option<Network>,
    /// Name of a `VirtualClusterClass`: its values stand where this object has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub class: Option<String>,
    /// Reserved for the sum over all nodes; setting it is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Reserved>,
}

/// Defaults for virtual clusters that name this class.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "VirtualClusterClass",
    plural = "virtualclusterclasses",
    shortname = "bvcc",
    category = "bulkhead",
    status = "ObjectStatus",
    derive = "PartialEq",
    doc = "Defaults for the virtual clusters that name this class.",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.network.mode"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualClusterClassSpec {
    /// Field by field, where the virtual cluster sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<PerNode>,
    /// Field by field, where the virtual cluster sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// What holds for the whole installation. There is one, and its name is "default".
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "BulkheadConfig",
    plural = "bulkheadconfigs",
    category = "bulkhead",
    status = "ObjectStatus",
    derive = "PartialEq",
    doc = "What holds for the whole installation; there is one, and its name is \"default\".",
    validation = kube::core::Rule::new(rules::ONE_CONFIG.cel).message(rules::ONE_CONFIG.message),
    printcolumn = r#"{"name":"Default-Mode","type":"string","jsonPath":".spec.defaultMode"}"#,
    printcolumn = r#"{"name":"Unknown","type":"string","jsonPath":".spec.unknown"}"#,
    printcolumn = r#"{"name":"On-Stale","type":"string","jsonPath":".spec.onStale"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkheadConfigSpec {
    /// CIDRs of the cluster's pods, services and nodes, where they cannot be found. What is
    /// inside and not known is dropped for virtual clusters in mode Enforce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = convert::MAX_CLUSTER_RANGES),
        inner(length(min = 2, max = 49), regex(pattern = ADDRESS))
    )]
    pub cluster_ranges: Vec<String>,
    /// What every virtual cluster may talk with (DNS, ingress, monitoring, proxies, registries):
    /// addresses and CIDRs, and Services of the host cluster as namespace/name
    /// ("kube-system/kube-dns").
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = convert::MAX_SHARED_SERVICES),
        inner(length(min = 2, max = 127), regex(pattern = SERVICE))
    )]
    pub shared_services: Vec<String>,
    /// Mode of virtual clusters for which neither they nor their class set one; Observe where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<Mode>,
    /// What happens, while the controller is away, with addresses that it never told of, in mode
    /// Enforce.
    #[serde(default)]
    pub on_stale: OnStale,
    /// What happens to pods of no virtual cluster. Static pods, those of kube-system and those of
    /// the priority classes system-cluster-critical and system-node-critical are left alone
    /// always.
    #[serde(default)]
    pub unknown: Unknown,
}

/// What happens with addresses that the controller never told of, while it is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnStale {
    /// They pass, and are counted.
    #[default]
    AllowCounted,
    /// They are refused.
    Deny,
}

/// A field that is kept free for later: whatever it holds is refused when it is validated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reserved(pub serde_json::Value);

impl JsonSchema for Reserved {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reserved".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}
