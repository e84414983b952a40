//! What status says.

use bulkhead_core::NetworkMode;

use super::*;
use crate::catalogue::{Objects, Standing};
use crate::membership::Extent;

/// A virtual cluster as it stands, of its spec in YAML.
fn definition(spec: &str) -> Definition {
    let text = format!("{{metadata: {{name: team-a}}, spec: {spec}}}");
    let object = crate::object::VirtualClusterSpec::default();
    let mut object = crate::VirtualCluster::new("team-a", object);
    let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    object.spec = serde_json::from_value(read["spec"].clone()).unwrap();
    let virtual_clusters = [("team-a".to_owned(), object)].into();
    let objects = Objects { virtual_clusters, ..Objects::default() };
    let standing = Standing::of(&objects, &Objects::default());
    assert_eq!(standing.problems, [].into());
    standing.catalogue.virtual_clusters.into_values().next().unwrap()
}

fn node(name: &str) -> NodeStanding {
    NodeStanding {
        name: name.to_owned(),
        agent: Agent::Connected,
        state: NodeState::Applied,
        reasons: Vec::new(),
        overlay_pods: 0,
        host_network_pods: 0,
        without_nri: None,
    }
}

fn degraded(name: &str, subject: &str) -> NodeStanding {
    let reason = Reason { subject: subject.to_owned(), message: "do this".to_owned() };
    NodeStanding { state: NodeState::Degraded, reasons: vec![reason], ..node(name) }
}

const ENFORCE: &str = "{network: {mode: Enforce}, perNode: {limit: {cpu: 1}}}";

/// Status and reason of a condition, and that its message says something.
#[track_caller]
fn says(known: &Known<'_>, kind: Kind, holds: Holds, reason: &str, parts: &[&str]) {
    let found = of_virtual_cluster(known).into_iter().find(|it| it.kind == kind).unwrap();
    assert_eq!((found.holds, found.reason), (holds, reason), "{}", found.message);
    assert!(!found.message.is_empty());
    for part in parts {
        assert!(found.message.contains(part), "{part:?} is not in {:?}", found.message);
    }
}

fn known<'a>(
    name: &'a VirtualClusterName,
    definition: &'a Definition,
    nodes: &'a [NodeStanding],
) -> Known<'a> {
    let (problems, claims, overlaps, warnings) = (&[], &[], &[], &[]);
    let definition = Some(definition);
    Known { name, definition, problems, claims, overlaps, warnings, pods: 3, nodes }
}

fn name() -> VirtualClusterName {
    "team-a".parse().unwrap()
}

#[test]
fn everything_well_is_said_in_every_condition() {
    let (name, definition, nodes) = (name(), definition(ENFORCE), [node("n1"), node("n2")]);
    let known = known(&name, &definition, &nodes);
    says(&known, Kind::Ready, Holds::True, "Applied", &[]);
    says(&known, Kind::Enforced, Holds::True, "Enforced", &["all 2 nodes"]);
    says(&known, Kind::LimitsEnforced, Holds::True, "Enforced", &[]);
    says(&known, Kind::BoundaryWeak, Holds::False, "NothingKnown", &["spec.network.unknown"]);
    assert!(nodes.iter().all(NodeStanding::enforces));
}

#[test]
fn overlay_placement_does_not_enforce_limits_and_does_enforce_the_network() {
    let plain = definition("{network: {mode: Enforce}}");
    let (name, definition) = (name(), definition(ENFORCE));
    let nodes = [NodeStanding { overlay_pods: 2, ..node("n1") }, node("n2")];
    let known = known(&name, &definition, &nodes);
    says(&known, Kind::LimitsEnforced, Holds::False, "Overlay", &["n1 (2 pods)", "kubelet"]);
    says(&known, Kind::Enforced, Holds::True, "Enforced", &[]);
    // Where nothing was asked for, nothing is missing.
    let known = Known { definition: Some(&plain), ..known };
    says(&known, Kind::LimitsEnforced, Holds::True, "NoLimits", &[]);
}

#[test]
fn modes_that_refuse_nothing_say_how_to_see_what_enforce_would_do() {
    let (name, nodes) = (name(), [node("n1")]);
    let observe = definition("{}");
    assert_eq!(observe.network.mode, NetworkMode::Observe);
    let parts = ["bulkheadctl enforce team-a"];
    says(&known(&name, &observe, &nodes), Kind::Enforced, Holds::False, "Observing", &parts);
    let off = definition("{network: {mode: \"Off\"}}");
    says(&known(&name, &off, &nodes), Kind::Enforced, Holds::False, "Off", &["Observe"]);
}

