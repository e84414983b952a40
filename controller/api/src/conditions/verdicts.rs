//! What each condition says.

use bulkhead_core::{NetworkMode, Unknown};

use super::{Agent, Holds, Kind, Known, NodeStanding, NodeState, Reason, Verdict, Window};
use crate::catalogue::{Definition, Overlap};
use crate::membership::{Claim, Extent};
use crate::problem::Problem;

/// How many nodes, problems or claims one message names.
const NAMED: usize = 5;

/// Every condition of a virtual cluster.
pub fn of_virtual_cluster(known: &Known<'_>) -> [Verdict; 4] {
    [ready_of(known), enforced(known), limits_enforced(known), boundary_weak(known)]
}

/// Whether a class or the configuration is in effect.
pub fn ready(problems: &[Problem], an_older_form_stands: bool) -> Verdict {
    match invalid(problems, an_older_form_stands) {
        Some(verdict) => verdict,
        None => verdict(Kind::Ready, Holds::True, "Valid", "it is in effect"),
    }
}

fn verdict(kind: Kind, holds: Holds, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { kind, holds, reason, message: message.into() }
}

fn invalid(problems: &[Problem], an_older_form_stands: bool) -> Option<Verdict> {
    if problems.is_empty() {
        return None;
    }
    let stands = if an_older_form_stands {
        "the form that was valid last stands"
    } else {
        "nothing of it is in effect"
    };
    let wrong = problems.iter().map(|problem| match problem.field.as_str() {
        "" => problem.message.clone(),
        field => format!("{field}: {}", problem.message),
    });
    let message = format!("{}; {stands}", listed(wrong));
    Some(verdict(Kind::Ready, Holds::False, "Invalid", message))
}

fn ready_of(known: &Known<'_>) -> Verdict {
    const KIND: Kind = Kind::Ready;
    if let Some(invalid) = invalid(known.problems, known.definition.is_some()) {
        return invalid;
    }
    let lost: Vec<String> = lost(known);
    if !lost.is_empty() {
        return verdict(KIND, Holds::False, "Conflict", listed(lost));
    }
    let refused = nodes(known, |node| node.state == NodeState::Refused);
    if !refused.is_empty() {
        let why = refused.iter().map(|node| told(node, |_| true));
        let message = format!("refused, so that what was before stands: {}", listed(why));
        return verdict(KIND, Holds::False, "Refused", message);
    }
    let behind =
        nodes(known, |node| node.agent != Agent::Connected || node.state == NodeState::Pending);
    if !behind.is_empty() {
        let message = format!(
            "not on {} of {} nodes: {}",
            behind.len(),
            known.nodes.len(),
            listed(behind.iter().map(|node| behind_because(node)))
        );
        return verdict(KIND, Holds::False, "Progressing", message);
    }
    let kept = kept(known);
    if !kept.is_empty() {
        return verdict(KIND, Holds::True, "Contested", listed(kept));
    }
    if known.pods == 0 && known.definition.is_some_and(|it| it.addresses.is_empty()) {
        let message = "it has no pods; see spec.members if it should have some";
        return verdict(KIND, Holds::True, "NoMembers", message);
    }
    verdict(KIND, Holds::True, "Applied", "in effect on every node that has its pods")
}

/// What others have of what it claims.
fn lost(known: &Known<'_>) -> Vec<String> {
    let claims = known.claims.iter().filter(|claim| claim.loser == *known.name);
    let claims = claims.map(|Claim { namespace, keeper, extent, .. }| {
        let what = match extent {
            Extent::All => format!("all that it claims of namespace {namespace} belongs"),
            Extent::Some => format!("pods of namespace {namespace} that both claim belong"),
        };
        format!("{what} to {keeper}, which is older; narrow spec.members of either")
    });
    let overlaps = known.overlaps.iter().filter(|overlap| overlap.loser == *known.name);
    let overlaps = overlaps.map(|Overlap { keeper, kept, lost, .. }| {
        format!(
            "{lost} overlaps {kept} of {keeper}, which is older; take it out of \
             spec.members.addresses of either"
        )
    });
    claims.chain(overlaps).collect()
}

/// What it has and others claim.
fn kept(known: &Known<'_>) -> Vec<String> {
    let claims = known.claims.iter().filter(|claim| claim.keeper == *known.name);
    let claims = claims.map(|Claim { namespace, loser, .. }| {
        format!(
            "{loser} claims pods of namespace {namespace}, too; they stay here, because this is \
             older; narrow spec.members of either"
        )
    });
    let overlaps = known.overlaps.iter().filter(|overlap| overlap.keeper == *known.name);
    let overlaps = overlaps.map(|Overlap { kept, loser, lost, .. }| {
        format!("{loser} names {lost}, which overlaps {kept}; it stays here, because this is older")
    });
    claims.chain(overlaps).collect()
}

