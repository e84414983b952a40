//! What the status of each object says: pure, of what is known of the cluster and of what agents
//! say.

use std::collections::BTreeMap;

use bulkhead_api::catalogue::Subject;
use bulkhead_api::conditions::{
    self, Agent, Holds, Kind, Known, NodeStanding, NodeState, Reason, Verdict, Window,
};
use bulkhead_api::object::{Mode, ObjectStatus, VirtualClusterStatus};
use bulkhead_core::{NetworkMode, VirtualClusterName};
use bulkhead_proto::v1;
use bulkhead_proto::v1::virtual_cluster_node_status::State;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::index::Present;
use super::picture::{Cluster, Object, Picture};

/// A status that an object should have, and had.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) subject: Subject,
    pub(crate) uid: String,
    pub(crate) status: serde_json::Value,
    /// What became so since: to be told as an Event.
    pub(crate) news: Vec<Condition>,
    /// More than counts is different.
    pub(crate) matters: bool,
}

/// How the nodes stand, as their agents say.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Agents(BTreeMap<String, v1::Node>);

impl Agents {
    pub(crate) fn new(nodes: Vec<v1::Node>) -> Self {
        Self(nodes.into_iter().map(|node| (node.name.clone(), node)).collect())
    }

    /// Whether a node's agent enforces what it was told: pods may come.
    pub(crate) fn is_ready(&self, node: &str) -> bool {
        let Some(node) = self.0.get(node) else {
            return false;
        };
        let Some(status) = &node.status else {
            return false;
        };
        node.connection() == v1::node::Connection::Connected
            && status.applied_generation > 0
            && !status
                .virtual_clusters
                .iter()
                .any(|it| matches!(it.state(), State::Refused | State::Pending))
    }

    fn standing(&self, node: &str, name: &VirtualClusterName, present: Present) -> NodeStanding {
        let known = self.0.get(node);
        let status = known.and_then(|node| node.status.as_ref());
        let of_cluster = status
            .and_then(|status| status.virtual_clusters.iter().find(|it| it.name == name.as_str()));
        let agent = match known.map(v1::Node::connection) {
            None => Agent::Missing,
            Some(v1::node::Connection::Connected) => Agent::Connected,
            Some(_) => Agent::Away,
        };
        let state = match of_cluster.map(v1::VirtualClusterNodeStatus::state) {
            Some(State::Applied) => NodeState::Applied,
            Some(State::Degraded) => NodeState::Degraded,
            Some(State::Refused) => NodeState::Refused,
            Some(State::Pending | State::Unspecified) | None => NodeState::Pending,
        };
        let reasons = of_cluster.into_iter().flat_map(|it| &it.reasons);
        let reason =
            |it: &v1::Reason| Reason { subject: it.subject.clone(), message: it.message.clone() };
        NodeStanding {
            name: node.to_owned(),
            agent,
            state,
            reasons: reasons.map(reason).collect(),
            // No pod is placed anywhere else yet.
            overlay_pods: count(present.pods),
            host_network_pods: count(present.host_network),
            without_nri: status.and_then(window),
        }
    }
}

