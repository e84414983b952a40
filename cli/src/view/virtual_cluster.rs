//! Virtual clusters, and what each node makes of them.

use bulkhead_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::open_enum::open_enum;
use super::spec::Spec;
use super::{Reason, moment};

open_enum! {
    /// How a virtual cluster stands, on one node or altogether.
    State from v1::virtual_cluster_node_status::State {
        /// Everything that was asked for stands.
        Applied,
        /// Something that was asked for cannot be enforced; see reasons.
        Degraded,
        /// The newest specification was refused whole; the one before it stands.
        Refused,
        /// Not yet applied.
        Pending,
    } and {
        /// No node has said anything.
        NotReported,
    }
}

impl State {
    /// The greater, the worse.
    fn severity(self) -> u8 {
        match self {
            Self::Applied => 0,
            Self::NotReported => 1,
            Self::Pending => 2,
            Self::Unknown(_) => 3,
            Self::Degraded => 4,
            Self::Refused => 5,
        }
    }

    /// The worst of many.
    fn worst(states: impl Iterator<Item = Self>) -> Self {
        states.max_by_key(|state| state.severity()).unwrap_or(Self::NotReported)
    }
}

open_enum! {
    /// What happened to a virtual cluster that is watched.
    Change from v1::watch_virtual_clusters_response::Change {
        /// It was there when the watch began.
        Initial,
        /// Everything that was there has been said.
        InitialComplete,
        /// Added, or its specification or status is another now.
        Upserted,
        /// Gone.
        Deleted,
    }
}

/// The answer to `get virtualclusters`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct VirtualClusters {
    /// By name.
    #[serde(rename = "virtual_clusters")]
    pub(crate) items: Vec<VirtualCluster>,
    /// What is wrong with the objects as they are written now; while there is anything, what was
    /// valid last stands. None: only a list says it, not an answer about names.
    pub(crate) problems: Option<Vec<String>>,
    /// What is valid and probably not meant.
    pub(crate) warnings: Option<Vec<String>>,
}

impl VirtualClusters {
    /// Problems and warnings, in lines for people.
    pub(crate) fn notes(&self) -> Vec<String> {
        let problems = self.problems.iter().flatten();
        let warnings = self.warnings.iter().flatten();
        let problems = problems.map(|text| format!("problem: {text}"));
        problems.chain(warnings.map(|text| format!("warning: {text}"))).collect()
    }
}

/// One virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VirtualCluster {
    /// Its name.
    pub(crate) name: String,
    /// The number that the kernel tables know it by.
    pub(crate) number: u32,
    /// The worst of its states on the nodes.
    pub(crate) state: State,
    /// Where the object came from.
    pub(crate) source: String,
    /// What was asked for.
    pub(crate) spec: Spec,
    /// One for each node that reported.
    pub(crate) nodes: Vec<NodeStatus>,
}

/// How one node does by one virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeStatus {
    /// The node.
    pub(crate) node: String,
    /// The virtual cluster.
    pub(crate) virtual_cluster: String,
    /// How it stands there.
    pub(crate) state: State,
    /// Why it is not as asked.
    pub(crate) reasons: Vec<Reason>,
    /// How often somebody else's change was found and mended.
    pub(crate) mended: u64,
    /// When the node saw this.
    pub(crate) observed_at: Option<Timestamp>,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) change: Change,
    /// To which; where it is gone, the last that was known.
    pub(crate) virtual_cluster: VirtualCluster,
}

impl VirtualCluster {
    /// One of which nothing is said: for the names of its fields.
    pub(crate) fn empty() -> Self {
        v1::VirtualCluster::default().into()
    }

    /// Nodes on which everything stands, and all that reported.
    pub(crate) fn applied_nodes(&self) -> (usize, usize) {
        let applied = self.nodes.iter().filter(|node| node.state == State::Applied).count();
        (applied, self.nodes.len())
    }

    /// Every reason with its node, the worst states first.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut nodes: Vec<&NodeStatus> = self.nodes.iter().collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(node.state.severity()));
        let of = |node: &NodeStatus| {
            let name = node.node.clone();
            node.reasons.clone().into_iter().map(move |reason| format!("{name}: {reason}"))
        };
        nodes.into_iter().flat_map(of).collect()
    }

    /// Mended changes on all nodes.
    pub(crate) fn mended(&self) -> u64 {
        self.nodes.iter().fold(0, |sum, node| sum.saturating_add(node.mended))
    }
}

impl From<v1::VirtualCluster> for VirtualCluster {
    fn from(cluster: v1::VirtualCluster) -> Self {
        let mut nodes: Vec<NodeStatus> = cluster.nodes.into_iter().map(NodeStatus::from).collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Self {
            name: cluster.name,
            number: cluster.number,
            state: State::worst(nodes.iter().map(|node| node.state)),
            source: cluster.source,
            spec: cluster.spec.unwrap_or_default().into(),
            nodes,
        }
    }
}

impl From<v1::VirtualClusterNodeStatus> for NodeStatus {
    fn from(status: v1::VirtualClusterNodeStatus) -> Self {
        Self {
            node: status.node,
            virtual_cluster: status.name,
            state: State::from_wire(status.state),
            reasons: status.reasons.into_iter().map(Reason::from).collect(),
            mended: status.mended,
            observed_at: moment(status.observed_at.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: &str, state: i32) -> v1::VirtualClusterNodeStatus {
        let reason = v1::Reason { subject: "cpu.max".to_owned(), message: format!("on {node}") };
        v1::VirtualClusterNodeStatus {
            node: node.to_owned(),
            state,
            reasons: vec![reason],
            mended: 2,
            ..Default::default()
        }
    }

    #[test]
    fn the_worst_node_decides_and_is_named_first() {
        let cluster = VirtualCluster::from(v1::VirtualCluster {
            nodes: vec![status("c", 2), status("b", 1), status("a", 4)],
            ..Default::default()
        });
        assert_eq!(cluster.state, State::Degraded);
        assert_eq!(cluster.applied_nodes(), (1, 3));
        assert_eq!(cluster.mended(), 6);
        assert_eq!(cluster.reasons()[0], "c: cpu.max: on c");
    }

    #[test]
    fn what_nobody_reported_and_what_nobody_knows() {
        let silent = VirtualCluster::from(v1::VirtualCluster::default());
        assert_eq!(silent.state, State::NotReported);
        let newer = VirtualCluster::from(v1::VirtualCluster {
            nodes: vec![status("a", 99), status("b", 1)],
            ..Default::default()
        });
        assert_eq!(newer.state.to_string(), "Unknown(99)");
    }
}
