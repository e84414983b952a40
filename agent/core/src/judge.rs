//! What an operator must know: how the node does by each virtual cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Degradation, Desired};
use crate::name::VirtualClusterName;
use crate::plan::Plan;
use crate::step::Step;

/// How the node does by one virtual cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Everything that was asked for stands.
    Applied,
    /// Something that was asked for is not enforced.
    Degraded(Vec<Degradation>),
    /// The newest specification was refused whole; the one before it stands.
    Refused(Vec<Degradation>),
    /// Not yet applied.
    Pending,
}

/// How the last attempt to reach the wish ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// The node is as wanted.
    Reached,
    /// The wish was refused whole before anything was changed.
    Refused(Degradation),
    /// Steps failed; the next cycle tries again.
    Failed(Vec<Failure>),
}

/// A step that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Whose step, where it was about one.
    pub subject: Option<VirtualClusterName>,
    /// What failed.
    pub failure: Degradation,
}

/// Decides the state of every virtual cluster that is wanted.
pub fn judge(desired: &Desired, attempt: &Attempt) -> BTreeMap<VirtualClusterName, State> {
    let state = |name: &VirtualClusterName| {
        // What failed comes before what this node cannot do anyway.
        let mut reasons = Vec::new();
        match attempt {
            Attempt::Refused(reason) => return State::Refused(vec![reason.clone()]),
            Attempt::Failed(failures) => {
                let own = |failure: &&Failure| {
                    failure.subject.as_ref().is_none_or(|subject| subject == name)
                };
                reasons.extend(failures.iter().filter(own).map(|failed| failed.failure.clone()));
            }
            Attempt::Reached => {}
        }
        reasons.extend(desired.degraded.get(name).into_iter().flatten().cloned());
        if reasons.is_empty() { State::Applied } else { State::Degraded(reasons) }
    };
    desired.network.members.keys().map(|name| (name.clone(), state(name))).collect()
}

/// Counts, by virtual cluster, the steps of a plan that only somebody else's change can have
/// made necessary: the wish is the one that was reached before. `None`: about no single one.
pub fn mended(plan: &Plan, wish_is_as_before: bool) -> BTreeMap<Option<VirtualClusterName>, u64> {
    let mut counts = BTreeMap::new();
    if wish_is_as_before {
        // A pod whose cgroup has come since is nobody's doing.
        let new = plan.steps.iter().filter_map(|step| match step {
            Step::CreatePodCounters { pod, .. } => Some(pod.id),
            _ => None,
        });
        let new: BTreeSet<_> = new.collect();
        for step in &plan.steps {
            let follows = match step {
                Step::EndConnections { .. } | Step::EndPodConnections { .. } => true,
                Step::CreatePodCounters { pod, .. } | Step::SetPodMember { pod, .. } => {
                    new.contains(&pod.id)
                }
                step => step.ends_counters(),
            };
            if !follows {
                *counts.entry(step.subject().cloned()).or_insert(0) += 1;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{compiled, node, snapshot, virtual_cluster};
    use crate::observed::{Capacities, Observed};
    use crate::plan::plan;

    fn reason(subject: &str) -> Degradation {
        Degradation { subject: subject.to_owned(), message: "why".to_owned() }
    }

    fn two() -> Desired {
        let clusters = vec![virtual_cluster("a", 1, &[]), virtual_cluster("b", 2, &[])];
        let mut desired = compiled(snapshot(clusters), &node());
        desired.degraded.insert("b".parse().unwrap(), vec![reason("memory.max")]);
        desired
    }

    fn states(attempt: &Attempt) -> Vec<State> {
        judge(&two(), attempt).into_values().collect()
    }

    #[test]
    fn a_failure_is_told_where_it_belongs() {
        let degraded = State::Degraded(vec![reason("memory.max")]);
        assert_eq!(states(&Attempt::Reached), [State::Applied, degraded.clone()]);
        let failed = |subject| {
            let failure = reason("cpu.max");
            Attempt::Failed(vec![Failure { subject, failure }])
        };
        let hit = State::Degraded(vec![reason("cpu.max")]);
        let both = State::Degraded(vec![reason("cpu.max"), reason("memory.max")]);
        assert_eq!(states(&failed(Some("a".parse().unwrap()))), [hit.clone(), degraded]);
        assert_eq!(states(&failed(None)), [hit, both]);
        let refused = State::Refused(vec![reason("ADDRESSES")]);
        let attempt = Attempt::Refused(reason("ADDRESSES"));
        assert_eq!(states(&attempt), [refused.clone(), refused]);
    }

    #[test]
    fn only_steps_under_an_unchanged_wish_are_mending() {
        let steps = plan(&two(), &Observed::default(), Capacities::default()).unwrap();
        assert!(mended(&steps, false).is_empty());
        let counts = mended(&steps, true);
        assert!(counts[&Some("a".parse().unwrap())] >= 3);
        assert!(counts[&None] >= 2, "tables and programs: {counts:?}");
    }
}
