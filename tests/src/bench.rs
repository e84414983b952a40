//! What a benchmark says: one row for each goal, with its peer from the same run.

pub mod empty;
pub mod machine;
pub mod node;
pub mod statistics;

use serde::{Deserialize, Serialize};

/// One measured goal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of `ours` and `peer`: `ns`, `records/s`, `bytes` …
    pub unit: String,
    /// Our median.
    pub ours: f64,
    /// The peer's median in the same run.
    pub peer: Option<f64>,
    /// What the peer is, with its version.
    pub peer_name: Option<String>,
    /// `ours / peer`, or for speeds `peer / ours`, as `goal` says. `None`: no peer, or the
    /// baseline's spread is over 10 %.
    pub ratio: Option<f64>,
    /// The goal in words: "≤ 0.5 × nftables".
    pub goal: String,
    /// Whether it was met. `None`: too noisy to say.
    pub met: Option<bool>,
    /// Spread or confidence interval, in words, with the number of rounds.
    pub spread: String,
    /// Where: processor, kernel, host or virtual machine.
    pub machine: String,
    /// What else a reader must know: cache-hot or not, floors that were taken off, why missed.
    pub note: String,
    /// Where `ours` goes, measured in the same run: what a reader of a missed goal asks first.
    /// Empty: not told apart.
    #[serde(default)]
    pub profile: String,
}
