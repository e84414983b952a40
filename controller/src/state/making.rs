//! How a generation is made: what was taken in, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_core::{AddressBlock, VirtualClusterName};

use super::blocks::Blocks;
use super::cluster::ClusterChange;
use super::directory::Places;
use super::holders::{Holders, Says};
use super::node_ports::NodePorts;
use super::{Known, World, replace};
use crate::ledger::{Ledger, LedgerError};

/// Generations that are counted at once on the disk, so that hardly any change waits for it.
const RESERVED: u64 = 64;

/// What the next generation is made of.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) holders: Holders,
    /// Where each pod is named.
    places: Places,
    node_ports: NodePorts,
    /// What objects say and what the cluster says, each for itself.
    pub(super) shared: [BTreeSet<AddressBlock>; 2],
    pub(super) cluster_ranges: [BTreeSet<AddressBlock>; 2],
    /// One of the lists was set since they were put together.
    pub(super) lists_set: bool,
    /// The objects whose addresses the holders know.
    objects: Arc<BTreeMap<VirtualClusterName, Arc<Known>>>,
    /// The last generation that was given, and the last that is counted on the disk.
    pub(super) given: u64,
    counted: u64,
}

/// Places in the arrays of [`Making`].
pub(super) const OBJECTS: usize = 0;
const CLUSTER: usize = 1;

impl Making {
    /// Makes sure that there is another generation that was never given.
    pub(super) fn reserve(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        if self.given == self.counted {
            self.counted = ledger.count_generations(RESERVED)?;
            self.given = self.counted - RESERVED;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, change: ClusterChange, world: &mut World) {
        let ClusterChange { whole, bindings, policy, shared, cluster_ranges, .. } = change;
        let (pods, services, nodes) = (change.pods, change.services, change.nodes);
        if let Some(mut bindings) = bindings {
            bindings.0.retain(|_, bound| !bound.is_empty());
            if bindings != *world.bindings {
                world.bindings = Arc::new(bindings);
            }
        }
        world.policy = policy.unwrap_or(world.policy);
        self.lists_set |= shared.is_some() || cluster_ranges.is_some();
        if let Some(shared) = shared {
            self.shared[CLUSTER] = shared;
        }
        if let Some(ranges) = cluster_ranges {
            self.cluster_ranges[CLUSTER] = ranges;
        }
        if whole {
            let is_service = |name: &str| services.get(name).is_some_and(Option::is_some);
            self.node_ports.retain(is_service);
            self.holders.retain(
                |uid| pods.get(uid).is_some_and(Option::is_some),
                is_service,
                |name| nodes.get(name).is_some_and(Option::is_some),
            );
            let is_there = |uid: &str| pods.get(uid).is_some_and(Option::is_some);
            self.places.retain(&mut world.directory, is_there);
            world.names_pods = true;
        }
        for (uid, pod) in &pods {
            self.places.set(&mut world.directory, uid, pod.as_ref());
            self.holders.set_pod(uid, pod.as_ref());
        }
        for (name, service) in &services {
            self.holders.set_service(name, service.as_ref());
            self.node_ports.set_service(name, service.as_ref());
        }
        for (name, addresses) in nodes {
            self.holders.set_node(&name, Says::ApiServer, addresses.unwrap_or_default());
        }
    }

    /// Puts into the generation what became of what was taken in.
    pub(super) fn settle(&mut self, world: &mut World) {
        self.settle_lists(world);
        self.node_ports.settle(world);
        let holders = &mut self.holders;
        for moved in holders.moved() {
            world.put(&moved.from, |set| set.remove(moved.address));
            world.put(&moved.to, |set| set.insert(moved.address));
            if moved.is_host && !world.node_addresses.contains(moved.address) {
                Arc::make_mut(&mut world.node_addresses).insert(moved.address);
            } else if !moved.is_host && world.node_addresses.contains(moved.address) {
                Arc::make_mut(&mut world.node_addresses).remove(moved.address);
            }
        }
        for (node, present) in holders.nodes_moved() {
            if world.nodes.get(&node).map_or(present.is_empty(), |before| **before == present) {
                continue;
            }
            let nodes = Arc::make_mut(&mut world.nodes);
            if present.is_empty() {
                nodes.remove(&node);
            } else {
                nodes.insert(node, Arc::new(present));
            }
        }
    }
}

impl Making {
    /// Puts the lists together, and lets the holders know what objects say.
    fn settle_lists(&mut self, world: &mut World) {
        if self.lists_set {
            let union = |two: &[BTreeSet<AddressBlock>; 2]| two.iter().flatten().copied().collect();
            replace(&mut world.shared, union(&self.shared));
            replace(&mut world.cluster_ranges, union(&self.cluster_ranges));
        } else if Arc::ptr_eq(&self.objects, &world.virtual_clusters) {
            return;
        }
        self.lists_set = false;
        self.objects = Arc::clone(&world.virtual_clusters);
        let members = self.objects.values().flat_map(|known| &known.cluster.addresses);
        let said = (
            Blocks::new(members),
            Blocks::new(world.shared.iter()),
            Blocks::new(world.cluster_ranges.iter()),
        );
        self.holders.set_said(said);
    }
}
