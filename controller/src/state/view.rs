//! What one node is told: every virtual cluster as it is defined, the node's own pods by name, and
//! the addresses of the pods and Services of those that the node can meet: that have a pod on it,
//! or may talk with one that has. What it is never told of is inside the cluster's ranges, and
//! foreign. Of node ports it is told all: the address is a host's, which every node can meet, and
//! they are few.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::{
    AddressBlock, Delta, NamedPod, PodUid, SetChange, Snapshot, VirtualCluster, VirtualClusterName,
};

use super::addresses::AddressSet;
use super::directory::NodePods;
use super::{Known, World, differing};

type Names = BTreeSet<VirtualClusterName>;

/// A generation as one node is told it. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) world: Arc<World>,
    /// Who has pods on the node.
    present: Option<Arc<Names>>,
    /// These, and whom they may talk with.
    near: Arc<Names>,
    /// The node's own pods; `None`: it has none.
    pods: Option<Arc<NodePods>>,
}

impl View {
    /// What `node` is told of this generation.
    pub(crate) fn new(world: &Arc<World>, node: &str) -> Self {
        let present = world.nodes.get(node).cloned();
        let mut near = Names::new();
        for name in present.iter().flat_map(|present| present.iter()) {
            near.insert(name.clone());
            near.extend(world.peers.get(name).into_iter().flatten().cloned());
        }
        let pods = world.directory.of(node).cloned();
        Self { world: Arc::clone(world), present, near: Arc::new(near), pods }
    }

    /// The same node's view of a later generation.
    pub(crate) fn later(&self, world: &Arc<World>, node: &str) -> Self {
        let same_present = match (&self.present, world.nodes.get(node)) {
            (None, None) => true,
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        if same_present && Arc::ptr_eq(&self.world.peers, &world.peers) {
            let pods = world.directory.of(node).cloned();
            return Self { world: Arc::clone(world), pods, ..self.clone() };
        }
        Self::new(world, node)
    }

    /// Addresses of a virtual cluster's pods and Services, as far as the node is told.
    fn addresses(&self, name: &VirtualClusterName) -> Option<&Arc<AddressSet>> {
        self.world.addresses.get(name).filter(|_| self.near.contains(name))
    }

    fn cluster(&self, known: &Known) -> VirtualCluster {
        let mut cluster = known.cluster.clone();
        if let Some(addresses) = self.addresses(&cluster.name) {
            cluster.addresses.extend(addresses.iter().map(AddressBlock::host));
        }
        if let Some(ports) = self.world.node_ports.get(&cluster.name) {
            cluster.node_ports.clone_from(ports);
        }
        cluster
    }

    /// Every virtual cluster, by name.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = VirtualCluster> {
        self.world.virtual_clusters.values().map(|known| self.cluster(known))
    }

    /// Everything that everybody may talk with.
    pub(crate) fn shared(&self) -> impl Iterator<Item = AddressBlock> {
        let addresses = self.world.shared_addresses.iter().map(AddressBlock::host);
        self.world.shared.iter().copied().chain(addresses).chain(self.plain())
    }

    /// Of that, what is of no virtual cluster.
    pub(crate) fn plain(&self) -> impl Iterator<Item = AddressBlock> {
        self.world.plain_addresses.iter().map(AddressBlock::host)
    }

