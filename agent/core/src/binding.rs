//! Which pods belong to which virtual cluster, and how a node treats those that it does not know.
//!
//! The table comes from the controller, whole, and is made of nothing but what operators wrote:
//! a label can narrow a binding inside the namespaces that the operator named, and never widen
//! it. Selectors are those of Kubernetes
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).

use std::collections::{BTreeMap, BTreeSet};

use crate::name::VirtualClusterName;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// One requirement of a label selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Requirement {
    /// The label is there and has one of these values.
    In {
        /// The label.
        key: String,
        /// The values.
        values: BTreeSet<String>,
    },
    /// The label is not there, or has none of these values.
    NotIn {
        /// The label.
        key: String,
        /// The values.
        values: BTreeSet<String>,
    },
    /// The label is there.
    Exists {
        /// The label.
        key: String,
    },
    /// The label is not there.
    DoesNotExist {
        /// The label.
        key: String,
    },
}

impl Requirement {
    /// Whether these labels are as required.
    pub fn holds(&self, labels: &Labels) -> bool {
        let is_one_of = |key: &String, values: &BTreeSet<String>| {
            labels.get(key).is_some_and(|value| values.contains(value))
        };
        match self {
            Self::In { key, values } => is_one_of(key, values),
            Self::NotIn { key, values } => !is_one_of(key, values),
            Self::Exists { key } => labels.contains_key(key),
            Self::DoesNotExist { key } => !labels.contains_key(key),
        }
    }
}

/// A label selector: every requirement holds. Empty: everything is selected.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector(pub BTreeSet<Requirement>);

impl Selector {
    /// Whether it selects an object with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

/// Pods of one namespace that belong to a virtual cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Binding {
    /// Whose they are.
    pub virtual_cluster: VirtualClusterName,
    /// Which of the namespace's pods.
    pub selector: Selector,
}

/// All bindings by namespace. Within a namespace the first that selects a pod decides: the
/// controller puts the older object first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bindings(pub BTreeMap<String, Vec<Binding>>);

impl Bindings {
    /// Whose a pod is; `None`: of no virtual cluster.
    pub fn owner<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Labels,
    ) -> Option<&'a VirtualClusterName> {
        self.claims(namespace, labels).next()
    }

    /// Everyone who claims a pod, the owner first.
    pub fn claims<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a VirtualClusterName> {
        let bindings = self.0.get(namespace).map_or(&[][..], Vec::as_slice);
        let selecting = bindings.iter().filter(|binding| binding.selector.selects(labels));
        selecting.map(|binding| &binding.virtual_cluster)
    }
}

/// What becomes of pods of no virtual cluster: of themselves on a node, and of a virtual cluster's
/// traffic with them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Unknown {
    /// They are left alone; the traffic passes.
    #[default]
    Allow,
    /// They are cut off, but static, kube-system and critical pods; the traffic is refused.
    Deny,
}

/// What happens with addresses that the controller never told of, while it is away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum OnStale {
    /// They pass, and are counted.
    #[default]
    AllowCounted,
    /// They are refused.
    Deny,
}

/// How a node treats what it does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodePolicy {
    /// Pods of no virtual cluster.
    pub unknown: Unknown,
    /// New addresses while the controller is away.
    pub on_stale: OnStale,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn is_in(key: &str, values: &[&str]) -> Requirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Requirement::In { key: key.to_owned(), values }
    }

    fn binding(name: &str, requirements: &[Requirement]) -> Binding {
        Binding {
            virtual_cluster: name.parse().unwrap(),
            selector: Selector(requirements.iter().cloned().collect()),
        }
    }

    #[test]
    fn requirements_hold_as_those_of_kubernetes_do() {
        let values = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let key = "tier".to_owned();
        let not_in = Requirement::NotIn { key: key.clone(), values: values.clone() };
        let exists = Requirement::Exists { key: key.clone() };
        let absent = Requirement::DoesNotExist { key: key.clone() };
        let within = Requirement::In { key, values };
        for (pairs, expected) in [
            (&[][..], [false, true, false, true]),
            (&[("tier", "a")][..], [true, false, true, false]),
            (&[("tier", "c")][..], [false, true, true, false]),
            (&[("other", "a")][..], [false, true, false, true]),
        ] {
            let labels = labels(pairs);
            let held = [&within, &not_in, &exists, &absent].map(|it| it.holds(&labels));
            assert_eq!(held, expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_first_binding_that_selects_a_pod_decides() {
        let bindings = Bindings(BTreeMap::from([(
            "host".to_owned(),
            vec![binding("older", &[is_in("managed-by", &["a"])]), binding("younger", &[])],
        )]));
        let of_a = labels(&[("managed-by", "a")]);
        let owner = |namespace: &str, labels: &Labels| {
            bindings.owner(namespace, labels).map(|name| name.as_str().to_owned())
        };
        assert_eq!(owner("host", &of_a).as_deref(), Some("older"));
        assert_eq!(owner("host", &labels(&[])).as_deref(), Some("younger"));
        assert_eq!(owner("elsewhere", &of_a), None);
        let claims: Vec<&str> =
            bindings.claims("host", &of_a).map(VirtualClusterName::as_str).collect();
        assert_eq!(claims, ["older", "younger"]);
    }

    #[test]
    fn no_label_brings_a_pod_into_a_namespace_that_was_not_named() {
        let bindings = Bindings(BTreeMap::from([("a".to_owned(), vec![binding("team", &[])])]));
        for forged in ["namespace", "kubernetes.io/metadata.name", "bulkhead.io/virtual-cluster"] {
            assert_eq!(bindings.owner("b", &labels(&[(forged, "a")])), None, "{forged}");
            assert_eq!(bindings.owner("b", &labels(&[(forged, "team")])), None, "{forged}");
        }
    }
}
