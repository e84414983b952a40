//! What changed between two snapshots. A delta takes effect whole, on the snapshot that it was
//! made for, or not at all: one that does not fit says so, and never gives a snapshot that nobody
//! meant.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use crate::address::AddressBlock;
use crate::binding::{Binding, NodePolicy};
use crate::facts::{FactError, Snapshot};
use crate::inventory::{NamedPod, PodUid};
use crate::name::VirtualClusterName;
use crate::node_port::NodePort;
use crate::tenant::VirtualCluster;

/// What came into a set and what left it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetChange<T> {
    /// Was not there.
    pub added: BTreeSet<T>,
    /// Was there.
    pub removed: BTreeSet<T>,
}

impl<T> Default for SetChange<T> {
    fn default() -> Self {
        Self { added: BTreeSet::new(), removed: BTreeSet::new() }
    }
}

impl<T: Ord + Copy + Display> SetChange<T> {
    /// Between two sets.
    pub fn between(old: &BTreeSet<T>, new: &BTreeSet<T>) -> Self {
        Self {
            added: new.difference(old).copied().collect(),
            removed: old.difference(new).copied().collect(),
        }
    }

    /// Nothing came and nothing left.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// What was removed is taken away first, so nothing can be both.
    fn apply(&self, list: &'static str, set: &mut BTreeSet<T>) -> Result<(), DeltaError> {
        for one in &self.removed {
            if !set.remove(one) {
                return Err(DeltaError::NotThere { list, what: one.to_string() });
            }
        }
        for one in &self.added {
            if !set.insert(*one) || self.removed.contains(one) {
                return Err(DeltaError::There { list, what: one.to_string() });
            }
        }
        Ok(())
    }
}

/// What changed since another snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// The generation that it is a change of.
    pub base: u64,
    /// The generation that it leads to; later than `base`.
    pub generation: u64,
    /// Virtual clusters that are new, or others but for their addresses and node ports.
    pub upserted: BTreeMap<VirtualClusterName, VirtualCluster>,
    /// Virtual clusters that are gone.
    pub removed: BTreeSet<VirtualClusterName>,
    /// Addresses that came or went, of virtual clusters that are otherwise as before.
    pub addresses: BTreeMap<VirtualClusterName, SetChange<AddressBlock>>,
    /// Node ports that came or went, of virtual clusters that are otherwise as before.
    pub node_ports: BTreeMap<VirtualClusterName, SetChange<NodePort>>,
    /// Of the shared list.
    pub shared: SetChange<AddressBlock>,
    /// Of what is of no virtual cluster.
    pub plain: SetChange<AddressBlock>,
    /// Of the cluster's ranges.
    pub cluster_ranges: SetChange<AddressBlock>,
    /// Of the host addresses.
    pub node_addresses: SetChange<IpAddr>,
    /// Of the node ports that are nobody's.
    pub unclear_node_ports: SetChange<NodePort>,
    /// Namespaces whose bindings are others now: all of each.
    pub bindings: BTreeMap<String, Vec<Binding>>,
    /// Namespaces that have no binding any more.
    pub unbound: BTreeSet<String>,
    /// `None`: as before.
    pub policy: Option<NodePolicy>,
    /// Whether every pod of the node is named now; `None`: as before.
    pub names_pods: Option<bool>,
    /// Pods of the node that are new, or otherwise than they were.
    pub pods: BTreeMap<PodUid, NamedPod>,
    /// Pods of the node that have ended or are gone.
    pub pods_gone: BTreeSet<PodUid>,
}

