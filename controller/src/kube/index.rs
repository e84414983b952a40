//! What the cluster is, as far as it matters here: pure, with no client. Events go in, in any
//! order; what changed since it was last asked comes out.
//!
//! An event about a pod costs as much as the Services that it is behind; one about a Service as
//! much as its endpoints. Only what operators write (bindings) costs more: then the pods of each
//! namespace whose rules are others now are decided anew.

mod nodes;
mod pods;
mod services;
mod shown;
#[cfg(test)]
mod tests;
pub(crate) mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_api::membership::Namespace;
use bulkhead_core::{AddressBlock, Bindings, NodePolicy, VirtualClusterName};

use self::nodes::{Nodes, Ranges};
use self::pods::{Changed, Pods};
pub(crate) use self::pods::{Counts, Owned, Present};
use self::services::Services;
use self::shown::API_SERVER;
use self::told::{Change, Event, Key, Node, Pod, Service};
use crate::state::cluster::ClusterChange;

/// The kinds that must have been listed before anybody is told anything.
const KINDS: usize = 5;

/// What operators wrote, as far as the index needs it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) policy: NodePolicy,
    /// Services that every virtual cluster may talk with.
    pub(crate) shared_services: BTreeSet<Key>,
    /// Ranges that are told rather than found on Nodes.
    pub(crate) ranges: BTreeSet<AddressBlock>,
    /// Virtual clusters that are closed to what is nobody's.
    pub(crate) closed: BTreeSet<VirtualClusterName>,
}

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Index {
    rules: Rules,
    pods: Pods,
    services: Services,
    nodes: Nodes,
    namespaces: BTreeMap<String, Namespace>,
    /// Ranges of Nodes, merged; as they were when it was last asked what changed.
    of_nodes: Ranges,
    listing: Listing,
    dirty: Dirty,
    /// Somebody was told everything once.
    told: bool,
}

/// Which objects have not been listed again yet, by kind.
#[derive(Debug, Default)]
struct Listing {
    pods: Option<HashSet<Key>>,
    services: Option<HashSet<Key>>,
    slices: Option<HashSet<Key>>,
    nodes: Option<HashSet<Arc<str>>>,
    namespaces: Option<HashSet<String>>,
    /// Kinds that were listed whole at least once.
    done: BTreeSet<&'static str>,
}

/// What changed since it was last asked.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each thing that is told as a whole")]
struct Dirty {
    /// By UID.
    pods: HashMap<Arc<str>, Key>,
    services: HashSet<Key>,
    nodes: BTreeSet<Arc<str>>,
    bindings: bool,
    policy: bool,
    ranges: bool,
    shared: bool,
    /// The bindings of these may be others now.
    namespaces: BTreeSet<String>,
}

