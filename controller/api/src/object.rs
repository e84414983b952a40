//! The kinds, as users write them. Nothing here is validated beyond its shape: an object that
//! is wrong can still be read, named and reported.

use std::borrow::Cow;
use std::fmt;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A virtual cluster: who belongs to it, what it gets of every node, and whom it may talk with.
/// One that only names members denies nothing and limits nothing: it measures.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "VirtualCluster",
    shortname = "bvc",
    derive = "PartialEq",
    doc = "Who belongs together, what they get of every node, and whom they may talk with.",
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class"}"#,
    printcolumn = r#"{"name":"Network","type":"string","jsonPath":".spec.network.mode"}"#
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
    pub network: Option<Network>,
    /// Name of a `VirtualClusterClass`: its values stand where this object has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    derive = "PartialEq",
    doc = "Defaults for the virtual clusters that name this class."
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

/// What holds for the whole installation. There can be one.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "BulkheadConfig",
    plural = "bulkheadconfigs",
    derive = "PartialEq",
    doc = "What holds for the whole installation; there can be one."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkheadConfigSpec {
    /// CIDRs of the cluster's pods, services and nodes. What is inside and not known is dropped
    /// for virtual clusters in mode Enforce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_ranges: Vec<String>,
    /// Addresses and CIDRs that every virtual cluster may talk with: DNS, proxies, registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_services: Vec<String>,
    /// Mode of virtual clusters for which neither they nor their class set one; Observe where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<Mode>,
}

/// Who belongs to a virtual cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Members {
    /// IPv4 and IPv6 addresses and CIDRs, for members that no Kubernetes tells us of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What a virtual cluster gets of each node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PerNode {
    /// What the node keeps for it while others want it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// What it can have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What a node keeps for a virtual cluster while others want it too.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guarantee {
    /// Cores ("500m", "2") or percent of the node's ("25%").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes ("1Gi", "100M") or percent of the node's ("25%").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Share of the block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoGuarantee>,
}

/// Share of the block devices under contention.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IoGuarantee {
    /// io.weight, 1 to 10,000; the kernel's default is 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: Option<u32>,
}

/// What a virtual cluster can have of each node at most.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Cores ("500m", "2") or percent of the node's ("50%").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes ("1Gi", "100M") or percent of the node's ("50%").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Tasks: processes and threads ("1k", 512) or percent of the node's ("10%").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Quantity>,
    /// One for each block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Vec<IoLimit>>,
}

/// What a virtual cluster can have of one block device at most.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IoLimit {
    /// Path of the block device on the node ("/dev/vda").
    pub device: String,
    /// Bytes read in a second ("100M").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<Quantity>,
    /// Bytes written in a second ("100M").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_second: Option<Quantity>,
    /// Reads in a second ("1k").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_operations_per_second: Option<Quantity>,
    /// Writes in a second ("1k").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_operations_per_second: Option<Quantity>,
}

/// Whom a virtual cluster may talk with.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// What happens to traffic with other virtual clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Virtual clusters that it may talk with all the same, in both directions. One side's word
    /// is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Allow>>,
}

/// Another virtual cluster that a virtual cluster may talk with.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allow {
    /// Its name.
    pub virtual_cluster: String,
}

/// What happens to traffic with other virtual clusters. For kubectl write "Off" in quotes: it
/// reads YAML 1.1, where the bare word is false.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It is denied and counted.
    Enforce,
    /// It passes; what Enforce would deny is counted.
    Observe,
    /// It passes, and nothing is judged.
    Off,
}

/// A quantity as it was written: a whole number, or text ("500m", "1Gi", "12.5%").
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity: a whole number, or text in quotes (\"500m\", \"12.5%\")")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity::Integer(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(i64::try_from(number)
                    .map_or_else(|_| Quantity::Text(number.to_string()), Quantity::Integer))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity::Text(text.to_owned()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// A field that is kept free for later: whatever it holds is refused when it is validated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reserved(pub serde_json::Value);

impl JsonSchema for Reserved {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reserved".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}
