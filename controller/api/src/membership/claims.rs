//! Pods that two virtual clusters claim.

use bulkhead_core::{Binding, Requirement, Selector, VirtualClusterName};

use super::Bound;

/// Pods of a namespace that two virtual clusters claim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claim {
    /// The namespace.
    pub namespace: String,
    /// Who has them: the older object.
    pub keeper: VirtualClusterName,
    /// Who claims them, too.
    pub loser: VirtualClusterName,
    /// How many of them.
    pub extent: Extent,
}

/// How much of what the loser claims the keeper has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Extent {
    /// Pods that both select, if there are any; the others are the loser's.
    Some,
    /// Everything.
    All,
}

/// Takes in what a virtual cluster claims of a namespace, after those that are older.
pub(super) fn take(
    bound: &mut Bound,
    namespace: &str,
    name: &VirtualClusterName,
    selectors: Vec<Selector>,
) {
    let older = bound.bindings.len();
    let mut keepers: Vec<VirtualClusterName> = Vec::new();
    let mut any_is_left = false;
    for selector in selectors {
        let mut is_left = true;
        for binding in &bound.bindings[..older] {
            let Some(extent) = overlap(&binding.selector, &selector) else { continue };
            is_left &= extent == Extent::Some;
            if !keepers.contains(&binding.virtual_cluster) {
                keepers.push(binding.virtual_cluster.clone());
            }
        }
        any_is_left |= is_left;
        if is_left {
            bound.bindings.push(Binding { virtual_cluster: name.clone(), selector });
        }
    }
    let extent = if any_is_left { Extent::Some } else { Extent::All };
    bound.claims.extend(keepers.into_iter().map(|keeper| Claim {
        namespace: namespace.to_owned(),
        keeper,
        loser: name.clone(),
        extent,
    }));
}

/// How much of what `younger` selects `older` selects, too; `None`: certainly nothing.
fn overlap(older: &Selector, younger: &Selector) -> Option<Extent> {
    if older.0.is_subset(&younger.0) {
        return Some(Extent::All);
    }
    let apart = older.0.iter().any(|one| younger.0.iter().any(|other| exclude(one, other)));
    (!apart).then_some(Extent::Some)
}

/// Whether no labels meet both requirements.
fn exclude(one: &Requirement, other: &Requirement) -> bool {
    use Requirement::{DoesNotExist, Exists, In, NotIn};
    match (one, other) {
        (In { key: a, values: one }, In { key: b, values: other }) => {
            a == b && one.is_disjoint(other)
        }
        (In { key: a, values }, NotIn { key: b, values: none })
        | (NotIn { key: a, values: none }, In { key: b, values }) => {
            a == b && values.is_subset(none)
        }
        (In { key: a, .. } | Exists { key: a }, DoesNotExist { key: b })
        | (DoesNotExist { key: a }, In { key: b, .. } | Exists { key: b }) => a == b,
        _ => false,
    }
}
