//! Nodes that run an agent.

use bulkhead_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::open_enum::open_enum;
use super::virtual_cluster::{NodeStatus, State};
use super::{Reason, moment};

open_enum! {
    /// Whether a node's agent has a stream to the controller.
    Connection from v1::node::Connection {
        /// It has.
        Connected,
        /// It has not: what follows is the last that it said.
        Away,
    }
}

/// The answer to `get nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Nodes {
    /// By name.
    pub(crate) nodes: Vec<Node>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Whether its agent is there.
    pub(crate) connection: Connection,
    /// When it last said something.
    pub(crate) last_seen: Option<Timestamp>,
    /// The newest generation that the controller sent.
    pub(crate) wanted_generation: u64,
    /// The generation that is applied.
    pub(crate) applied_generation: u64,
    /// Why a newer generation is not applied, or what else is wrong with the node.
    pub(crate) reasons: Vec<Reason>,
    /// Records in its journal that the controller has not acknowledged.
    pub(crate) journal_backlog_records: u64,
    /// What it is; none: it never said.
    pub(crate) facts: Option<Facts>,
    /// How each virtual cluster stands on it.
    pub(crate) virtual_clusters: Vec<NodeStatus>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Facts {
    /// Of this boot.
    pub(crate) boot_id: String,
    /// uname -r.
    pub(crate) kernel_release: String,
    /// Version of the agent.
    pub(crate) agent_version: String,
    /// Version of the layouts that agent and kernel programs share.
    pub(crate) abi_version: u32,
    /// Processors.
    pub(crate) capacity_nanocores: u64,
    /// Memory.
    pub(crate) capacity_memory_bytes: u64,
    /// Tasks.
    pub(crate) capacity_pids: u64,
    /// Every host address.
    pub(crate) addresses: Vec<String>,
    /// What it can enforce.
    pub(crate) controls: Vec<Control>,
}

/// Whether a node can enforce a control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Control {
    /// `cpu.max`, `network.egress` …
    #[serde(rename = "control")]
    pub(crate) name: String,
    /// Whether it can.
    pub(crate) supported: bool,
    /// Why not; none where it can.
    pub(crate) reason: Option<String>,
}

impl Node {
    /// One of which nothing is said: for the names of its fields.
    pub(crate) fn empty() -> Self {
        v1::Node::default().into()
    }

    /// Virtual clusters of which everything stands here, and all.
    pub(crate) fn applied_virtual_clusters(&self) -> (usize, usize) {
        let applied = |status: &&NodeStatus| status.state == State::Applied;
        (self.virtual_clusters.iter().filter(applied).count(), self.virtual_clusters.len())
    }

    /// Everything that is wrong here, the node's own reasons first.
    pub(crate) fn all_reasons(&self) -> Vec<String> {
        let own = self.reasons.iter().map(ToString::to_string);
        let of = |status: &NodeStatus| {
            let name = status.virtual_cluster.clone();
            status.reasons.clone().into_iter().map(move |reason| format!("{name}: {reason}"))
        };
        own.chain(self.virtual_clusters.iter().flat_map(of)).collect()
    }

    /// Controls that the node cannot enforce.
    pub(crate) fn missing_controls(&self) -> Vec<&Control> {
        let controls = self.facts.iter().flat_map(|facts| &facts.controls);
        controls.filter(|control| !control.supported).collect()
    }
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        let status = node.status.unwrap_or_default();
        Self {
            name: node.name,
            connection: Connection::from_wire(node.connection),
            last_seen: moment(node.last_seen.as_ref()),
            wanted_generation: node.wanted_generation,
            applied_generation: status.applied_generation,
            reasons: status.reasons.into_iter().map(Reason::from).collect(),
            journal_backlog_records: status.journal_backlog_records,
            facts: node.facts.map(Facts::from),
            virtual_clusters: status.virtual_clusters.into_iter().map(NodeStatus::from).collect(),
        }
    }
}

impl From<v1::NodeFacts> for Facts {
    fn from(facts: v1::NodeFacts) -> Self {
        Self {
            boot_id: facts.boot_id,
            kernel_release: facts.kernel_release,
            agent_version: facts.agent_version,
            abi_version: facts.abi_version,
            capacity_nanocores: facts.capacity_nanocores,
            capacity_memory_bytes: facts.capacity_memory_bytes,
            capacity_pids: facts.capacity_pids,
            addresses: facts.addresses,
            controls: facts.controls.into_iter().map(Control::from).collect(),
        }
    }
}

impl From<v1::ControlSupport> for Control {
    fn from(support: v1::ControlSupport) -> Self {
        Self {
            name: support.control,
            supported: support.supported,
            reason: Some(support.reason).filter(|reason| !reason.is_empty()),
        }
    }
}