/// How late a node without NRI knows its pods; `None`: it has NRI.
fn window(status: &v1::NodeStatus) -> Option<Window> {
    let of = |late: &v1::LatePods| Window {
        longest_nanoseconds: (late.registered > 0).then_some(late.longest_nanoseconds),
    };
    let late = status.late_pods.as_ref().map(of);
    // Agents before this version say it in words only.
    let in_words = || status.reasons.iter().any(|it| it.subject == "nri").then(Window::default);
    late.or_else(in_words)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Every status that is not as it should be.
pub(crate) fn wanted(picture: &Picture, agents: &Agents, now: &Time) -> Vec<Wanted> {
    let clusters = picture.clusters.iter().filter_map(|(name, cluster)| {
        let status = of_cluster(name, cluster, agents, now);
        let before = &cluster.object.status;
        let subject = Subject::VirtualCluster(name.as_str().to_owned());
        let matters = without_counts(before) != without_counts(&status);
        let news = news(&before.conditions, &status.conditions);
        (status != *before)
            .then(|| of(subject, &cluster.object.uid, serde_json::to_value(&status), news, matters))
    });
    let others = picture.others.iter().filter_map(|(subject, (object, stands))| {
        let status = of_other(object, *stands, now);
        let news = news(&object.status.conditions, &status.conditions);
        (status != object.status)
            .then(|| of(subject.clone(), &object.uid, serde_json::to_value(&status), news, true))
    });
    clusters.chain(others).flatten().collect()
}

fn of(
    subject: Subject,
    uid: &str,
    status: serde_json::Result<serde_json::Value>,
    news: Vec<Condition>,
    matters: bool,
) -> Option<Wanted> {
    // Texts and numbers can always be written.
    Some(Wanted { subject, uid: uid.to_owned(), status: status.ok()?, news, matters })
}

fn without_counts(status: &VirtualClusterStatus) -> VirtualClusterStatus {
    let none = VirtualClusterStatus::default();
    VirtualClusterStatus {
        conditions: status.conditions.clone(),
        observed_generation: status.observed_generation,
        mode: status.mode,
        ..none
    }
}

fn of_cluster(
    name: &VirtualClusterName,
    cluster: &Cluster,
    agents: &Agents,
    now: &Time,
) -> VirtualClusterStatus {
    let nodes = cluster.nodes.iter();
    let nodes: Vec<NodeStanding> =
        nodes.map(|(node, present)| agents.standing(node, name, *present)).collect();
    let Object { generation, problems, status, .. } = &cluster.object;
    let known = Known {
        name,
        definition: cluster.definition.as_ref(),
        problems,
        claims: &cluster.claims,
        overlaps: &cluster.overlaps,
        warnings: &cluster.left_out,
        pods: count(cluster.pods),
        nodes: &nodes,
    };
    let verdicts = conditions::of_virtual_cluster(&known);
    let verdicts = verdicts.map(|verdict| with_weak(verdict, &cluster.weak));
    let mode = cluster.definition.as_ref().map(|definition| definition.network.mode);
    let enforces = mode == Some(NetworkMode::Enforce);
    let enforcing = nodes.iter().filter(|node| enforces && node.enforces()).count();
    VirtualClusterStatus {
        observed_generation: *generation,
        conditions: conditions::merged(verdicts, &status.conditions, *generation, now),
        mode: mode.map(|mode| match mode {
            NetworkMode::Enforce => Mode::Enforce,
            NetworkMode::Observe => Mode::Observe,
            NetworkMode::Off => Mode::Off,
        }),
        namespaces: Some(count(cluster.namespaces)),
        pods: Some(count(cluster.pods)),
        nodes: Some(count(nodes.len())),
        enforcing_nodes: Some(count(enforcing)),
    }
}

/// What only the index knows to be weak.
fn with_weak(mut verdict: Verdict, weak: &[String]) -> Verdict {
    if verdict.kind == Kind::BoundaryWeak && !weak.is_empty() {
        let mut messages = weak.to_vec();
        if verdict.holds == Holds::True {
            messages.insert(0, verdict.message);
        } else {
            (verdict.holds, verdict.reason) = (Holds::True, "AddressesUnclear");
        }
        verdict.message = messages.join(". ");
    }
    verdict
}

fn of_other(object: &Object<ObjectStatus>, stands: bool, now: &Time) -> ObjectStatus {
    let verdict = conditions::ready(&object.problems, stands);
    ObjectStatus {
        observed_generation: object.generation,
        conditions: conditions::merged(
            [verdict],
            &object.status.conditions,
            object.generation,
            now,
        ),
    }
}

/// Conditions that operators must hear of: something is not as asked, and was otherwise before.
/// That nothing was applied yet is no news of a young object.
fn news(before: &[Condition], now: &[Condition]) -> Vec<Condition> {
    const QUIET: [&str; 6] =
        ["Progressing", "Observing", "Off", "NoPods", "Overlay", "NothingKnown"];
    let is_bad = |it: &&Condition| {
        let bad = if it.type_ == Kind::BoundaryWeak.name() { "True" } else { "False" };
        it.status == bad && !QUIET.contains(&it.reason.as_str())
    };
    let is_news = |it: &&Condition| {
        let same = |before: &&Condition| before.type_ == it.type_ && before.reason == it.reason;
        !before.iter().any(|before| same(&before) && before.status == it.status)
    };
    now.iter().filter(is_bad).filter(is_news).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_api::Objects;
    use bulkhead_api::Standing;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;
    use std::sync::Arc;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn picture(mode: &str, cpu: &str) -> Picture {
        let object = serde_json::from_value(json!({
            "apiVersion": "bulkhead.dev/v1alpha1", "kind": "VirtualCluster",
            "metadata": { "name": "a", "uid": "u", "generation": 2 },
            "spec": {
                "members": { "namespaces": ["a"] }, "network": { "mode": mode },
                "perNode": { "limit": { "cpu": cpu } },
            },
        }));
        let mut now = Objects::default();
        now.virtual_clusters.insert("a".to_owned(), object.unwrap());
        let standing = Standing::of(&now, &Objects::default());
        let cluster = Cluster {
            object: Object {
                uid: "u".to_owned(),
                generation: Some(2),
                problems: standing.problems.values().flatten().cloned().collect(),
                status: VirtualClusterStatus::default(),
            },
            definition: standing.catalogue.virtual_clusters.values().next().cloned(),
            namespaces: 1,
            pods: 3,
            nodes: BTreeMap::from([(Arc::from("n"), Present { pods: 3, host_network: 0 })]),
            ..Cluster::default()
        };
        let clusters = BTreeMap::from([("a".parse().unwrap(), cluster)]);
        Picture { clusters, ..Picture::default() }
    }

    fn agents(state: State, connection: v1::node::Connection) -> Agents {
        let of_a = v1::VirtualClusterNodeStatus {
            name: "a".to_owned(),
            state: state.into(),
            ..v1::VirtualClusterNodeStatus::default()
        };
        let status = v1::NodeStatus {
            applied_generation: 7,
            virtual_clusters: vec![of_a],
            ..v1::NodeStatus::default()
        };
        Agents::new(vec![v1::Node {
            name: "n".to_owned(),
            connection: connection.into(),
            status: Some(status),
            ..v1::Node::default()
        }])
    }

    fn read(wanted: &Wanted) -> VirtualClusterStatus {
        serde_json::from_value(wanted.status.clone()).unwrap()
    }

    fn condition(status: &VirtualClusterStatus, kind: Kind) -> &Condition {
        status.conditions.iter().find(|it| it.type_ == kind.name()).unwrap()
    }

    #[test]
    fn status_is_written_once_and_again_when_it_changes() {
        let mut known = picture("Enforce", "2");
        let connected = v1::node::Connection::Connected;
        let applied = agents(State::Applied, connected);
        let first = wanted(&known, &applied, &at(100));
        let status = read(&first[0]);
        assert_eq!(condition(&status, Kind::Enforced).status, "True");
        assert_eq!(
            (status.pods, status.nodes, status.enforcing_nodes),
            (Some(3), Some(1), Some(1))
        );
        assert_eq!((status.mode, status.observed_generation), (Some(Mode::Enforce), Some(2)));

        let name = "a".parse().unwrap();
        known.clusters.get_mut(&name).unwrap().object.status = status;
        assert_eq!(wanted(&known, &applied, &at(200)), [], "the time alone is no change");

        let degraded = wanted(&known, &agents(State::Refused, connected), &at(300));
        let status = read(&degraded[0]);
        assert_eq!(condition(&status, Kind::Enforced).last_transition_time, at(300));
        assert!(degraded[0].matters && !degraded[0].news.is_empty());

        known.clusters.get_mut(&name).unwrap().pods = 4;
        let counts = wanted(&known, &applied, &at(300));
        assert!(!counts[0].matters, "only a count changed");
    }

    #[test]
    fn what_only_the_index_knows_makes_a_boundary_weak() {
        let mut known = picture("Enforce", "2");
        let name = "a".parse().unwrap();
        known.clusters.get_mut(&name).unwrap().weak.push("a range is not known".to_owned());
        let now = wanted(&known, &agents(State::Applied, v1::node::Connection::Connected), &at(1));
        let status = read(&now[0]);
        let weak = condition(&status, Kind::BoundaryWeak);
        assert_eq!((weak.status.as_str(), weak.reason.as_str()), ("True", "AddressesUnclear"));
        assert!(weak.message.contains("a range is not known"));
        assert!(now[0].news.iter().any(|it| it.type_ == "BoundaryWeak"));
    }

    #[test]
    fn a_node_whose_agent_has_no_runtime_to_ask_makes_a_boundary_weak() {
        let connected = v1::node::Connection::Connected;
        let reason = |agents: &Agents| {
            let status = read(&wanted(&picture("Enforce", "2"), agents, &at(1))[0]);
            let weak = condition(&status, Kind::BoundaryWeak);
            (weak.reason.clone(), weak.message.clone())
        };
        let mut agents = agents(State::Applied, connected);
        assert_eq!(reason(&agents).0, "NothingKnown");
        let nri = v1::Reason { subject: "nri".to_owned(), message: "not connected".to_owned() };
        let stands = |agents: &mut Agents, reasons, late_pods| {
            let status = agents.0.get_mut("n").unwrap().status.as_mut().unwrap();
            (status.reasons, status.late_pods) = (reasons, late_pods);
        };
        stands(&mut agents, vec![nri], None);
        assert_eq!(reason(&agents).0, "NoNRI");
        let late = v1::LatePods {
            registered: 3,
            last_nanoseconds: 1,
            longest_nanoseconds: 432_100_000,
            waiting: 0,
        };
        stands(&mut agents, Vec::new(), Some(late));
        let (reason, message) = reason(&agents);
        assert_eq!(reason, "NoNRI");
        assert!(message.contains("n (at most 440 ms so far)"), "{message}");
    }

    #[test]
    fn a_node_is_ready_when_its_agent_says_that_everything_stands() {
        let connected = v1::node::Connection::Connected;
        assert!(agents(State::Applied, connected).is_ready("n"));
        assert!(agents(State::Degraded, connected).is_ready("n"));
        assert!(!agents(State::Pending, connected).is_ready("n"));
        assert!(!agents(State::Refused, connected).is_ready("n"));
        assert!(!agents(State::Applied, v1::node::Connection::Away).is_ready("n"));
        assert!(!agents(State::Applied, connected).is_ready("other"));
        assert!(
            !Agents::new(vec![v1::Node { name: "n".to_owned(), ..v1::Node::default() }])
                .is_ready("n")
        );
    }
}