/// Why a delta is not taken; the snapshot that it was for stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeltaError {
    /// It is a change of another snapshot.
    #[error("it is a change of generation {base}, and generation {held} is held")]
    OtherBase {
        /// The generation that it is a change of.
        base: u64,
        /// The one that is there; 0: none.
        held: u64,
    },
    /// It leads back.
    #[error("it leads from generation {base} back to {generation}")]
    Backwards {
        /// The generation that it is a change of.
        base: u64,
        /// The one that it leads to.
        generation: u64,
    },
    /// It changes or takes away what is not there.
    #[error("{list}: \"{what}\" is not there")]
    NotThere {
        /// What it would be in.
        list: &'static str,
        /// What it is.
        what: String,
    },
    /// It adds what is there, or says two things of one.
    #[error("{list}: \"{what}\" is there already, or comes twice")]
    There {
        /// What it is in.
        list: &'static str,
        /// What it is.
        what: String,
    },
    /// What it leads to makes no sense.
    #[error(transparent)]
    Fact(#[from] FactError),
}

impl DeltaError {
    /// Whether what is held is not what the sender takes it for: then only the whole helps. Else
    /// what the delta leads to is wrong, however it is told.
    pub const fn is_misfit(&self) -> bool {
        !matches!(self, Self::Fact(_))
    }
}

impl Delta {
    /// What leads from `old` to `new`, which is the later generation.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut delta = Self {
            base: old.generation,
            generation: new.generation,
            shared: SetChange::between(&old.shared, &new.shared),
            plain: SetChange::between(&old.plain, &new.plain),
            cluster_ranges: SetChange::between(&old.cluster_ranges, &new.cluster_ranges),
            node_addresses: SetChange::between(&old.node_addresses, &new.node_addresses),
            unclear_node_ports: SetChange::between(
                &old.unclear_node_ports,
                &new.unclear_node_ports,
            ),
            policy: (old.policy != new.policy).then_some(new.policy),
            names_pods: (old.names_pods != new.names_pods).then_some(new.names_pods),
            ..Self::default()
        };
        delta.compare_pods(&old.pods, &new.pods);
        for (name, cluster) in &new.virtual_clusters {
            match old.virtual_clusters.get(name) {
                Some(before) if before.differs_by_places_only(cluster) => {
                    let change = SetChange::between(&before.addresses, &cluster.addresses);
                    if !change.is_empty() {
                        delta.addresses.insert(name.clone(), change);
                    }
                    let change = SetChange::between(&before.node_ports, &cluster.node_ports);
                    if !change.is_empty() {
                        delta.node_ports.insert(name.clone(), change);
                    }
                }
                _ => drop(delta.upserted.insert(name.clone(), cluster.clone())),
            }
        }
        let gone = |name: &&VirtualClusterName| !new.virtual_clusters.contains_key(*name);
        delta.removed = old.virtual_clusters.keys().filter(gone).cloned().collect();
        for (namespace, bindings) in &new.bindings.0 {
            if old.bindings.0.get(namespace) != Some(bindings) {
                delta.bindings.insert(namespace.clone(), bindings.clone());
            }
        }
        let unbound = |namespace: &&String| !new.bindings.0.contains_key(*namespace);
        delta.unbound = old.bindings.0.keys().filter(unbound).cloned().collect();
        delta
    }

    /// Says how one set of the node's pods differs from another.
    pub fn compare_pods<P: Borrow<NamedPod> + PartialEq>(
        &mut self,
        old: &BTreeMap<PodUid, P>,
        new: &BTreeMap<PodUid, P>,
    ) {
        let news = new.iter().filter(|(uid, pod)| old.get(uid) != Some(pod));
        self.pods = news.map(|(uid, pod)| (uid.clone(), pod.borrow().clone())).collect();
        self.pods_gone = old.keys().filter(|uid| !new.contains_key(uid)).cloned().collect();
    }

    /// Nothing changed but the generation.
    pub fn is_empty(&self) -> bool {
        let Self { base, generation, .. } = *self;
        *self == Self { base, generation, ..Self::default() }
    }

    fn apply_clusters(
        &self,
        clusters: &mut BTreeMap<VirtualClusterName, VirtualCluster>,
    ) -> Result<(), DeltaError> {
        let list = "virtual clusters";
        for name in &self.removed {
            if clusters.remove(name).is_none() {
                return Err(DeltaError::NotThere { list, what: name.to_string() });
            }
        }
        for (name, change) in &self.addresses {
            let missing = || DeltaError::NotThere { list, what: name.to_string() };
            let cluster = clusters.get_mut(name).ok_or_else(missing)?;
            change.apply("addresses of a virtual cluster", &mut cluster.addresses)?;
        }
        for (name, change) in &self.node_ports {
            let missing = || DeltaError::NotThere { list, what: name.to_string() };
            let cluster = clusters.get_mut(name).ok_or_else(missing)?;
            change.apply("node ports of a virtual cluster", &mut cluster.node_ports)?;
        }
        for (name, cluster) in &self.upserted {
            let is_changed =
                self.addresses.contains_key(name) || self.node_ports.contains_key(name);
            if self.removed.contains(name) || is_changed {
                return Err(DeltaError::There { list, what: name.to_string() });
            }
            clusters.insert(name.clone(), cluster.clone());
        }
        Ok(())
    }

    fn apply_bindings(
        &self,
        bindings: &mut BTreeMap<String, Vec<Binding>>,
    ) -> Result<(), DeltaError> {
        let list = "bindings";
        for namespace in &self.unbound {
            if bindings.remove(namespace).is_none() {
                return Err(DeltaError::NotThere { list, what: namespace.clone() });
            }
        }
        for (namespace, bound) in &self.bindings {
            if self.unbound.contains(namespace) {
                return Err(DeltaError::There { list, what: namespace.clone() });
            }
            bindings.insert(namespace.clone(), bound.clone());
        }
        Ok(())
    }
}

