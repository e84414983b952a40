//! What operators should know of the cluster: everything that status, Events and taints are made
//! of, as it is at one instant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_api::catalogue::{Overlap, Subject};
use bulkhead_api::membership::{Bound, Claim};
use bulkhead_api::object::{ObjectStatus, VirtualClusterStatus};
use bulkhead_api::{Definition, Problem, Standing};
use bulkhead_core::{NetworkMode, VirtualClusterName};
use kube::ResourceExt;

use super::index::{Index, Present};
use super::objects::Written;

/// An object, as far as its status needs it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Object<S> {
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) problems: Vec<Problem>,
    /// Its status as the API server has it.
    pub(crate) status: S,
}

/// A virtual cluster, as far as its status needs it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) object: Object<VirtualClusterStatus>,
    pub(crate) definition: Option<Definition>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) overlaps: Vec<Overlap>,
    /// Namespaces that are left out.
    pub(crate) left_out: Vec<String>,
    /// What else makes its boundary weak.
    pub(crate) weak: Vec<String>,
    pub(crate) namespaces: usize,
    pub(crate) pods: usize,
    pub(crate) nodes: BTreeMap<Arc<str>, Present>,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) clusters: BTreeMap<VirtualClusterName, Cluster>,
    pub(crate) others: BTreeMap<Subject, (Object<ObjectStatus>, bool)>,
    /// Nodes that wait for their agent, and their UIDs.
    pub(crate) waiting: Vec<(Arc<str>, String)>,
    /// What operators are told besides.
    pub(crate) warnings: Vec<String>,
}

impl Picture {
    /// As it is now. Costs as much as there are virtual clusters, nodes and pods.
    pub(crate) fn of(
        index: &Index,
        written: &Written,
        standing: &Standing,
        bounds: &BTreeMap<String, Bound>,
    ) -> Self {
        let mut clusters = clusters(written, standing);
        for (node, name, present) in index.presence() {
            if let Some(cluster) = clusters.get_mut(&**name) {
                cluster.nodes.insert(Arc::clone(node), present);
                cluster.pods += present.pods;
            }
        }
        // Pods that wait for a node are members, too.
        for (name, cluster) in &mut clusters {
            cluster.pods = index.counts(name).pods;
        }
        bound(&mut clusters, bounds, index);
        let waiting = index.nodes().filter(|node| node.waits_for_agent);
        let mut warnings = mixed(&mut clusters, index);
        warnings.extend(ranges(&mut clusters, index, standing));
        let pods = index.pods();
        tracing::debug!(pods, warnings = warnings.len(), "what operators should know");
        Self {
            clusters,
            others: others(written, standing),
            waiting: waiting.map(|node| (Arc::clone(&node.name), node.uid.clone())).collect(),
            warnings,
        }
    }
}

fn problems(standing: &Standing, subject: &Subject) -> Vec<Problem> {
    standing.problems.get(subject).cloned().unwrap_or_default()
}

fn clusters(written: &Written, standing: &Standing) -> BTreeMap<VirtualClusterName, Cluster> {
    let mut clusters = BTreeMap::new();
    for (name, object) in &written.now().virtual_clusters {
        // A name that is none gets no status: the schema refuses it in the first place.
        let Ok(parsed) = name.parse::<VirtualClusterName>() else {
            continue;
        };
        let of = |overlap: &&Overlap| overlap.keeper == parsed || overlap.loser == parsed;
        let cluster = Cluster {
            object: Object {
                uid: object.uid().unwrap_or_default(),
                generation: object.metadata.generation,
                problems: problems(standing, &Subject::VirtualCluster(name.clone())),
                status: written.of_clusters.get(name).cloned().unwrap_or_default(),
            },
            definition: standing.catalogue.virtual_clusters.get(&parsed).cloned(),
            overlaps: standing.overlaps.iter().filter(of).cloned().collect(),
            ..Cluster::default()
        };
        clusters.insert(parsed, cluster);
    }
    clusters
}

