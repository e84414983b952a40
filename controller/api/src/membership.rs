//! Which pods belong to which virtual cluster: decided by what operators wrote, and by nothing
//! that a tenant can write.
//!
//! A virtual cluster claims pods namespace by namespace, as [`Rules`] say. A pod's labels narrow
//! a claim inside of namespaces that the operator named, or that only the host's own programs can
//! have marked; they never widen it. Where two claim one pod, the older object has it.

mod claims;
mod namespace;
pub(crate) mod presets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{Binding, Bindings, Selector, VirtualClusterName};

use crate::catalogue::{Age, Definition};
use crate::convert::Result;
use crate::object::{self, PresetKind};
use crate::validate;

pub use claims::{Claim, Extent};
pub use namespace::Namespace;
pub use presets::Preset;

/// Namespaces of the cluster itself: only their names select them, never labels.
pub const OWN_NAMESPACES: [&str; 3] = ["kube-node-lease", "kube-public", "kube-system"];

/// Which pods are members of a virtual cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
    pods: Selector,
    preset: Option<Preset>,
}

impl Rules {
    /// From members that [`validate::members`] found nothing wrong with.
    pub(crate) fn of(members: &object::Members) -> Result<Self> {
        let selector = |field, given: &Option<object::LabelSelector>| {
            given.as_ref().map(|given| validate::selector(field, given)).transpose()
        };
        let namespaces = &members.namespace_selector;
        Ok(Self {
            namespaces: members.namespaces.iter().cloned().collect(),
            namespace_selector: selector("spec.members.namespaceSelector", namespaces)?,
            pods: selector("spec.members.podSelector", &members.pod_selector)?.unwrap_or_default(),
            preset: members.preset.as_ref().map(Preset::of),
        })
    }

    /// Whether it names a namespace.
    pub fn names(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// Whether it can have no pods.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.namespace_selector.is_none() && self.preset.is_none()
    }

    /// Namespaces that it has something to do with whatever their labels are, and before they
    /// are there.
    fn named(&self) -> impl Iterator<Item = &str> {
        let preset = self.preset.as_ref().and_then(Preset::namespace);
        self.namespaces.iter().map(String::as_str).chain(preset)
    }

    /// Whether other namespaces can be its own by what they are marked with.
    const fn searches(&self) -> bool {
        self.namespace_selector.is_some() || self.preset.is_some()
    }

    /// Which pods of a namespace it claims: those that any of these selects.
    pub fn claims(&self, namespace: &Namespace) -> Vec<Selector> {
        let mut claims = Vec::new();
        if self.names(&namespace.name) || matches!(self.found(namespace), Some(Ok(()))) {
            claims.push(self.pods.clone());
        }
        claims.extend(self.preset.iter().flat_map(|preset| preset.claims(namespace)));
        match claims.iter().position(|claim| claim.0.is_empty()) {
            Some(whole) => vec![claims.swap_remove(whole)],
            None => claims,
        }
    }

    /// Whether the namespace selector selects a namespace; `Err`: its labels would, and they are
    /// not to be believed, because of this.
    fn found(&self, namespace: &Namespace) -> Option<std::result::Result<(), &'static str>> {
        let selector = self.namespace_selector.as_ref()?;
        if OWN_NAMESPACES.contains(&namespace.name.as_str()) || !selector.selects(&namespace.labels)
        {
            return None;
        }
        Some(namespace.labels_of_a_tenant().map_or(Ok(()), Err))
    }
}

/// Everyone who claims pods, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Memberships<'a> {
    claimants: Vec<(&'a Age, &'a VirtualClusterName, &'a Rules)>,
    by_name: BTreeMap<&'a str, Vec<usize>>,
    searching: Vec<usize>,
}

