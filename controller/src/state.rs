//! What agents must know: the objects, numbered, and what the cluster says of pods, Services and
//! nodes. Each generation shares with the one before what did not change, so that many live at
//! once: one for each agent that is behind.

pub(crate) mod addresses;
mod blocks;
pub(crate) mod cluster;
pub(crate) mod directory;
mod holders;
mod making;
mod node_ports;
pub(crate) mod resume;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_api::Catalogue;
use bulkhead_core::{
    AddressBlock, Bindings, LocalPods, NodePolicy, NodePort, VirtualCluster, VirtualClusterName,
};
use tokio::sync::watch;

use crate::faults::{self, Point};
use crate::ledger::{Ledger, LedgerError};
use addresses::AddressSet;
use cluster::ClusterChange;
use directory::Directory;
use holders::{Says, Told};
use making::{Making, OBJECTS};
use resume::Resumable;

/// Everything that agents must know, of one generation. What one node is told of it is its
/// [view](view::View).
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) generation: u64,
    pub(crate) virtual_clusters: Arc<BTreeMap<VirtualClusterName, Arc<Known>>>,
    /// Of pods and Services, by whose they are; objects' own lists are with the objects.
    pub(crate) addresses: Arc<BTreeMap<VirtualClusterName, Arc<AddressSet>>>,
    pub(crate) shared: Arc<BTreeSet<AddressBlock>>,
    /// Of Services that everybody may talk with.
    pub(crate) shared_addresses: Arc<AddressSet>,
    /// Of pods and Services of no virtual cluster.
    pub(crate) plain_addresses: Arc<AddressSet>,
    pub(crate) cluster_ranges: Arc<BTreeSet<AddressBlock>>,
    pub(crate) node_addresses: Arc<AddressSet>,
    /// Of Services, by whose they are.
    pub(crate) node_ports: Arc<BTreeMap<VirtualClusterName, Arc<BTreeSet<NodePort>>>>,
    /// Of Services that are nobody's.
    pub(crate) unclear_node_ports: Arc<BTreeSet<NodePort>>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) policy: NodePolicy,
    /// Whom each may talk with, both ways.
    pub(crate) peers: Arc<BTreeMap<VirtualClusterName, BTreeSet<VirtualClusterName>>>,
    /// By node: who has pods there.
    pub(crate) nodes: Arc<BTreeMap<String, Arc<BTreeSet<VirtualClusterName>>>>,
    /// Whether `directory` names every pod: somebody watches them.
    pub(crate) names_pods: bool,
    /// Each node's pods, for that node.
    pub(crate) directory: Directory,
    /// What differs from the generation before.
    pub(crate) change: Change,
}

/// What differs between two generations, as far as names go: nobody has to compare the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Change {
    pub(crate) since: u64,
    /// Virtual clusters that are new, gone, or of which anything is another.
    pub(crate) names: Arc<BTreeSet<VirtualClusterName>>,
}

/// A virtual cluster, and what only operators want to know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) cluster: VirtualCluster,
    pub(crate) class: String,
    pub(crate) source: String,
}

/// What is wrong, or odd, with the objects as they are written now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    /// While there is anything, what was valid last stands.
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Holds the newest generation, and makes the next.
#[derive(Debug)]
pub(crate) struct State {
    ledger: Arc<Ledger>,
    world: watch::Sender<Arc<World>>,
    findings: watch::Sender<Arc<Findings>>,
    /// Held while a generation is made of the one before.
    making: Mutex<Making>,
    /// What agents that come again may still hold.
    pub(crate) resumable: Resumable,
}

