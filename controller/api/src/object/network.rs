//! Whom a virtual cluster may talk with, as users write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::object::NAME;

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
    #[schemars(
        with = "Vec<Allow>",
        length(max = convert::MAX_ALLOWED),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["virtualCluster"])
    )]
    pub allow: Option<Vec<Allow>>,
    /// Traffic with pods and Services that belong to no virtual cluster. Allow where neither the
    /// object nor its class says anything. Deny closes it in mode Enforce, but for the shared
    /// services, the API server and the nodes: name DNS among the shared services first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
}

/// Another virtual cluster that a virtual cluster may talk with.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allow {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
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

/// What happens to pods that belong to no virtual cluster, or to traffic with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Unknown {
    /// They are left alone; it passes.
    #[default]
    Allow,
    /// They are cut off; it is refused.
    Deny,
}