impl Index {
    /// Every kind was listed at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.listing.done.len() == KINDS
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Pod(change) => self.pod(change),
            Event::Service(change) => self.service(change),
            Event::Slice(change) => self.slice(change),
            Event::Node(change) => self.node(change),
            Event::Namespace(change) => self.namespace(change),
        }
    }

    /// The namespaces, for those who make the bindings.
    pub(crate) fn namespaces(&self) -> &BTreeMap<String, Namespace> {
        &self.namespaces
    }

    /// Namespaces that came, went or are marked otherwise since this was last asked.
    pub(crate) fn namespaces_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty.namespaces)
    }

    /// Takes in what operators wrote.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        let before = std::mem::replace(&mut self.rules, rules);
        self.dirty.policy |= before.policy != self.rules.policy;
        if before.shared_services != self.rules.shared_services {
            let named = before.shared_services.iter().chain(&self.rules.shared_services);
            self.dirty.services.extend(named.cloned());
        }
        self.dirty.ranges |= before.ranges != self.rules.ranges;
        if before.closed != self.rules.closed {
            self.dirty.services.extend(self.services.keys().cloned());
        }
        self.dirty.shared |= before.shared_services != self.rules.shared_services;
        if before.bindings != self.rules.bindings {
            self.dirty.bindings = true;
            self.decide_again(&before.bindings);
        }
    }

    /// How many pods a virtual cluster has, and where.
    pub(crate) fn counts(&self, name: &VirtualClusterName) -> Counts {
        self.pods.counts(name)
    }

    /// Which virtual clusters have pods on which node.
    pub(crate) fn presence(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<VirtualClusterName>, Present)> {
        self.pods.presence()
    }

    /// Everything is to be told again: it was not taken in.
    pub(crate) fn tell_again(&mut self) {
        self.told = false;
    }

    /// Where the API server's Service listens within the cluster.
    pub(crate) fn api_server(&self) -> Option<IpAddr> {
        let service = self.services.get(&Key::new(API_SERVER.0, API_SERVER.1))?;
        service.cluster.first().copied()
    }

    /// Services that are several virtual clusters' at once, which makes them nobody's.
    pub(crate) fn mixed(&self) -> impl Iterator<Item = (&Key, Vec<&Arc<VirtualClusterName>>)> {
        self.services.mixed()
    }

    /// Pods whose addresses are in none of the cluster's ranges, `more` being told by operators:
    /// who does not know such an address takes it for something outside. Costs as much as there
    /// are pods.
    pub(crate) fn outside_of_ranges(&self, more: &BTreeSet<AddressBlock>) -> usize {
        let ranges = Ranges::new(self.ranges().into_iter().chain(more.iter().copied()));
        let is_inside = |address: &IpAddr| ranges.contains(*address);
        self.pods.values().filter(|it| !it.holds().iter().all(is_inside)).count()
    }

    /// The cluster's ranges as they are known.
    pub(crate) fn ranges(&self) -> BTreeSet<AddressBlock> {
        Ranges::new(self.nodes.ranges().chain(self.rules.ranges.iter().copied())).blocks()
    }

    /// The Nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// How many pods are known.
    pub(crate) fn pods(&self) -> usize {
        self.pods.len()
    }

    /// What changed since this was last asked; nothing before everything was listed once.
    pub(crate) fn take(&mut self) -> Option<ClusterChange> {
        if !self.is_complete() {
            return None;
        }
        let whole = !std::mem::replace(&mut self.told, true);
        if whole {
            self.all_again();
            let Dirty { nodes, bindings, policy, ranges, shared, .. } = &mut self.dirty;
            nodes.extend(self.nodes.values().map(|node| Arc::clone(&node.name)));
            (*bindings, *policy, *ranges, *shared) = (true, true, true, true);
        }
        if self.dirty.ranges {
            self.of_nodes = Ranges::new(self.nodes.ranges());
            self.dirty.services.extend(self.services.with_external().cloned());
        }
        if !self.dirty.nodes.is_empty() {
            let bound = self.rules.bindings.0.keys();
            let services = bound.flat_map(|it| self.services.in_namespace(it));
            let may_lead_on = services.filter(|it| self.services.written(it).next().is_some());
            self.dirty.services.extend(may_lead_on);
        }
        let namespaces = std::mem::take(&mut self.dirty.namespaces);
        let dirty = std::mem::replace(&mut self.dirty, Dirty { namespaces, ..Dirty::default() });
        let change = ClusterChange {
            whole,
            bindings: dirty.bindings.then(|| Bindings::clone(&self.rules.bindings)),
            policy: dirty.policy.then_some(self.rules.policy),
            shared: dirty.shared.then(|| self.shared()),
            cluster_ranges: dirty.ranges.then(|| self.ranges()),
            pods: dirty.pods.iter().map(|(uid, key)| self.shown_pod(uid, key)).collect(),
            services: dirty.services.iter().map(|key| self.shown_service(key)).collect(),
            nodes: dirty.nodes.iter().map(|name| self.shown_node(name)).collect(),
        };
        (whole || change != ClusterChange::default()).then_some(change)
    }

    fn pod(&mut self, change: Change<Pod>) {
        match change {
            Change::Begin => self.listing.pods = Some(self.pods.keys().cloned().collect()),
            Change::Applied(pod) if pod.ended => {
                // It stays listed: it is the sweep that must not find it.
                self.remove_pod(&pod.key);
            }
            Change::Applied(pod) => {
                if let Some(stale) = &mut self.listing.pods {
                    stale.remove(&pod.key);
                }
                let key = pod.key.clone();
                let changed = self.pods.apply(pod, &self.rules.bindings);
                self.pod_changed(&key, &changed);
            }
            Change::Gone(key) => self.remove_pod(&key),
            Change::Done => {
                self.listing.done.insert("pods");
                for key in self.listing.pods.take().into_iter().flatten() {
                    self.remove_pod(&key);
                }
            }
        }
    }

    fn remove_pod(&mut self, key: &Key) {
        if let Some(before) = self.pods.remove(key) {
            self.pod_changed(key, &Changed { before: Some(before), any: true });
        }
    }

    fn pod_changed(&mut self, key: &Key, changed: &Changed) {
        if !changed.any {
            return;
        }
        let now = self.pods.get(key);
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for owned in changed.before.iter().chain(now) {
            addresses.extend(&owned.pod.addresses);
            self.dirty.pods.insert(Arc::clone(&owned.pod.uid), key.clone());
        }
        for address in addresses {
            let touched = self.services.settle(address, &self.pods);
            self.dirty.services.extend(touched);
            self.dirty.services.extend(self.services.external_at(address).cloned());
        }
    }

    fn service(&mut self, change: Change<Service>) {
        match change {
            Change::Begin => self.listing.services = Some(self.services.keys().cloned().collect()),
            Change::Applied(service) => {
                if let Some(stale) = &mut self.listing.services {
                    stale.remove(&service.key);
                }
                let touched = self.services.apply(service);
                self.services_changed(touched);
            }
            Change::Gone(key) => self.remove_service(key),
            Change::Done => {
                self.listing.done.insert("services");
                for key in self.listing.services.take().into_iter().flatten() {
                    self.remove_service(key);
                }
            }
        }
    }

    fn remove_service(&mut self, key: Key) {
        let touched = self.services.remove(key);
        self.services_changed(touched);
    }

    fn services_changed(&mut self, keys: Vec<Key>) {
        for key in keys {
            self.service_changed(key);
        }
    }

    fn service_changed(&mut self, key: Key) {
        self.dirty.shared |= self.is_shared(&key);
        self.dirty.services.insert(key);
    }

    fn slice(&mut self, change: Change<told::Slice>) {
        match change {
            Change::Begin => self.listing.slices = Some(self.services.slices().cloned().collect()),
            Change::Applied(slice) => {
                if let Some(stale) = &mut self.listing.slices {
                    stale.remove(&slice.key);
                }
                let touched = self.services.apply_slice(slice, &self.pods);
                self.services_changed(touched);
            }
            Change::Gone(key) => self.remove_slice(&key),
            Change::Done => {
                self.listing.done.insert("slices");
                for key in self.listing.slices.take().into_iter().flatten() {
                    self.remove_slice(&key);
                }
            }
        }
    }

    fn remove_slice(&mut self, key: &Key) {
        if let Some(service) = self.services.remove_slice(key, &self.pods) {
            self.service_changed(service);
        }
    }

    fn node(&mut self, change: Change<Node, Arc<str>>) {
        match change {
            Change::Begin => {
                let names = self.nodes.values().map(|node| Arc::clone(&node.name));
                self.listing.nodes = Some(names.collect());
            }
            Change::Applied(node) => {
                if let Some(stale) = &mut self.listing.nodes {
                    stale.remove(&node.name);
                }
                let name = Arc::clone(&node.name);
                self.node_changed(&name, Some(&node));
            }
            Change::Gone(name) => self.node_changed(&name, None),
            Change::Done => {
                self.listing.done.insert("nodes");
                for name in self.listing.nodes.take().into_iter().flatten() {
                    self.node_changed(&name, None);
                }
            }
        }
    }

    fn node_changed(&mut self, name: &Arc<str>, now: Option<&Node>) {
        let touched = self.nodes.set(name, now);
        self.dirty.ranges |= touched.ranges;
        if touched.addresses {
            self.dirty.nodes.insert(Arc::clone(name));
        }
    }

    fn namespace(&mut self, change: Change<Namespace, String>) {
        match change {
            Change::Begin => {
                self.listing.namespaces = Some(self.namespaces.keys().cloned().collect());
            }
            Change::Applied(namespace) => {
                if let Some(stale) = &mut self.listing.namespaces {
                    stale.remove(&namespace.name);
                }
                if self.namespaces.get(&namespace.name) != Some(&namespace) {
                    self.dirty.namespaces.insert(namespace.name.clone());
                    self.namespaces.insert(namespace.name.clone(), namespace);
                }
            }
            Change::Gone(name) => self.remove_namespace(name),
            Change::Done => {
                self.listing.done.insert("namespaces");
                for name in self.listing.namespaces.take().into_iter().flatten() {
                    self.remove_namespace(name);
                }
            }
        }
    }

    fn remove_namespace(&mut self, name: String) {
        if self.namespaces.remove(&name).is_some() {
            self.dirty.namespaces.insert(name);
        }
    }

    /// Whoever is in a namespace whose rules are others now is decided anew.
    fn decide_again(&mut self, before: &Bindings) {
        let now = Arc::clone(&self.rules.bindings);
        let names: BTreeSet<&String> = before.0.keys().chain(now.0.keys()).collect();
        for name in names.into_iter().filter(|name| before.0.get(*name) != now.0.get(*name)) {
            for key in self.pods.in_namespace(name) {
                let changed = self.pods.decide(&key, &now);
                self.pod_changed(&key, &changed);
            }
            self.dirty.services.extend(self.services.in_namespace(name));
        }
    }

    fn all_again(&mut self) {
        let pods = self.pods.values().map(|it| (Arc::clone(&it.pod.uid), it.pod.key.clone()));
        self.dirty.pods.extend(pods);
        self.dirty.services.extend(self.services.keys().cloned());
    }
}