fn others(
    written: &Written,
    standing: &Standing,
) -> BTreeMap<Subject, (Object<ObjectStatus>, bool)> {
    let classes = written.now().classes.iter().map(|(name, object)| {
        let stands = standing.kept.classes.contains_key(name);
        (Subject::VirtualClusterClass(name.clone()), object.meta_of(), stands)
    });
    let configs = written.now().configs.iter().map(|(name, object)| {
        let stands = standing.kept.configs.contains_key(name);
        (Subject::BulkheadConfig(name.clone()), object.meta_of(), stands)
    });
    let object = |(subject, (uid, generation), stands): (Subject, (String, Option<i64>), bool)| {
        let object = Object {
            uid,
            generation,
            problems: problems(standing, &subject),
            status: written.of_others.get(&subject).cloned().unwrap_or_default(),
        };
        (subject, (object, stands))
    };
    classes.chain(configs).map(object).collect()
}

/// UID and generation of an object.
trait MetaOf {
    fn meta_of(&self) -> (String, Option<i64>);
}

impl<K: ResourceExt> MetaOf for K {
    fn meta_of(&self) -> (String, Option<i64>) {
        (self.uid().unwrap_or_default(), self.meta().generation)
    }
}

/// What became of namespaces, by virtual cluster.
fn bound(
    clusters: &mut BTreeMap<VirtualClusterName, Cluster>,
    bounds: &BTreeMap<String, Bound>,
    index: &Index,
) {
    for (namespace, bound) in bounds {
        if index.namespaces().contains_key(namespace) {
            let owners: BTreeSet<&VirtualClusterName> =
                bound.bindings.iter().map(|binding| &binding.virtual_cluster).collect();
            for owner in owners {
                clusters.get_mut(owner).into_iter().for_each(|cluster| cluster.namespaces += 1);
            }
        }
        for claim in &bound.claims {
            for name in [&claim.keeper, &claim.loser] {
                if let Some(cluster) = clusters.get_mut(name) {
                    cluster.claims.push(claim.clone());
                }
            }
        }
        for (name, why) in &bound.refused {
            if let Some(cluster) = clusters.get_mut(name) {
                cluster.left_out.push(format!(
                    "namespaceSelector selects namespace {namespace}, whose labels {why}, so it \
                     is left out; name it in namespaces, or use a preset"
                ));
            }
        }
    }
}

/// Services that are several virtual clusters' are nobody's.
fn mixed(clusters: &mut BTreeMap<VirtualClusterName, Cluster>, index: &Index) -> Vec<String> {
    let mut warnings = Vec::new();
    for (service, owners) in index.mixed() {
        let names: Vec<&str> = owners.iter().map(|owner| owner.as_str()).collect();
        let warning = format!(
            "Service {service} has backends of {}, so its addresses and node ports are nobody's and \
             refused in mode Enforce; give each its own Service, or name it in sharedServices",
            names.join(" and ")
        );
        for owner in owners {
            clusters.get_mut(&**owner).into_iter().for_each(|it| it.weak.push(warning.clone()));
        }
        warnings.push(warning);
    }
    warnings.sort();
    warnings
}

/// Addresses of the cluster that are in none of its known ranges are taken for addresses outside.
fn ranges(
    clusters: &mut BTreeMap<VirtualClusterName, Cluster>,
    index: &Index,
    standing: &Standing,
) -> Vec<String> {
    const MEND: &str = "write them down in spec.clusterRanges of BulkheadConfig \"default\"";
    let told = &standing.catalogue.cluster_ranges;
    let mut warnings = Vec::new();
    let outside = index.outside_of_ranges(told);
    if outside > 0 {
        warnings.push(format!(
            "{outside} pods have addresses outside of the cluster's known ranges, so what is not \
             known of such an address passes; {MEND}"
        ));
    }
    let known = |address| index.ranges().iter().chain(told).any(|it| it.net().contains(&address));
    if index.api_server().is_some_and(|address| !known(address)) {
        warnings.push(format!(
            "the range of Services could not be found, so an address in it that is not known \
             passes; {MEND}"
        ));
    }
    let enforces = |it: &Definition| it.network.mode == NetworkMode::Enforce;
    for cluster in clusters.values_mut().filter(|it| it.definition.as_ref().is_some_and(enforces)) {
        cluster.weak.extend(warnings.iter().cloned());
    }
    warnings
}
