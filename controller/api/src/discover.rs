//! Virtual clusters of other projects that run in a cluster, as objects to be created: they
//! measure and observe, and change nothing.

mod find;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::Labels;

use crate::convert;
use crate::membership::Namespace;
use crate::object::{
    Members, Mode, Network, Preset, PresetKind, VirtualCluster, VirtualClusterSpec,
};
use crate::validate::is_dns_label;

/// What runs in the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// Its namespaces.
    pub namespaces: &'a [Namespace],
    /// Its pods, and what makes them.
    pub workloads: &'a [Workload],
    /// Virtual clusters that are described already.
    pub described: &'a [VirtualCluster],
}

/// A pod, or what makes pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its kind: "Pod", "Deployment" …
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// An object to be created.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposal {
    /// How it was found.
    pub found: String,
    /// The object.
    pub object: VirtualCluster,
}

/// Why proposals cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write VirtualCluster \"{name}\" as YAML")]
pub struct WriteError {
    /// The object.
    pub name: String,
    /// Why not.
    pub source: serde_saphyr::ser_error::Error,
}

/// One for each virtual cluster of another project that runs and is not described yet, by kind,
/// namespace and name.
pub fn discover(seen: &Seen<'_>) -> Vec<Proposal> {
    let described: BTreeSet<Key> = seen.described.iter().filter_map(described).collect();
    let found: BTreeMap<Key, String> =
        find::all(seen).into_iter().filter(|(key, _)| !described.contains(key)).collect();
    let mut taken: BTreeSet<String> =
        seen.described.iter().filter_map(|it| it.metadata.name.clone()).collect();
    // A name that two would have is nobody's: neither then depends on the other.
    let mut counts = BTreeMap::<&str, usize>::new();
    for key in found.keys() {
        *counts.entry(&key.name).or_default() += 1;
    }
    let mut proposals = Vec::new();
    for (key, how) in &found {
        let is_its_own = counts.get(key.name.as_str()) == Some(&1);
        let name = free_name(key, is_its_own, &taken);
        taken.insert(name.clone());
        proposals.push(Proposal { found: how.clone(), object: object(&name, key) });
    }
    proposals
}

/// As YAML documents, each with a comment that says how it was found.
pub fn to_yaml(proposals: &[Proposal]) -> Result<String, WriteError> {
    let mut text = String::new();
    for Proposal { found, object } in proposals {
        let yaml = serde_saphyr::to_string(object).map_err(|source| {
            let name = object.metadata.name.clone().unwrap_or_default();
            WriteError { name, source }
        })?;
        // Found by what is in the cluster: it must not end the comment.
        let found = found.replace(char::is_control, " ");
        text.extend(["---\n# ", &found, "\n", yaml.trim_end(), "\n"]);
    }
    Ok(text)
}

/// A virtual cluster of another project.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    kind: PresetKind,
    /// Empty where the kind has none.
    namespace: String,
    name: String,
}

/// What an object describes already.
fn described(object: &VirtualCluster) -> Option<Key> {
    let Preset { kind, namespace, name } = object.spec.members.as_ref()?.preset.clone()?;
    Some(Key { kind, namespace: namespace.unwrap_or_default(), name })
}

/// Its own name where that is free, else with its namespace or kind, else with a number.
fn free_name(key: &Key, is_its_own: bool, taken: &BTreeSet<String>) -> String {
    let longer = match key.namespace.as_str() {
        "" => format!("{}-{}", key.kind.name().to_ascii_lowercase(), key.name),
        namespace => format!("{namespace}-{}", key.name),
    };
    let is_free = |name: &String| is_dns_label(name) && !taken.contains(name);
    let short = is_its_own.then(|| key.name.clone());
    let numbered = (2_u32..).map(|number| {
        let end = format!("-{number}");
        let begin: String = longer.chars().take(convert::MAX_NAME - end.len()).collect();
        format!("{begin}{end}")
    });
    let mut names = short.into_iter().chain([longer.clone()]).chain(numbered);
    names.find(is_free).unwrap_or(longer)
}

fn object(name: &str, key: &Key) -> VirtualCluster {
    let Key { kind, namespace, name: preset } = key.clone();
    let preset =
        Preset { kind, namespace: Some(namespace).filter(|it| !it.is_empty()), name: preset };
    let members = Members { preset: Some(preset), ..Members::default() };
    let network = Network { mode: Some(Mode::Observe), ..Network::default() };
    let spec = VirtualClusterSpec {
        members: Some(members),
        network: Some(network),
        ..VirtualClusterSpec::default()
    };
    VirtualCluster::new(name, spec)
}
