//! All objects together: the only way from what users wrote to what the controller acts on.

mod define;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{
    AddressBlock, Guarantee, Limit, NetworkPolicy, NodePolicy, Unknown, VirtualCluster,
    VirtualClusterName, VirtualClusterNumber,
};
use kube::ResourceExt;

use crate::conflicts::conflicts;
use crate::convert::ServiceName;
use crate::document::{Document, Object};
use crate::membership::Rules;
use crate::object;
use crate::problem::{Problem, Problems};
use define::Config;

pub use standing::{CONFIG, Objects, Overlap, Standing, Subject};

/// Everything that users asked for, valid together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    /// Virtual clusters by name.
    pub virtual_clusters: BTreeMap<VirtualClusterName, Definition>,
    /// What every virtual cluster may talk with.
    pub shared: BTreeSet<AddressBlock>,
    /// Services of the host cluster that every virtual cluster may talk with.
    pub shared_services: BTreeSet<ServiceName>,
    /// Ranges of the cluster's pods, services and nodes.
    pub cluster_ranges: BTreeSet<AddressBlock>,
    /// How nodes treat what they do not know.
    pub policy: NodePolicy,
    /// What is valid and probably not meant.
    pub warnings: Vec<Problem>,
}

/// A virtual cluster that has no number yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// Its name.
    pub name: VirtualClusterName,
    /// Which pods are its members.
    pub members: Rules,
    /// Addresses of its members.
    pub addresses: BTreeSet<AddressBlock>,
    /// What a node keeps for it.
    pub guarantee: Guarantee,
    /// What it can have of a node at most.
    pub limit: Limit,
    /// Whom it may talk with.
    pub network: NetworkPolicy,
    /// The class whose defaults were applied.
    pub class: Option<String>,
    /// Where it came from ("team-a.yaml").
    pub source: String,
    /// Of two that claim one pod, the older has it.
    pub age: Age,
}

/// The order in which objects were made; the least is the oldest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Age {
    /// creationTimestamp, seconds since the Unix epoch; 0 in files.
    pub created: i64,
    /// UID; empty in files.
    pub uid: String,
}

impl Age {
    /// Of an object.
    pub fn of(object: &impl ResourceExt) -> Self {
        Self {
            created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
            uid: object.uid().unwrap_or_default(),
        }
    }
}

impl Definition {
    /// With the number that the kernel tables know it by.
    pub fn numbered(&self, number: VirtualClusterNumber) -> VirtualCluster {
        VirtualCluster {
            name: self.name.clone(),
            number,
            addresses: self.addresses.clone(),
            node_ports: BTreeSet::new(),
            guarantee: self.guarantee.clone(),
            limit: self.limit.clone(),
            network: self.network.clone(),
        }
    }
}

impl Catalogue {
    /// Everything that the documents say, or all that is wrong with them: documents of files are
    /// taken whole or not at all.
    pub fn build(documents: &[Document]) -> Result<Self, Problems> {
        let mut build = Build::default();
        build.sort(documents);
        let config = build.config();
        let definitions = build.virtual_clusters(&config);
        build.overlaps(&definitions);
        let mut warnings = warnings(&definitions, &config);
        warnings.extend(build.without_kubernetes(&config));
        if build.problems.is_empty() {
            Ok(Self::of(definitions, config, warnings))
        } else {
            Err(Problems(build.problems))
        }
    }

    fn of(
        definitions: Vec<(&Document, Definition)>,
        config: Config,
        warnings: Vec<Problem>,
    ) -> Self {
        let named = definitions.into_iter().map(|(_, it)| (it.name.clone(), it));
        Self {
            virtual_clusters: named.collect(),
            shared: config.shared,
            shared_services: config.shared_services,
            cluster_ranges: config.cluster_ranges,
            policy: config.policy,
            warnings,
        }
    }
}

type Sourced<'a, T> = (&'a Document, &'a T);

#[derive(Default)]
struct Build<'a> {
    virtual_clusters: BTreeMap<String, Sourced<'a, object::VirtualCluster>>,
    classes: BTreeMap<String, Sourced<'a, object::VirtualClusterClassSpec>>,
    config: Option<Sourced<'a, object::BulkheadConfigSpec>>,
    problems: Vec<Problem>,
}

impl<'a> Build<'a> {
    fn sort(&mut self, documents: &'a [Document]) {
        for document in documents {
            let earlier = match &document.object {
                Object::VirtualCluster(it) => {
                    keep_first(&mut self.virtual_clusters, it.name_any(), (document, &**it))
                }
                Object::VirtualClusterClass(it) => {
                    keep_first(&mut self.classes, it.name_any(), (document, &it.spec))
                }
                Object::BulkheadConfig(it) => {
                    let earlier = self.config.map(|(earlier, _)| earlier);
                    self.config.get_or_insert((document, &it.spec));
                    earlier
                }
            };
            let Some(earlier) = earlier else { continue };
            let first = match earlier.place("metadata.name") {
                Some(place) => place.to_string(),
                None => earlier.source.clone(),
            };
            let message = match &document.object {
                Object::BulkheadConfig(_) => {
                    format!("there can be one BulkheadConfig, and {first} has {}", earlier.title())
                }
                _ => format!("{first} defines it too; remove one, or give it another name"),
            };
            self.problems.push(document.problem("metadata.name", message));
        }
    }

