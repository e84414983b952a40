//! Who holds which node port. Each is told of one owner at most: the Service that had it first.
//! The API server gives each to one Service, so that two have it only while one goes and the
//! other comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bulkhead_core::NodePort;

use super::World;
use super::cluster::{Owner, Service};

/// A Service that has some.
#[derive(Debug)]
struct Served {
    ports: BTreeSet<NodePort>,
    /// Of two the lower was there first.
    order: u64,
}

/// The node ports of all Services, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct NodePorts {
    services: HashMap<String, Served>,
    /// By port: who has it, in the order in which they came.
    held: HashMap<NodePort, BTreeMap<u64, Owner>>,
    told: HashMap<NodePort, Owner>,
    touched: BTreeSet<NodePort>,
    order: u64,
}

impl NodePorts {
    /// A Service is there, or is otherwise than it was; `None`: it is gone.
    pub(super) fn set_service(&mut self, name: &str, service: Option<&Service>) {
        let before = self.services.remove(name);
        if let Some(before) = &before {
            for port in &before.ports {
                if let Some(held) = self.held.get_mut(port) {
                    held.remove(&before.order);
                    if held.is_empty() {
                        self.held.remove(port);
                    }
                }
                self.touched.insert(*port);
            }
        }
        let Some(service) = service.filter(|service| !service.node_ports.is_empty()) else {
            return;
        };
        self.order += 1;
        let order = before.map_or(self.order, |before| before.order);
        for port in &service.node_ports {
            self.held.entry(*port).or_default().insert(order, service.owner.clone());
            self.touched.insert(*port);
        }
        let ports = service.node_ports.clone();
        self.services.insert(name.to_owned(), Served { ports, order });
    }

    /// Every Service that is not named is gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.services.keys().filter(|it| !is_there(it)).cloned().collect();
        for name in gone {
            self.set_service(&name, None);
        }
    }

    /// Puts into the generation what became of what was taken in. Of a port of everybody's nothing
    /// is told; that of a Service which is several virtual clusters' is told to be nobody's.
    pub(super) fn settle(&mut self, world: &mut World) {
        for port in std::mem::take(&mut self.touched) {
            let now = self.held.get(&port).and_then(|held| held.values().next()).cloned();
            let now = now.unwrap_or(Owner::Shared);
            let before = self.told.remove(&port).unwrap_or(Owner::Shared);
            if now != before {
                change(world, &before, |ports| ports.remove(&port));
                change(world, &now, |ports| ports.insert(port));
            }
            if now != Owner::Shared {
                self.told.insert(port, now);
            }
        }
    }
}

fn change(world: &mut World, owner: &Owner, change: impl FnOnce(&mut BTreeSet<NodePort>) -> bool) {
    match owner {
        Owner::Shared | Owner::Plain => {}
        Owner::Nobody => drop(change(Arc::make_mut(&mut world.unclear_node_ports))),
        Owner::VirtualCluster(name) => {
            let all = Arc::make_mut(&mut world.node_ports);
            let ports = all.entry(name.clone()).or_default();
            change(Arc::make_mut(ports));
            if ports.is_empty() {
                all.remove(name);
            }
        }
    }
}