    /// The node's own pods, by UID.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&PodUid, &Arc<NamedPod>)> {
        self.pods.iter().flat_map(|pods| pods.iter())
    }

    /// All of it, under a number.
    pub(crate) fn snapshot(&self, generation: u64) -> Snapshot {
        Snapshot {
            generation,
            virtual_clusters: self.clusters().map(|it| (it.name.clone(), it)).collect(),
            shared: self.shared().collect(),
            plain: self.plain().collect(),
            cluster_ranges: BTreeSet::clone(&self.world.cluster_ranges),
            node_addresses: self.world.node_addresses.iter().collect(),
            unclear_node_ports: BTreeSet::clone(&self.world.unclear_node_ports),
            bindings: (*self.world.bindings).clone(),
            policy: self.world.policy,
            names_pods: self.world.names_pods,
            pods: self.pods().map(|(uid, pod)| (uid.clone(), NamedPod::clone(pod))).collect(),
        }
    }

    /// What leads from this view, which the node holds as generation `base`, to a later one. Looks
    /// only at what can differ.
    pub(crate) fn delta_to(&self, new: &Self, base: u64) -> Delta {
        let mut delta = Delta { base, generation: new.world.generation, ..Delta::default() };
        for name in self.names_that_may_differ(new) {
            self.compare(new, &name, &mut delta);
        }
        let (before, now) = (&*self.world, &*new.world);
        delta.plain = hosts(&now.plain_addresses.since(&before.plain_addresses));
        let shared_addresses = hosts(&now.shared_addresses.since(&before.shared_addresses));
        let single = combined(&shared_addresses, &delta.plain);
        delta.shared = combined(&between(&before.shared, &now.shared), &single);
        delta.cluster_ranges = between(&before.cluster_ranges, &now.cluster_ranges);
        delta.node_addresses = now.node_addresses.since(&before.node_addresses);
        delta.unclear_node_ports = between(&before.unclear_node_ports, &now.unclear_node_ports);
        if !Arc::ptr_eq(&before.bindings, &now.bindings) {
            for (namespace, bound) in &now.bindings.0 {
                if before.bindings.0.get(namespace) != Some(bound) {
                    delta.bindings.insert(namespace.clone(), bound.clone());
                }
            }
            let gone = |namespace: &&String| !now.bindings.0.contains_key(*namespace);
            delta.unbound = before.bindings.0.keys().filter(gone).cloned().collect();
        }
        delta.policy = (before.policy != now.policy).then_some(now.policy);
        delta.names_pods = (before.names_pods != now.names_pods).then_some(now.names_pods);
        self.compare_pods(new, &mut delta);
        delta
    }

    fn compare_pods(&self, new: &Self, delta: &mut Delta) {
        let none = NodePods::new();
        match (&self.pods, &new.pods) {
            (Some(before), Some(now)) if Arc::ptr_eq(before, now) => {}
            (before, now) => delta
                .compare_pods(before.as_deref().unwrap_or(&none), now.as_deref().unwrap_or(&none)),
        }
    }

    fn names_that_may_differ(&self, new: &Self) -> Names {
        let change = &new.world.change;
        let mut names = if change.since == self.world.generation {
            Names::clone(&change.names)
        } else {
            let mut names = differing(&self.world.virtual_clusters, &new.world.virtual_clusters);
            names.extend(differing(&self.world.addresses, &new.world.addresses));
            names.extend(differing(&self.world.node_ports, &new.world.node_ports));
            names
        };
        if !Arc::ptr_eq(&self.near, &new.near) {
            names.extend(self.near.symmetric_difference(&new.near).cloned());
        }
        names
    }

    fn compare(&self, new: &Self, name: &VirtualClusterName, delta: &mut Delta) {
        let before = self.world.virtual_clusters.get(name);
        let (before, now) = match (before, new.world.virtual_clusters.get(name)) {
            (None, None) => return,
            (Some(_), None) => {
                delta.removed.insert(name.clone());
                return;
            }
            (Some(before), Some(now)) if before.cluster.differs_by_places_only(&now.cluster) => {
                (before, now)
            }
            (_, Some(now)) => {
                delta.upserted.insert(name.clone(), new.cluster(now));
                return;
            }
        };
        let listed = if Arc::ptr_eq(before, now) {
            SetChange::default()
        } else {
            SetChange::between(&before.cluster.addresses, &now.cluster.addresses)
        };
        let none = AddressSet::default();
        let addresses =
            |view: &'_ Self| view.addresses(name).map_or_else(|| none.clone(), |it| (**it).clone());
        let change = combined(&listed, &hosts(&addresses(new).since(&addresses(self))));
        if !change.is_empty() {
            delta.addresses.insert(name.clone(), change);
        }
        let none = Arc::default();
        let ports = |view: &'_ Self| view.world.node_ports.get(name).unwrap_or(&none).clone();
        let change = between(&ports(self), &ports(new));
        if !change.is_empty() {
            delta.node_ports.insert(name.clone(), change);
        }
    }
}

fn between<T: Ord + Copy + Display>(
    old: &Arc<BTreeSet<T>>,
    new: &Arc<BTreeSet<T>>,
) -> SetChange<T> {
    if Arc::ptr_eq(old, new) { SetChange::default() } else { SetChange::between(old, new) }
}

fn hosts(change: &SetChange<IpAddr>) -> SetChange<AddressBlock> {
    let blocks = |set: &BTreeSet<IpAddr>| set.iter().copied().map(AddressBlock::host).collect();
    SetChange { added: blocks(&change.added), removed: blocks(&change.removed) }
}

/// Of two lists that have nothing in common. What left one and came into the other stays.
fn combined(
    one: &SetChange<AddressBlock>,
    other: &SetChange<AddressBlock>,
) -> SetChange<AddressBlock> {
    let (added, removed) = (&one.added | &other.added, &one.removed | &other.removed);
    SetChange { added: &added - &removed, removed: &removed - &added }
}