    fn config(&mut self) -> Config {
        let read = self.config.map(|(document, spec)| Config::of(document, spec));
        self.taken(read.unwrap_or_else(|| Ok(Config::default()))).unwrap_or_default()
    }

    fn virtual_clusters(&mut self, config: &Config) -> Vec<(&'a Document, Definition)> {
        let mut built = Vec::new();
        for (document, object) in self.virtual_clusters.clone().into_values() {
            let class = object.spec.class.as_ref();
            let class = class.map(|name| self.classes.get(name).map(|(_, class)| *class).ok_or(()));
            let definition = define::definition(document, object, class, config.default_mode);
            built.extend(self.taken(definition).map(|definition| (document, definition)));
        }
        built
    }

    fn overlaps(&mut self, built: &[(&Document, Definition)]) {
        let blocks: Vec<(usize, AddressBlock)> = built
            .iter()
            .enumerate()
            .flat_map(|(index, (_, definition))| {
                definition.addresses.iter().map(move |block| (index, *block))
            })
            .collect();
        for conflict in conflicts(&blocks) {
            let (document, own) = (built[conflict.narrower.0].0, conflict.narrower.1);
            let (other, theirs) = (built[conflict.wider.0].0, conflict.wider.1);
            let message = format!(
                "{own} overlaps {theirs} of {} in {}; an address has one virtual cluster",
                other.title(),
                other.source,
            );
            self.problems.push(document.problem(field_of(document, own), message));
        }
    }

    /// What only means something where there is Kubernetes.
    fn without_kubernetes(&self, config: &Config) -> Vec<Problem> {
        const MESSAGE: &str = "selects nothing: these objects are files, and no Kubernetes is \
                               asked for pods; write addresses";
        let mut warnings = Vec::new();
        for (document, object) in self.virtual_clusters.values() {
            let Some(members) = &object.spec.members else { continue };
            for (field, is_set) in [
                ("spec.members.namespaces", !members.namespaces.is_empty()),
                ("spec.members.namespaceSelector", members.namespace_selector.is_some()),
                ("spec.members.preset", members.preset.is_some()),
            ] {
                warnings.extend(is_set.then(|| document.problem(field, MESSAGE)));
            }
        }
        if let (Some((document, _)), Some(service)) = (self.config, config.shared_services.first())
        {
            let message = format!(
                "{}/{} is not found: these objects are files, and no Kubernetes is asked for \
                 Services; write its addresses",
                service.namespace, service.name
            );
            warnings.push(document.problem("spec.sharedServices", message));
        }
        warnings
    }

    fn taken<T>(&mut self, done: Result<T, Vec<Problem>>) -> Option<T> {
        done.map_err(|problems| self.problems.extend(problems)).ok()
    }
}

/// Puts in what is new; of two with one name gives the earlier document.
fn keep_first<'a, T>(
    into: &mut BTreeMap<String, Sourced<'a, T>>,
    name: String,
    object: Sourced<'a, T>,
) -> Option<&'a Document> {
    if let Some((earlier, _)) = into.get(&name) {
        return Some(earlier);
    }
    into.insert(name, object);
    None
}

/// The field that a block was written in.
fn field_of(document: &Document, block: AddressBlock) -> String {
    let Object::VirtualCluster(object) = &document.object else {
        return String::new();
    };
    let addresses = object.spec.members.iter().flat_map(|members| &members.addresses);
    let index = addresses.enumerate().find(|(_, text)| text.parse() == Ok(block));
    index.map_or_else(String::new, |(index, _)| format!("spec.members.addresses[{index}]"))
}

/// Valid, and probably not meant.
fn warnings(built: &[(&Document, Definition)], config: &Config) -> Vec<Problem> {
    let names: BTreeSet<&VirtualClusterName> = built.iter().map(|(_, it)| &it.name).collect();
    let mut warnings = Vec::new();
    for (document, definition) in built {
        if definition.members.names("kube-system") {
            let message = "kube-system is the cluster's own: in mode Enforce other virtual \
                           clusters lose its DNS, unless it is among the shared services";
            warnings.push(document.problem("spec.members.namespaces", message));
        }
        let closed = definition.network.unknown == Unknown::Deny;
        let is_dns = |it: &ServiceName| it.name.contains("dns");
        if closed && config.shared.is_empty() && !config.shared_services.iter().any(is_dns) {
            let message = "is Deny, and BulkheadConfig names no DNS among the shared services: in \
                           mode Enforce its pods reach none; add kube-system/kube-dns to \
                           sharedServices";
            warnings.push(document.problem("spec.network.unknown", message));
        }
        for unknown in definition.network.allow.iter().filter(|name| !names.contains(name)) {
            let message =
                format!("there is no virtual cluster \"{unknown}\" (yet); this allows nothing");
            warnings.push(document.problem("spec.network.allow", message));
        }
        for block in &definition.addresses {
            if let Some(shared) = config.shared.iter().find(|shared| shared.overlaps(*block)) {
                let message = format!(
                    "{block} overlaps {shared} of the shared services, so every virtual cluster \
                     may talk with it"
                );
                warnings.push(document.problem(field_of(document, *block), message));
            }
        }
    }
    warnings
}
