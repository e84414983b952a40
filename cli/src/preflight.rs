//! What a cluster's nodes will and will not enforce, from what its API server says of them: pure
//! functions, from facts to a report. Where an agent runs, its own word stands instead.

mod cni;
mod kernel;
mod runtime;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

pub(crate) use self::server::Server;
use crate::view::node::{Connection, Node};

/// How good something is; the greater, the worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub(crate) enum Level {
    /// As it should be.
    #[default]
    Good,
    /// Worth knowing; everything is enforced all the same.
    Note,
    /// Something will not be enforced.
    NotEnforced,
    /// The agent cannot run.
    CannotInstall,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Line {
    /// `kernel`, `runtime` …
    pub(crate) about: &'static str,
    /// How good it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What that is expected to mean.
    pub(crate) means: String,
    /// What would mend it; none: nothing has to.
    pub(crate) mend: Option<String>,
}

/// What was looked at on a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct NodeReport {
    /// Its name.
    pub(crate) name: String,
    /// The worst of it.
    pub(crate) level: Level,
    /// Whether an agent that runs there says so; else it is expected.
    pub(crate) from_agent: bool,
    /// In the order in which it was looked at.
    pub(crate) lines: Vec<Line>,
}

/// What was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The worst of all.
    pub(crate) level: Level,
    /// What is the same for all nodes.
    pub(crate) cluster: Vec<Line>,
    /// By name.
    pub(crate) nodes: Vec<NodeReport>,
    /// What overlay placement enforces, and what it does not, on any node.
    pub(crate) overlay: [&'static str; 2],
}

/// What the API server says of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    /// uname -r.
    pub(crate) kernel: String,
    /// As `containerd://1.7.24`.
    pub(crate) runtime: String,
    pub(crate) kubelet: String,
    /// "linux", "windows".
    pub(crate) os: String,
    /// As Go names it: "amd64".
    pub(crate) architecture: String,
    /// Keys of its annotations.
    pub(crate) annotations: BTreeSet<String>,
}

/// What is known before anything is decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) server: Server,
    pub(crate) nodes: Vec<NodeFacts>,
    /// Names of `DaemonSets`, and of pods of kube-system.
    pub(crate) workloads: BTreeSet<String>,
    /// Nodes as the controller knows them; or why it could not be asked.
    pub(crate) agents: Result<Vec<Node>, String>,
}

/// What overlay placement does, whatever the node.
const OVERLAY: [&str; 2] = [
    "enforced: who may talk with whom, for every pod, those that already run too; and what each \
     virtual cluster used is measured",
    "not enforced: perNode guarantees and limits of a virtual cluster as a whole, because pods \
     stay in the kubelet's own cgroups; what each pod asks for itself holds",
];