#[test]
fn what_is_wrong_on_a_node_is_said_where_it_belongs() {
    let (name, definition) = (name(), definition(ENFORCE));
    let (limits, network) = ([degraded("n1", "memory.max")], [degraded("n1", "ADDRESSES")]);
    let first = known(&name, &definition, &limits);
    let parts = ["n1: memory.max: do this"];
    says(&first, Kind::LimitsEnforced, Holds::False, "Degraded", &parts);
    says(&first, Kind::Enforced, Holds::True, "Enforced", &[]);
    assert!(limits[0].enforces());
    let second = known(&name, &definition, &network);
    says(&second, Kind::LimitsEnforced, Holds::True, "Enforced", &[]);
    says(&second, Kind::Enforced, Holds::False, "Degraded", &["n1: ADDRESSES: do this"]);
    assert!(!network[0].enforces());
}

#[test]
fn nodes_that_are_not_heard_of_are_told_apart() {
    let (name, definition) = (name(), definition(ENFORCE));
    let agent = |agent| [node("n1"), NodeStanding { agent, ..node("n2") }];
    let missing = agent(Agent::Missing);
    let first = known(&name, &definition, &missing);
    says(&first, Kind::Enforced, Holds::False, "AgentMissing", &["n2", "DaemonSet"]);
    says(&first, Kind::Ready, Holds::False, "Progressing", &["not on 1 of 2 nodes", "n2"]);
    assert!(!missing[1].enforces());
    let away = agent(Agent::Away);
    let second = known(&name, &definition, &away);
    says(&second, Kind::Enforced, Holds::Unknown, "AgentAway", &["n2", "goes on"]);
    says(&second, Kind::LimitsEnforced, Holds::Unknown, "AgentAway", &["n2"]);
    assert!(away[1].enforces(), "what it enforced goes on");
}

#[test]
fn a_node_that_is_behind_or_refused_is_not_ready() {
    let (name, definition) = (name(), definition(ENFORCE));
    let pending = [NodeStanding { state: NodeState::Pending, ..node("n1") }];
    let first = known(&name, &definition, &pending);
    says(&first, Kind::Ready, Holds::False, "Progressing", &["n1", "not applied yet"]);
    says(&first, Kind::Enforced, Holds::False, "Degraded", &["n1"]);
    let refused = [NodeStanding { state: NodeState::Refused, ..degraded("n1", "ADDRESSES") }];
    let second = known(&name, &definition, &refused);
    says(&second, Kind::Ready, Holds::False, "Refused", &["n1: ADDRESSES: do this"]);
}

#[test]
fn an_invalid_object_says_what_is_wrong_and_what_stands() {
    let (name, definition, nodes) = (name(), definition(ENFORCE), [node("n1")]);
    let problem = |field: &str| Problem {
        place: None,
        object: String::new(),
        field: field.to_owned(),
        message: "is wrong".to_owned(),
    };
    let problems = [problem("spec.class"), problem("")];
    let held = Known { problems: &problems, ..known(&name, &definition, &nodes) };
    let parts = ["spec.class: is wrong; is wrong", "valid last stands"];
    says(&held, Kind::Ready, Holds::False, "Invalid", &parts);
    says(&held, Kind::Enforced, Holds::True, "Enforced", &[]);
    let never = Known { definition: None, ..held };
    says(&never, Kind::Ready, Holds::False, "Invalid", &["nothing of it is in effect"]);
    says(&never, Kind::Enforced, Holds::False, "Invalid", &[]);
    says(&never, Kind::LimitsEnforced, Holds::False, "Invalid", &[]);
    assert_eq!(ready(&problems, true).reason, "Invalid");
    assert_eq!((ready(&[], false).holds, ready(&[], false).reason), (Holds::True, "Valid"));
}

#[test]
fn both_are_told_of_pods_and_addresses_that_they_claim() {
    let (name, definition, nodes) = (name(), definition(ENFORCE), [node("n1")]);
    let other: VirtualClusterName = "team-b".parse().unwrap();
    let claim = |keeper: &VirtualClusterName, loser: &VirtualClusterName| {
        let (keeper, loser) = (keeper.clone(), loser.clone());
        Claim { namespace: "one".to_owned(), keeper, loser, extent: Extent::All }
    };
    let (won, lost) = ([claim(&name, &other)], [claim(&other, &name)]);
    let well = known(&name, &definition, &nodes);
    let keeper = Known { claims: &won, ..well };
    says(&keeper, Kind::Ready, Holds::True, "Contested", &["team-b", "namespace one", "older"]);
    let loser = Known { claims: &lost, ..well };
    says(&loser, Kind::Ready, Holds::False, "Conflict", &["team-b", "namespace one", "narrow"]);
    let block = |text: &str| text.parse().unwrap();
    let overlap = |keeper: &VirtualClusterName, loser: &VirtualClusterName| Overlap {
        keeper: keeper.clone(),
        kept: block("10.0.0.0/8"),
        loser: loser.clone(),
        lost: block("10.1.0.0/16"),
    };
    let (won, lost) = ([overlap(&name, &other)], [overlap(&other, &name)]);
    let keeper = Known { overlaps: &won, ..well };
    says(&keeper, Kind::Ready, Holds::True, "Contested", &["10.1.0.0/16", "10.0.0.0/8"]);
    let loser = Known { overlaps: &lost, ..well };
    says(&loser, Kind::Ready, Holds::False, "Conflict", &["10.1.0.0/16", "take it out"]);
}