fn apply_pods(delta: &Delta, pods: &mut BTreeMap<PodUid, NamedPod>) -> Result<(), DeltaError> {
    let list = "pods";
    for uid in &delta.pods_gone {
        if pods.remove(uid).is_none() {
            return Err(DeltaError::NotThere { list, what: uid.to_string() });
        }
    }
    for (uid, pod) in &delta.pods {
        if delta.pods_gone.contains(uid) {
            return Err(DeltaError::There { list, what: uid.to_string() });
        }
        pods.insert(uid.clone(), pod.clone());
    }
    Ok(())
}

impl Snapshot {
    /// The snapshot that a delta leads to from this one.
    pub fn changed_by(&self, delta: &Delta) -> Result<Self, DeltaError> {
        let (base, generation, held) = (delta.base, delta.generation, self.generation);
        if base != held {
            return Err(DeltaError::OtherBase { base, held });
        }
        if generation <= base {
            return Err(DeltaError::Backwards { base, generation });
        }
        let mut next = self.clone();
        next.generation = generation;
        delta.apply_clusters(&mut next.virtual_clusters)?;
        delta.shared.apply("shared", &mut next.shared)?;
        delta.plain.apply("plain", &mut next.plain)?;
        delta.cluster_ranges.apply("cluster ranges", &mut next.cluster_ranges)?;
        delta.node_addresses.apply("node addresses", &mut next.node_addresses)?;
        delta.unclear_node_ports.apply("unclear node ports", &mut next.unclear_node_ports)?;
        delta.apply_bindings(&mut next.bindings.0)?;
        next.policy = delta.policy.unwrap_or(next.policy);
        next.names_pods = delta.names_pods.unwrap_or(next.names_pods);
        apply_pods(delta, &mut next.pods)?;
        next.check()?;
        Ok(next)
    }
}

impl VirtualCluster {
    /// Whether nothing but its addresses and node ports differs.
    pub fn differs_by_places_only(&self, other: &Self) -> bool {
        let Self { name, number, addresses: _, node_ports: _, guarantee, limit, network } = self;
        *name == other.name
            && *number == other.number
            && *guarantee == other.guarantee
            && *limit == other.limit
            && *network == other.network
    }
}

#[cfg(test)]
mod tests;