/// Everything, from what is known.
pub(crate) fn report(facts: &Facts) -> Report {
    let mut cluster = server::lines(&facts.server);
    cluster.push(cni::line(&facts.nodes, &facts.workloads));
    cluster.push(agents(&facts.agents));
    if facts.nodes.is_empty() {
        cluster.push(Line {
            about: "nodes",
            level: Level::CannotInstall,
            found: "none".to_owned(),
            means: "there is nothing to install on".to_owned(),
            mend: Some("name another cluster with --context".to_owned()),
        });
    }
    let mut nodes: Vec<NodeReport> = facts
        .nodes
        .iter()
        .map(|node| {
            let agents = facts.agents.iter().flatten();
            of_node(node, agents.into_iter().find(|agent| agent.name == node.name))
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let of_nodes = nodes.iter().map(|node| node.level);
    let level = cluster.iter().map(|line| line.level).chain(of_nodes).max().unwrap_or_default();
    Report { level, cluster, nodes, overlay: OVERLAY }
}

fn agents(agents: &Result<Vec<Node>, String>) -> Line {
    let line = |level, found: String, means: &str| Line {
        about: "agents",
        level,
        found,
        means: means.to_owned(),
        mend: None,
    };
    match agents {
        Ok(nodes) => line(
            Level::Good,
            format!("{} known to the controller", nodes.len()),
            "what they say stands instead of what is expected",
        ),
        Err(why) => line(
            Level::Note,
            format!("not asked: {why}"),
            "what follows is expected, not tried; ask again when Bulkhead is installed",
        ),
    }
}

fn of_node(facts: &NodeFacts, agent: Option<&Node>) -> NodeReport {
    let mut lines = Vec::new();
    if facts.os != "linux" {
        lines.push(Line {
            about: "system",
            level: Level::NotEnforced,
            found: facts.os.clone(),
            means: "no agent runs there: its pods are neither held nor measured".to_owned(),
            mend: Some("keep pods of virtual clusters off it (nodeSelector)".to_owned()),
        });
    } else if let Some(agent) = agent.filter(|agent| agent.facts.is_some()) {
        lines.extend(said_by(agent));
        lines.push(runtime::beside_an_agent(&facts.runtime));
    } else {
        lines.push(kernel::line(&facts.kernel));
        lines.push(architecture(&facts.architecture));
        lines.push(runtime::line(&facts.runtime));
        lines.push(runtime::kubelet(&facts.kubelet));
        lines.push(runtime::cgroups());
    }
    let level = lines.iter().map(|line| line.level).max().unwrap_or_default();
    let from_agent = lines.iter().any(|line| line.about == "agent");
    NodeReport { name: facts.name.clone(), level, from_agent, lines }
}

/// What an agent says itself.
fn said_by(agent: &Node) -> Vec<Line> {
    let facts = agent.facts.as_ref();
    let version = facts.map_or("", |facts| &facts.agent_version);
    let kernel = facts.map_or("", |facts| &facts.kernel_release);
    let connected = agent.connection == Connection::Connected;
    let mut lines = vec![Line {
        about: "agent",
        level: if connected { Level::Good } else { Level::NotEnforced },
        found: format!("{version} on kernel {kernel}, {}", agent.connection),
        means: if connected {
            "it runs: the kernel has everything that it needs".to_owned()
        } else {
            "what it enforced last goes on; new pods are not held".to_owned()
        },
        mend: (!connected).then(|| "see the log of its bulkhead-agent pod".to_owned()),
    }];
    lines.extend(agent.all_reasons().into_iter().map(|reason| Line {
        about: "agent",
        level: Level::NotEnforced,
        found: reason,
        means: "the agent says so".to_owned(),
        mend: Some("as the agent says; `bulkheadctl get node NAME` has all of it".to_owned()),
    }));
    lines.extend(agent.missing_controls().into_iter().map(|control| Line {
        about: "control",
        level: Level::Note,
        found: format!(
            "no {}: {}",
            control.name,
            control.reason.as_deref().unwrap_or("no reason given")
        ),
        means: "in overlay placement it would not bind anyway".to_owned(),
        mend: None,
    }));
    lines
}

fn architecture(name: &str) -> Line {
    let (level, means, mend) = match name {
        "amd64" => (Level::Good, "tried", None),
        "arm64" => (
            Level::NotEnforced,
            "not tried; images are of the machine that they were made on",
            Some("make the images on such a machine (`cargo xtask dist`) and try one node"),
        ),
        _ => (
            Level::CannotInstall,
            "there are no images for it",
            Some("keep pods of virtual clusters off it, and the DaemonSet too (nodeSelector)"),
        ),
    };
    Line {
        about: "architecture",
        level,
        found: name.to_owned(),
        means: means.to_owned(),
        mend: mend.map(ToOwned::to_owned),
    }
}

/// The first two numbers of a version: (6, 12) of "6.12.107+deb13", (1, 30) of "v1.30.2".
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']);
    let mut number = || {
        let digits: String = numbers.next()?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    Some((number()?, number()?))
}