#[test]
fn what_makes_the_boundary_weaker_is_listed() {
    let (name, definition) = (name(), definition(ENFORCE));
    let nodes = [
        NodeStanding { host_network_pods: 1, ..node("n1") },
        NodeStanding { without_nri: Some(Window::default()), ..node("n2") },
    ];
    let warnings = ["namespace x is left out; name it".to_owned()];
    let weak = Known { warnings: &warnings, ..known(&name, &definition, &nodes) };
    let parts = ["n1 (1 pods)", "n2", "preflight", "namespace x"];
    says(&weak, Kind::BoundaryWeak, Holds::True, "HostNetwork", &parts);
    let late = Known { nodes: &nodes[1..], ..weak };
    says(&late, Kind::BoundaryWeak, Holds::True, "NoNRI", &["n2 (none came so far)"]);
    for (nanoseconds, told) in
        [(1, "at most 1 ms"), (87_000_001, "at most 88 ms"), (1_234_567_890, "at most 1300 ms")]
    {
        let window = Window { longest_nanoseconds: Some(nanoseconds) };
        let nodes = [NodeStanding { without_nri: Some(window), ..node("n2") }];
        let late = Known { nodes: &nodes, ..weak };
        says(&late, Kind::BoundaryWeak, Holds::True, "NoNRI", &[told]);
    }
    let left_out = Known { nodes: &[], ..weak };
    says(&left_out, Kind::BoundaryWeak, Holds::True, "NamespaceLeftOut", &["namespace x"]);
}

#[test]
fn whether_pods_of_nobody_may_be_talked_with_is_told() {
    let (name, nodes) = (name(), [node("n1")]);
    let closed = definition("{network: {mode: Enforce, unknown: Deny}}");
    let told = of_virtual_cluster(&known(&name, &closed, &nodes));
    assert!(told.iter().all(|it| !it.message.contains("spec.network.unknown")), "{told:?}");
    let open = definition("{network: {mode: Enforce, unknown: Allow}}");
    let parts = ["is allowed (spec.network.unknown)"];
    says(&known(&name, &open, &nodes), Kind::BoundaryWeak, Holds::False, "NothingKnown", &parts);
}

#[test]
fn without_pods_nothing_is_claimed() {
    let (name, definition) = (name(), definition(ENFORCE));
    let none = Known { pods: 0, ..known(&name, &definition, &[]) };
    says(&none, Kind::Ready, Holds::True, "NoMembers", &["spec.members"]);
    says(&none, Kind::Enforced, Holds::Unknown, "NoPods", &[]);
    says(&none, Kind::LimitsEnforced, Holds::Unknown, "NoPods", &[]);
}

#[test]
fn a_message_stays_short_however_many_nodes_there_are() {
    let (name, definition) = (name(), definition(ENFORCE));
    let nodes: Vec<NodeStanding> =
        (0..10_000).map(|number| degraded(&format!("node-{number}"), "ADDRESSES")).collect();
    let known = known(&name, &definition, &nodes);
    says(&known, Kind::Enforced, Holds::False, "Degraded", &["node-0", "and 9995 more"]);
    for verdict in of_virtual_cluster(&known) {
        assert!(verdict.message.len() < 1_000, "{}", verdict.message.len());
    }
}

#[test]
fn only_a_change_of_status_is_a_transition() {
    let at = |text: &str| -> Time { serde_json::from_value(text.into()).unwrap() };
    let (then, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    let verdict =
        |holds, reason| Verdict { kind: Kind::Ready, holds, reason, message: "why".to_owned() };
    let first = merged([verdict(Holds::True, "Applied")], &[], Some(1), &then);
    let again = merged([verdict(Holds::True, "Contested")], &first, Some(2), &now);
    assert_eq!(again[0].last_transition_time, then);
    assert_eq!((again[0].reason.as_str(), again[0].observed_generation), ("Contested", Some(2)));
    let other = merged([verdict(Holds::False, "Refused")], &again, Some(2), &now);
    assert_eq!(other[0].last_transition_time, now);
    assert_eq!((other[0].type_.as_str(), other[0].status.as_str()), ("Ready", "False"));
}
