//! Which network plugins were seen, by what they leave in a cluster.

use std::collections::BTreeSet;

use super::{Level, Line, NodeFacts};

/// A plugin, how its workloads' names begin, and what its annotations of nodes begin with.
const KNOWN: [(&str, &[&str], &[&str]); 14] = [
    ("antrea", &["antrea-agent"], &["node.antrea.io/"]),
    ("aws-vpc", &["aws-node"], &[]),
    ("azure", &["azure-cni", "azure-cns"], &[]),
    ("calico", &["calico-node"], &["projectcalico.org/"]),
    ("canal", &["canal"], &[]),
    ("cilium", &["cilium"], &["network.cilium.io/", "io.cilium.network"]),
    ("flannel", &["kube-flannel"], &["flannel.alpha.coreos.com/"]),
    ("kindnet", &["kindnet"], &[]),
    ("kube-ovn", &["kube-ovn-cni"], &["ovn.kubernetes.io/"]),
    ("kube-router", &["kube-router"], &[]),
    ("multus", &["kube-multus", "multus"], &[]),
    ("ovn-kubernetes", &["ovnkube-node"], &["k8s.ovn.org/"]),
    ("weave", &["weave-net"], &[]),
    ("whereabouts", &["whereabouts"], &[]),
];

/// From names of workloads and annotations of nodes.
pub(super) fn line(nodes: &[NodeFacts], workloads: &BTreeSet<String>) -> Line {
    let annotations: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.annotations).collect();
    let seen: Vec<&str> = KNOWN
        .iter()
        .filter(|(_, names, marks)| {
            names.iter().any(|name| workloads.iter().any(|it| is_of(it, name)))
                || marks.iter().any(|mark| annotations.iter().any(|it| it.starts_with(mark)))
        })
        .map(|(plugin, ..)| *plugin)
        .collect();
    let has = |plugin| seen.contains(&plugin);
    let (level, means) = if has("cilium") {
        (
            Level::Note,
            "not tried with it: its own programs translate addresses of Services at the same \
             hooks, further up; try one node first",
        )
    } else if has("multus") || has("whereabouts") {
        (
            Level::Note,
            "addresses of second networks are known to nobody: traffic with them is judged as \
             inside the cluster's ranges or outside, not by whose they are",
        )
    } else if seen.is_empty() {
        (
            Level::Note,
            "none that is known here; the bridge plugin, which was tried, leaves no trace",
        )
    } else {
        (
            Level::Good,
            "expected to work: packets are judged at the pods' sockets, whatever carries them",
        )
    };
    Line {
        about: "cni",
        level,
        found: if seen.is_empty() { "none seen".to_owned() } else { seen.join(", ") },
        means: means.to_owned(),
        mend: None,
    }
}

/// Whether a workload is called so, or so with a part of its name behind.
fn is_of(workload: &str, name: &str) -> bool {
    workload.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