fn enforced(known: &Known<'_>) -> Verdict {
    const KIND: Kind = Kind::Enforced;
    let Some(definition) = known.definition else {
        return verdict(KIND, Holds::False, "Invalid", "no valid form of it ever was; see Ready");
    };
    match definition.network.mode {
        NetworkMode::Off => {
            let message = "spec.network.mode is Off: nothing is judged; set Observe to see what \
                           Enforce would refuse";
            return verdict(KIND, Holds::False, "Off", message);
        }
        NetworkMode::Observe => {
            let message = format!(
                "spec.network.mode is Observe: everything passes, and what Enforce would refuse \
                 is counted; `bulkheadctl enforce {}` shows what that is",
                known.name
            );
            return verdict(KIND, Holds::False, "Observing", message);
        }
        NetworkMode::Enforce => {}
    }
    if known.nodes.is_empty() {
        let message = "it has pods on no node, so there is nothing to enforce yet";
        return verdict(KIND, Holds::Unknown, "NoPods", message);
    }
    let missing = nodes(known, |node| node.agent == Agent::Missing);
    if !missing.is_empty() {
        let names = listed(missing.iter().map(|node| node.name.clone()));
        let message = format!(
            "no agent was ever heard of on {names}: its pods there are not held; see the pods of \
             the bulkhead-agent DaemonSet on them"
        );
        return verdict(KIND, Holds::False, "AgentMissing", message);
    }
    let not = nodes(known, |node| !enforces(node));
    if !not.is_empty() {
        let message = listed(not.iter().map(|node| told(node, |it| !it.is_of_limits())));
        return verdict(KIND, Holds::False, "Degraded", message);
    }
    let away = nodes(known, |node| node.agent == Agent::Away);
    if !away.is_empty() {
        let names = listed(away.iter().map(|node| node.name.clone()));
        let message = format!(
            "the agents of {names} are away: what they enforced last goes on, and nothing newer \
             is known; see their logs"
        );
        return verdict(KIND, Holds::Unknown, "AgentAway", message);
    }
    let count = known.nodes.len();
    verdict(KIND, Holds::True, "Enforced", format!("on all {count} nodes that have its pods"))
}

/// Whether everything that was asked of the network stood there, when the node was last heard of.
pub(super) fn enforces(node: &NodeStanding) -> bool {
    let network = |reasons: &[Reason]| reasons.iter().any(|it| !it.is_of_limits());
    match node.state {
        NodeState::Applied => node.agent != Agent::Missing,
        NodeState::Degraded => node.agent != Agent::Missing && !network(&node.reasons),
        NodeState::Refused | NodeState::Pending => false,
    }
}

fn limits_enforced(known: &Known<'_>) -> Verdict {
    const KIND: Kind = Kind::LimitsEnforced;
    let Some(definition) = known.definition else {
        return verdict(KIND, Holds::False, "Invalid", "no valid form of it ever was; see Ready");
    };
    if !asks_for_limits(definition) {
        let message = "spec.perNode asks for no guarantee and no limit";
        return verdict(KIND, Holds::True, "NoLimits", message);
    }
    let overlay = nodes(known, |node| node.overlay_pods > 0);
    if !overlay.is_empty() {
        let message = format!(
            "pods stay in the kubelet's own cgroups (overlay), where guarantees and limits of the \
             virtual cluster as a whole do not bind; what each pod asks for itself does. On {}",
            listed(
                overlay.iter().map(|node| format!("{} ({} pods)", node.name, node.overlay_pods))
            )
        );
        return verdict(KIND, Holds::False, "Overlay", message);
    }
    if known.nodes.is_empty() {
        let message = "it has pods on no node, so there is nothing to limit yet";
        return verdict(KIND, Holds::Unknown, "NoPods", message);
    }
    let not = nodes(known, |node| {
        !matches!(node.state, NodeState::Applied) && !only_network_is_wrong(node)
    });
    if !not.is_empty() {
        let message = listed(not.iter().map(|node| told(node, Reason::is_of_limits)));
        return verdict(KIND, Holds::False, "Degraded", message);
    }
    let unheard = nodes(known, |node| node.agent != Agent::Connected);
    if !unheard.is_empty() {
        let message = listed(unheard.iter().map(|node| behind_because(node)));
        return verdict(KIND, Holds::Unknown, "AgentAway", message);
    }
    verdict(KIND, Holds::True, "Enforced", "on every node that has its pods")
}