/// What becomes of one namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bound {
    /// In the order in which they decide.
    pub bindings: Vec<Binding>,
    /// Pods that two claim.
    pub claims: Vec<Claim>,
    /// Virtual clusters whose namespace selector selects it by labels that a tenant may have
    /// written, so that it is not theirs, and why.
    pub refused: Vec<(VirtualClusterName, &'static str)>,
}

/// What becomes of all namespaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// The table for agents.
    pub bindings: Bindings,
    /// Pods that two claim, by namespace, the keepers' age and the losers'.
    pub claims: Vec<Claim>,
    /// What operators should know of a virtual cluster, with what would mend it.
    pub warnings: Vec<(VirtualClusterName, String)>,
}

impl<'a> Memberships<'a> {
    /// Of these virtual clusters, in any order.
    pub fn new(definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let claimants = definitions.into_iter().filter(|it| !it.members.is_empty());
        let mut claimants: Vec<_> = claimants.map(|it| (&it.age, &it.name, &it.members)).collect();
        claimants.sort_by_key(|(age, name, _)| (*age, *name));
        let (mut by_name, mut searching) = (BTreeMap::<_, Vec<usize>>::new(), Vec::new());
        for (index, (.., rules)) in claimants.iter().enumerate() {
            for namespace in rules.named() {
                let known = by_name.entry(namespace).or_default();
                if known.last() != Some(&index) {
                    known.push(index);
                }
            }
            searching.extend(rules.searches().then_some(index));
        }
        Self { claimants, by_name, searching }
    }

    /// Namespaces that have bindings whether or not they are there yet.
    pub fn named(&self) -> impl Iterator<Item = &'a str> {
        self.by_name.keys().copied()
    }

    /// What becomes of one namespace. It depends on nothing but the virtual clusters and this
    /// namespace.
    pub fn of(&self, namespace: &Namespace) -> Bound {
        let named = self.by_name.get(namespace.name.as_str()).map_or(&[][..], Vec::as_slice);
        let candidates: BTreeSet<usize> = named.iter().chain(&self.searching).copied().collect();
        let mut bound = Bound::default();
        for index in candidates {
            let (_, name, rules) = self.claimants[index];
            let claims = rules.claims(namespace);
            if let (true, Some(Err(why))) = (claims.is_empty(), rules.found(namespace)) {
                bound.refused.push((name.clone(), why));
            }
            claims::take(&mut bound, &namespace.name, name, claims);
        }
        bound
    }

    /// What becomes of all namespaces.
    pub fn all<'n>(&self, namespaces: impl IntoIterator<Item = &'n Namespace>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut absent: BTreeSet<&str> = self.named().collect();
        let mut bounds = BTreeMap::new();
        for namespace in namespaces {
            absent.remove(namespace.name.as_str());
            bounds.insert(namespace.name.clone(), self.of(namespace));
        }
        for name in absent {
            bounds.insert(name.to_owned(), self.of(&Namespace::named(name)));
        }
        for (name, Bound { bindings, claims, refused }) in bounds {
            outcome.claims.extend(claims);
            outcome.warnings.extend(refused.into_iter().map(|(whose, why)| {
                let message = format!(
                    "namespaceSelector selects namespace {name}, whose labels {why}, so it is \
                     left out; name it in namespaces, or use a preset"
                );
                (whose, message)
            }));
            if !bindings.is_empty() {
                outcome.bindings.0.insert(name, bindings);
            }
        }
        outcome
    }
}

impl Preset {
    fn of(preset: &object::Preset) -> Self {
        let namespace = preset.namespace.clone().unwrap_or_default();
        let name = preset.name.clone();
        match preset.kind {
            PresetKind::VCluster => Self::VCluster { namespace, name },
            PresetKind::K3k => Self::K3k { namespace, name },
            PresetKind::ClusterApiNested => Self::ClusterApiNested { namespace, name },
            PresetKind::Capsule => Self::Capsule { tenant: name },
            PresetKind::Hnc => Self::Hnc { root: name },
        }
    }
}
