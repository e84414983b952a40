//! All objects together: the only way from what users wrote to what the controller acts on.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{
    AddressBlock, Guarantee, Limit, NetworkMode, NetworkPolicy, VirtualCluster, VirtualClusterName,
    VirtualClusterNumber,
};
use kube::ResourceExt;

use crate::conflicts::conflicts;
use crate::convert::{self, FieldProblem};
use crate::document::{Document, Object};
use crate::object::{BulkheadConfigSpec, Members, VirtualClusterClassSpec, VirtualClusterSpec};
use crate::problem::{Problem, Problems};

/// Everything that users asked for, valid together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    /// Virtual clusters by name.
    pub virtual_clusters: BTreeMap<VirtualClusterName, Definition>,
    /// What every virtual cluster may talk with.
    pub shared: BTreeSet<AddressBlock>,
    /// Ranges of the cluster's pods, services and nodes.
    pub cluster_ranges: BTreeSet<AddressBlock>,
    /// What is valid and probably not meant.
    pub warnings: Vec<Problem>,
}

/// A virtual cluster that has no number yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// Its name.
    pub name: VirtualClusterName,
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
}

impl Definition {
    /// With the number that the kernel tables know it by.
    pub fn numbered(&self, number: VirtualClusterNumber) -> VirtualCluster {
        VirtualCluster {
            name: self.name.clone(),
            number,
            addresses: self.addresses.clone(),
            guarantee: self.guarantee.clone(),
            limit: self.limit.clone(),
            network: self.network.clone(),
        }
    }
}

impl Catalogue {
    /// Everything that the documents say, or all that is wrong with them.
    pub fn build(documents: &[Document]) -> Result<Self, Problems> {
        let mut build = Build::default();
        build.sort(documents);
        let config = build.config();
        let definitions = build.virtual_clusters(config.default_mode);
        build.overlaps(&definitions);
        let catalogue = Self {
            warnings: warnings(&definitions, &config),
            virtual_clusters: definitions
                .into_iter()
                .map(|(_, definition)| (definition.name.clone(), definition))
                .collect(),
            shared: config.shared,
            cluster_ranges: config.cluster_ranges,
        };
        if build.problems.is_empty() { Ok(catalogue) } else { Err(Problems(build.problems)) }
    }
}

type Sourced<'a, T> = (&'a Document, &'a T);

#[derive(Default)]
struct Build<'a> {
    virtual_clusters: BTreeMap<String, Sourced<'a, VirtualClusterSpec>>,
    classes: BTreeMap<String, Sourced<'a, VirtualClusterClassSpec>>,
    config: Option<Sourced<'a, BulkheadConfigSpec>>,
    problems: Vec<Problem>,
}

#[derive(Default)]
struct Config {
    shared: BTreeSet<AddressBlock>,
    cluster_ranges: BTreeSet<AddressBlock>,
    default_mode: NetworkMode,
}

impl<'a> Build<'a> {
    fn sort(&mut self, documents: &'a [Document]) {
        for document in documents {
            let earlier = match &document.object {
                Object::VirtualCluster(it) => {
                    keep_first(&mut self.virtual_clusters, it.name_any(), (document, &it.spec))
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
        let Some((document, spec)) = self.config else {
            return Config::default();
        };
        let shared = convert::blocks("spec.sharedServices", &spec.shared_services);
        let ranges = convert::blocks("spec.clusterRanges", &spec.cluster_ranges);
        Config {
            shared: self.taken(document, shared).unwrap_or_default(),
            cluster_ranges: self.taken(document, ranges).unwrap_or_default(),
            default_mode: spec.default_mode.map(convert::mode).unwrap_or_default(),
        }
    }

    fn virtual_clusters(&mut self, default: NetworkMode) -> Vec<(&'a Document, Definition)> {
        let mut built = Vec::new();
        for (name, (document, spec)) in self.virtual_clusters.clone() {
            if let Some(definition) = self.definition(document, &name, spec, default) {
                built.push((document, definition));
            }
        }
        built
    }

    /// One definition. Every part is tried, so that all that is wrong is told at once.
    fn definition(
        &mut self,
        document: &Document,
        name: &str,
        spec: &VirtualClusterSpec,
        default: NetworkMode,
    ) -> Option<Definition> {
        if spec.budget.is_some() {
            let message = "is reserved for the sum over all nodes, which there is not yet; \
                           remove it, and use spec.perNode.limit";
            self.problems.push(document.problem("spec.budget", message));
        }
        let class = match spec.class.as_ref().map(|class| self.classes.get(class)) {
            Some(None) => {
                let message = "there is no such VirtualClusterClass; add it, or remove this";
                self.problems.push(document.problem("spec.class", message));
                None
            }
            Some(Some((_, class))) => Some((&class.per_node, &class.network)),
            None => None,
        };
        let merged = convert::merged(spec, class);
        let per_node = merged.per_node.unwrap_or_default();
        let name = name.parse::<VirtualClusterName>().map_err(|error| FieldProblem {
            field: "metadata.name".to_owned(),
            message: error.to_string(),
        });
        let name = self.taken(document, name);
        let members = Members::default();
        let members = merged.members.as_ref().unwrap_or(&members);
        let addresses = self.taken(document, convert::addresses(members));
        let guarantee = self.taken(document, convert::guarantee(&per_node));
        let limit = self.taken(document, convert::limit(&per_node));
        let network = merged.network.unwrap_or_default();
        let network = name.as_ref().map(|name| convert::network(name, &network, default));
        let network = network.and_then(|network| self.taken(document, network));
        let (guarantee, limit) = (guarantee?, limit?);
        self.taken(document, convert::guarantee_within_limit(&guarantee, &limit))?;
        Some(Definition {
            name: name?,
            addresses: addresses?,
            guarantee,
            limit,
            network: network?,
            class: merged.class,
            source: document.source.clone(),
        })
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

    fn taken<T>(&mut self, document: &Document, done: Result<T, FieldProblem>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(FieldProblem { field, message }) => {
                self.problems.push(document.problem(field, message));
                None
            }
        }
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