fn only_network_is_wrong(node: &NodeStanding) -> bool {
    node.state == NodeState::Degraded && !node.reasons.iter().any(Reason::is_of_limits)
}

fn asks_for_limits(definition: &Definition) -> bool {
    definition.limit != bulkhead_core::Limit::default()
        || definition.guarantee != bulkhead_core::Guarantee::default()
}

fn boundary_weak(known: &Known<'_>) -> Verdict {
    const KIND: Kind = Kind::BoundaryWeak;
    let mut weak: Vec<(&'static str, String)> = Vec::new();
    let host = nodes(known, |node| node.host_network_pods > 0);
    if !host.is_empty() {
        let names = listed(
            host.iter().map(|node| format!("{} ({} pods)", node.name, node.host_network_pods)),
        );
        weak.push((
            "HostNetwork",
            format!(
                "pods use the network of their node, so they can be reached by its addresses, \
                 which always pass, and by anything in it: {names}; remove hostNetwork from them"
            ),
        ));
    }
    let late = known.nodes.iter().filter_map(|node| Some(window(node, node.without_nri?)));
    let late: Vec<String> = late.collect();
    if !late.is_empty() {
        let names = listed(late);
        weak.push((
            "NoNRI",
            format!(
                "without NRI a pod can send before it is known, from when its cgroup is there until \
                 the controller has told the node whose it is: {names}; turn NRI on in the runtime \
                 (`bulkheadctl preflight` says how)"
            ),
        ));
    }
    if !known.warnings.is_empty() {
        weak.push(("NamespaceLeftOut", listed(known.warnings.iter().cloned())));
    }
    let Some((reason, _)) = weak.first() else {
        let message = match known.definition.map(|it| it.network.unknown) {
            Some(Unknown::Allow) => {
                "nothing is known that makes it weaker than its mode; traffic with pods of no \
                 virtual cluster is allowed (spec.network.unknown)"
            }
            _ => "nothing is known that makes it weaker than its mode",
        };
        return verdict(KIND, Holds::False, "NothingKnown", message);
    };
    let messages: Vec<&str> = weak.iter().map(|(_, message)| message.as_str()).collect();
    verdict(KIND, Holds::True, reason, messages.join(". "))
}

/// A node without NRI, and how long a pod waited there.
fn window(node: &NodeStanding, window: Window) -> String {
    match window.longest_nanoseconds {
        Some(longest) => format!("{} (at most {} ms so far)", node.name, rounded(longest)),
        None => format!("{} (none came so far)", node.name),
    }
}

/// Milliseconds, up to the next of two digits and noughts: who reads it needs no more, and a status
/// is not written anew for each pod.
fn rounded(nanoseconds: u64) -> u64 {
    let milliseconds = nanoseconds.div_ceil(1_000_000).max(1);
    let step = 10_u64.pow(milliseconds.ilog10().saturating_sub(1));
    milliseconds.div_ceil(step) * step
}

fn nodes<'a>(known: &Known<'a>, which: impl Fn(&NodeStanding) -> bool) -> Vec<&'a NodeStanding> {
    known.nodes.iter().filter(|node| which(node)).collect()
}

/// A node and why something does not stand there.
fn told(node: &NodeStanding, which: impl Fn(&Reason) -> bool) -> String {
    let reasons = node.reasons.iter().filter(|reason| which(reason));
    let reasons: Vec<String> =
        reasons.map(|Reason { subject, message }| format!("{subject}: {message}")).collect();
    if reasons.is_empty() {
        return behind_because(node);
    }
    format!("{}: {}", node.name, reasons.join(", "))
}

fn behind_because(node: &NodeStanding) -> String {
    let why = match (node.agent, node.state) {
        (Agent::Missing, _) => "no agent was ever heard of; see the bulkhead-agent DaemonSet there",
        (Agent::Away, _) => "its agent is away, and what it enforced last goes on; see its log",
        (Agent::Connected, NodeState::Pending) => "not applied yet; it should be within seconds",
        (Agent::Connected, _) => "its agent gave no reason; see its log",
    };
    format!("{}: {why}", node.name)
}

/// The first few, and how many more there are.
fn listed(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    let shown = items.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    match items.len().checked_sub(NAMED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}; and {more} more"),
    }
}
