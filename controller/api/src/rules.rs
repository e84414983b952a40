//! Rules that hold between fields: each is told to the API server as a CEL expression, and is
//! checked by the controller too, with the same message, because API servers before 1.25 drop
//! such expressions and files have no API server ([`crate::validate`]).

use serde_json::{Value, json};

/// A rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// In CEL, over the object that it stands at.
    pub(crate) cel: &'static str,
    /// What is said where it does not hold.
    pub(crate) message: &'static str,
}

/// Every rule.
#[cfg(test)]
pub(crate) const ALL: [Rule; 9] = [
    NAME_OF_VIRTUAL_CLUSTER,
    ALLOWS_ANOTHER,
    ONE_CONFIG,
    POD_SELECTOR_NARROWS,
    NAMESPACE_SELECTOR_SELECTS,
    PRESET_NEEDS_NAMESPACE,
    PRESET_HAS_NO_NAMESPACE,
    OPERATOR_AND_VALUES,
    IO_LIMITS_SOMETHING,
];

pub(crate) const NAME_OF_VIRTUAL_CLUSTER: Rule = Rule {
    cel: "size(self.metadata.name) <= 63 && \
          self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    message: "metadata.name has to be at most 63 letters, digits and \"-\", without dots",
};

pub(crate) const ALLOWS_ANOTHER: Rule = Rule {
    cel: "!has(self.spec) || !has(self.spec.network) || !has(self.spec.network.allow) || \
          self.spec.network.allow.all(other, other.virtualCluster != self.metadata.name)",
    message: "is the virtual cluster itself, which may always; remove it",
};

pub(crate) const ONE_CONFIG: Rule = Rule {
    cel: "self.metadata.name == 'default'",
    message: "there is one BulkheadConfig, and its name is \"default\"; \
              put its fields into that one",
};

pub(crate) const POD_SELECTOR_NARROWS: Rule = Rule {
    cel: "!has(self.podSelector) || has(self.namespaceSelector) || \
          (has(self.namespaces) && size(self.namespaces) > 0)",
    message: "podSelector narrows namespaces or namespaceSelector, and neither is there; name \
              the namespaces whose pods it is about",
};

pub(crate) const NAMESPACE_SELECTOR_SELECTS: Rule = Rule {
    cel: "!has(self.namespaceSelector) || \
          (has(self.namespaceSelector.matchLabels) && \
          size(self.namespaceSelector.matchLabels) > 0) || \
          (has(self.namespaceSelector.matchExpressions) && \
          size(self.namespaceSelector.matchExpressions) > 0)",
    message: "namespaceSelector is empty, which would be every namespace; write at least one \
              requirement",
};

// `namespace` is a reserved word of CEL; API servers want it written so.
pub(crate) const PRESET_NEEDS_NAMESPACE: Rule = Rule {
    cel: "!(self.kind in ['VCluster', 'K3k', 'ClusterApiNested']) || has(self.__namespace__)",
    message: "a preset VCluster, K3k or ClusterApiNested needs the namespace in which it was made",
};

pub(crate) const PRESET_HAS_NO_NAMESPACE: Rule = Rule {
    cel: "!(self.kind in ['Capsule', 'HNC']) || !has(self.__namespace__)",
    message: "a Capsule tenant or HNC tree is in no namespace; remove namespace",
};

pub(crate) const OPERATOR_AND_VALUES: Rule = Rule {
    cel: "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    message: "In and NotIn need values; Exists and DoesNotExist have none",
};

pub(crate) const IO_LIMITS_SOMETHING: Rule = Rule {
    cel: "has(self.readBytesPerSecond) || has(self.writeBytesPerSecond) || \
          has(self.readOperationsPerSecond) || has(self.writeOperationsPerSecond)",
    message: "limits nothing; set readBytesPerSecond or another rate",
};

/// As `x-kubernetes-validations` has them.
pub(crate) fn cel(rules: &[Rule]) -> Value {
    rules.iter().map(|Rule { cel, message }| json!({ "rule": cel, "message": message })).collect()
}

#[cfg(test)]
mod tests;
