//! What an operator sees, through `bulkheadctl`.

use std::collections::BTreeMap;
use std::ops::Sub;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Somebody who asks the controller.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// The program.
    pub(crate) bulkheadctl: PathBuf,
    /// The controller's port for operators.
    pub(crate) server: String,
    /// How far back questions go: longer than anything that is asked about.
    pub(crate) since: &'static str,
}

/// What a virtual cluster used since the beginning.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Usage {
    /// Its name.
    pub(crate) virtual_cluster: Option<String>,
    /// CPU time.
    pub(crate) cpu: Option<Cpu>,
    /// Memory.
    pub(crate) memory: Option<Memory>,
    /// Tasks.
    pub(crate) pids: Option<Pids>,
    /// Network.
    pub(crate) network: Option<Network>,
}

/// CPU time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Cpu {
    /// In nanoseconds.
    pub(crate) usage_nanoseconds: u64,
}

/// Memory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Memory {
    /// Integrated over time.
    pub(crate) byte_seconds: u64,
    /// When last sampled.
    pub(crate) current_bytes: u64,
    /// Processes killed for want of memory.
    pub(crate) oom_kills: u64,
}

/// Tasks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Pids {
    /// Forks refused.
    pub(crate) refused: u64,
}

/// Network.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Network {
    classes: Vec<Cell>,
    /// How much of the time was seen.
    #[serde(default)]
    pub(crate) coverage: Coverage,
}

/// How much of the time was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Coverage {
    /// Time for which there are records.
    pub(crate) covered_nanoseconds: u64,
    /// Time asked for, from the first record on.
    pub(crate) wanted_nanoseconds: u64,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
struct Cell {
    direction: String,
    #[serde(rename = "class")]
    far_end: String,
    #[serde(flatten)]
    counters: Counters,
}

/// Traffic of one direction and class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Counters {
    pub(crate) passed_bytes: u64,
    pub(crate) passed_packets: u64,
    pub(crate) denied_bytes: u64,
    pub(crate) denied_packets: u64,
    pub(crate) denied_connects: u64,
    pub(crate) denied_sendmsgs: u64,
    #[serde(default)]
    pub(crate) would_deny_bytes: u64,
    #[serde(default)]
    pub(crate) would_deny_packets: u64,
}

impl Sub for Counters {
    type Output = Self;

    /// What was added since `before`. Counters do not go back; one that does shows as a number
    /// that nobody expects.
    fn sub(self, before: Self) -> Self {
        Self {
            passed_bytes: self.passed_bytes.wrapping_sub(before.passed_bytes),
            passed_packets: self.passed_packets.wrapping_sub(before.passed_packets),
            denied_bytes: self.denied_bytes.wrapping_sub(before.denied_bytes),
            denied_packets: self.denied_packets.wrapping_sub(before.denied_packets),
            denied_connects: self.denied_connects.wrapping_sub(before.denied_connects),
            denied_sendmsgs: self.denied_sendmsgs.wrapping_sub(before.denied_sendmsgs),
            would_deny_bytes: self.would_deny_bytes.wrapping_sub(before.would_deny_bytes),
            would_deny_packets: self.would_deny_packets.wrapping_sub(before.would_deny_packets),
        }
    }
}

impl Usage {
    /// Traffic of one direction ("Egress") and class ("Own").
    pub(crate) fn network(&self, direction: &str, class: &str) -> Counters {
        let classes = self.network.iter().flat_map(|network| &network.classes);
        classes
            .filter(|found| found.direction == direction && found.far_end == class)
            .map(|found| found.counters)
            .next()
            .unwrap_or_default()
    }

    /// CPU time, milliseconds.
    pub(crate) fn cpu_milliseconds(&self) -> u64 {
        self.cpu.unwrap_or_default().usage_nanoseconds / 1_000_000
    }
}

/// A node as the controller knows it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) connection: String,
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) wanted_generation: u64,
    pub(crate) applied_generation: u64,
    #[serde(default)]
    pub(crate) reasons: Vec<Reason>,
    pub(crate) virtual_clusters: Vec<Standing>,
}

/// Why something is not as asked.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Reason {
    pub(crate) subject: String,
    pub(crate) message: String,
}

/// How a virtual cluster stands on a node.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Standing {
    pub(crate) virtual_cluster: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) reasons: Vec<Reason>,
    pub(crate) mended: u64,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Usage>,
}

impl Operator {
    /// What every virtual cluster used.
    pub(crate) fn usage(&self) -> Result<BTreeMap<String, Usage>> {
        self.rows(&["usage", "--since", self.since])
    }

    /// As [`Self::usage`], of the time since then only.
    pub(crate) fn usage_since(&self, start: Timestamp) -> Result<BTreeMap<String, Usage>> {
        self.rows(&["usage", "--start", &start.to_string()])
    }

    fn rows(&self, words: &[&str]) -> Result<BTreeMap<String, Usage>> {
        let answer: Rows = self.ask(words)?;
        let named = |row: Usage| Some((row.virtual_cluster.clone()?, row));
        Ok(answer.rows.into_iter().filter_map(named).collect())
    }

    /// What one virtual cluster used; nothing if nothing is known of it.
    pub(crate) fn usage_of(&self, virtual_cluster: &str) -> Result<Usage> {
        Ok(self.usage()?.remove(virtual_cluster).unwrap_or_default())
    }

    /// The one node of the demo; `None` before it has reported.
    pub(crate) fn node(&self) -> Result<Option<Node>> {
        let mut answer: Nodes = self.ask(&["get", "nodes"])?;
        ensure!(answer.nodes.len() <= 1, "the demo has one node, not {}", answer.nodes.len());
        Ok(answer.nodes.pop())
    }

    /// How often somebody else's change to a virtual cluster was mended.
    pub(crate) fn mended(&self, virtual_cluster: &str) -> Result<u64> {
        let node = self.node()?.context("the node has not reported")?;
        let standing =
            node.virtual_clusters.iter().find(|found| found.virtual_cluster == virtual_cluster);
        Ok(standing.map_or(0, |standing| standing.mended))
    }

    fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let output = Command::new(&self.bulkheadctl)
            .args(["--server", &self.server, "-o", "json"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("start bulkheadctl")?;
        let what = words.join(" ");
        ensure!(
            output.status.success(),
            "bulkheadctl {what} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let said =
            || format!("bulkheadctl {what} said {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).with_context(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_as_bulkheadctl_writes_it() {
        let json = r#"{"start": null, "end": "2026-01-01T00:00:00Z", "rows": [{
            "start": null, "end": "2026-01-01T00:00:00Z", "virtual_cluster": "prod", "node": null,
            "cpu": {"usage_nanoseconds": 5000000, "user_nanoseconds": 0, "coverage": {}},
            "memory": null,
            "network": {"classes": [{"direction": "Egress", "class": "Own", "passed_bytes": 7,
                "passed_packets": 1, "denied_bytes": 0, "denied_packets": 0,
                "denied_connects": 0, "denied_sendmsgs": 0, "would_deny_bytes": 0}]}}]}"#;
        let rows: Rows = serde_json::from_str(json).expect("is the CLI's shape");
        let usage = &rows.rows[0];
        assert_eq!(usage.cpu_milliseconds(), 5);
        assert_eq!(usage.network("Egress", "Own").passed_bytes, 7);
        assert_eq!(usage.network("Ingress", "Own"), Counters::default());
    }
}