impl State {
    /// Knows of nodes only, as generation 0, which no agent is told. `instance` is any number that
    /// no other controller has, and none had before.
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        nodes: BTreeMap<String, BTreeSet<IpAddr>>,
        instance: u64,
    ) -> Self {
        let (mut making, mut world) = (Making::default(), World::default());
        for (node, addresses) in nodes {
            making.holders.set_node(&node, Says::Agent, addresses);
        }
        making.settle(&mut world);
        Self {
            ledger,
            world: watch::Sender::new(Arc::new(world)),
            findings: watch::Sender::default(),
            making: Mutex::new(making),
            resumable: Resumable::new(instance),
        }
    }

    /// The newest generation.
    pub(crate) fn current(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// Tells of new generations.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    /// What is wrong with the objects now; tells of changes.
    pub(crate) fn findings(&self) -> watch::Receiver<Arc<Findings>> {
        self.findings.subscribe()
    }

    /// Says what is wrong with the objects now.
    pub(crate) fn found(&self, findings: Findings) {
        self.findings.send_replace(Arc::new(findings));
    }

    /// Takes in what users wrote in files. Blocks: new names get numbers, which must be durable
    /// first.
    pub(crate) fn set_catalogue(&self, catalogue: &Catalogue) -> Result<(), LedgerError> {
        self.set_objects(catalogue, "file")
    }

    /// Takes in what users wrote, wherever: `kind` is said before each object's source. Blocks.
    pub(crate) fn set_objects(&self, catalogue: &Catalogue, kind: &str) -> Result<(), LedgerError> {
        let before = self.current();
        let known = |name: &VirtualClusterName| {
            Some((name.clone(), before.virtual_clusters.get(name)?.cluster.number))
        };
        let names: BTreeSet<_> = catalogue.virtual_clusters.keys().cloned().collect();
        let mut numbers: BTreeMap<_, _> = names.iter().filter_map(known).collect();
        // A name's number never changes, so hardly any change waits for the disk.
        if numbers.len() < names.len() {
            numbers = self.ledger.numbers(&names)?;
        }
        let known = catalogue.virtual_clusters.iter().filter_map(|(name, definition)| {
            let known = Known {
                cluster: definition.numbered(*numbers.get(name)?),
                class: definition.class.clone().unwrap_or_default(),
                source: format!("{kind}:{}", definition.source),
            };
            let before = before.virtual_clusters.get(name).filter(|before| ***before == known);
            Some((name.clone(), before.map_or_else(|| Arc::new(known), Arc::clone)))
        });
        let virtual_clusters: BTreeMap<_, _> = known.collect();
        self.change(true, |making, world| {
            making.shared[OBJECTS].clone_from(&catalogue.shared);
            making.cluster_ranges[OBJECTS].clone_from(&catalogue.cluster_ranges);
            making.lists_set = true;
            world.replace_virtual_clusters(virtual_clusters);
        })
    }

    /// Takes in what changed in the cluster. Blocks.
    pub(crate) fn change_cluster(&self, change: ClusterChange) -> Result<(), LedgerError> {
        self.change(false, |making, world| making.take(change, world))
    }

    /// Takes in a node's addresses, as its agent says. Blocks.
    pub(crate) fn set_node_addresses(
        &self,
        node: &str,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<(), LedgerError> {
        self.change(false, |making, _| making.holders.set_node(node, Says::Agent, addresses))
    }

    /// Takes in the pods of a node, as its agent says; none: it is gone for long. Blocks.
    pub(crate) fn set_local_pods(
        &self,
        node: &str,
        pods: &Arc<LocalPods>,
    ) -> Result<(), LedgerError> {
        self.change(false, |making, _| making.holders.set_report(node, pods))
    }

    /// `first`: it makes a generation even where it changes nothing, if there was none yet.
    fn change(
        &self,
        first: bool,
        change: impl FnOnce(&mut Making, &mut World),
    ) -> Result<(), LedgerError> {
        let mut making = self.making();
        // Before anything is changed: what is taken in must be told.
        making.reserve(&self.ledger)?;
        let before = self.current();
        let mut next = World::clone(&before);
        change(&mut making, &mut next);
        making.settle(&mut next);
        next.change = before.change_to(&next);
        // Nothing is told before the objects are known: agents would take down what stands.
        let counts = before.generation != 0 || first;
        if !counts || (next.is_same_as(&before) && before.generation != 0) {
            if !counts {
                self.world.send_replace(Arc::new(next));
            }
            return Ok(());
        }
        making.given += 1;
        next.generation = making.given;
        faults::pass(Point::GenerationCounted);
        tracing::info!(
            generation = next.generation,
            virtual_clusters = next.virtual_clusters.len(),
            "what agents must know has changed"
        );
        self.world.send_replace(Arc::new(next));
        Ok(())
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        // After a panic half way what is told is the generation before, and the next change makes
        // a whole one of what was taken in.
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what is the same, so that a look at the pointer tells.
fn replace<T: PartialEq>(kept: &mut Arc<T>, new: T) {
    if **kept != new {
        *kept = Arc::new(new);
    }
}

impl World {
    fn replace_virtual_clusters(&mut self, all: BTreeMap<VirtualClusterName, Arc<Known>>) {
        if all == *self.virtual_clusters {
            return;
        }
        let mut peers: BTreeMap<VirtualClusterName, BTreeSet<VirtualClusterName>> = BTreeMap::new();
        for (name, known) in &all {
            for other in &known.cluster.network.allow {
                peers.entry(name.clone()).or_default().insert(other.clone());
                peers.entry(other.clone()).or_default().insert(name.clone());
            }
        }
        replace(&mut self.peers, peers);
        self.virtual_clusters = Arc::new(all);
    }

    fn put(&mut self, owner: &Told, change: impl FnOnce(&mut AddressSet)) {
        match owner {
            Told::Nobody => {}
            Told::Shared => change(Arc::make_mut(&mut self.shared_addresses)),
            Told::Plain => change(Arc::make_mut(&mut self.plain_addresses)),
            Told::Of(name) => {
                let all = Arc::make_mut(&mut self.addresses);
                let set = all.entry(VirtualClusterName::clone(name)).or_default();
                change(Arc::make_mut(set));
                if set.is_empty() {
                    all.remove(&**name);
                }
            }
        }
    }

    /// Whether nobody is told anything else than by the generation that this one was made of.
    fn is_same_as(&self, other: &Self) -> bool {
        self.change.names.is_empty()
            && self.shared == other.shared
            && self.cluster_ranges == other.cluster_ranges
            && self.unclear_node_ports == other.unclear_node_ports
            && self.bindings == other.bindings
            && self.policy == other.policy
            && self.peers == other.peers
            && self.nodes == other.nodes
            && self.names_pods == other.names_pods
            && self.directory.is_same_as(&other.directory)
            && self.shared_addresses.since(&other.shared_addresses).is_empty()
            && self.plain_addresses.since(&other.plain_addresses).is_empty()
            && self.node_addresses.since(&other.node_addresses).is_empty()
    }

    fn change_to(&self, next: &Self) -> Change {
        let mut names = differing(&self.virtual_clusters, &next.virtual_clusters);
        names.extend(differing(&self.addresses, &next.addresses));
        names.extend(differing(&self.node_ports, &next.node_ports));
        Change { since: self.generation, names: Arc::new(names) }
    }
}

/// The keys under which two maps do not hold the very same.
pub(crate) fn differing<V>(
    old: &Arc<BTreeMap<VirtualClusterName, Arc<V>>>,
    new: &Arc<BTreeMap<VirtualClusterName, Arc<V>>>,
) -> BTreeSet<VirtualClusterName> {
    if Arc::ptr_eq(old, new) {
        return BTreeSet::new();
    }
    let mut names = BTreeSet::new();
    for (name, value) in &**new {
        if !old.get(name).is_some_and(|before| Arc::ptr_eq(before, value)) {
            names.insert(name.clone());
        }
    }
    names.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
    names
}
