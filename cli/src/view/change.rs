//! Changes of mode.

use serde::Serialize;

use crate::breakage::Breakage;

/// The answer to `enforce` and `observe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// By name.
    #[serde(rename = "virtual_clusters")]
    pub(crate) items: Vec<Change>,
}

/// What became of one virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// Its name.
    pub(crate) name: String,
    /// The mode that it asked for; none: its class's or the default.
    pub(crate) before: Option<String>,
    /// The mode that it asks for now.
    pub(crate) mode: String,
    /// How far it is.
    pub(crate) outcome: Outcome,
    /// In words.
    pub(crate) message: String,
    /// What would have been refused; none: not asked.
    pub(crate) would_deny: Option<Breakage>,
}

/// How far a change of mode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Outcome {
    /// It stands on every node that has pods of it.
    Applied,
    /// It is asked for, and not known to stand everywhere.
    Pending,
    /// It will not stand until somebody does something.
    Refused,
    /// The object could not be changed.
    Failed,
    /// Nothing was changed.
    DryRun,
}
