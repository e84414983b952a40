//! Pods: whose each is, and which has an address.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::VirtualClusterName;
use bulkhead_core::binding::{Bindings, Labels};

use super::told::{Key, Pod};

/// Whose a pod is; `None`: of no virtual cluster.
pub(crate) type Owner = Option<Arc<VirtualClusterName>>;

/// A pod, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    pub(crate) pod: Pod,
    pub(crate) owner: Owner,
}

impl Owned {
    /// Addresses that are the pod's own.
    pub(crate) fn holds(&self) -> &[IpAddr] {
        if self.pod.host_network { &[] } else { &self.pod.addresses }
    }
}

/// How many pods of a virtual cluster there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Pods that have not ended.
    pub(crate) pods: usize,
    /// Of these, those in the host's network.
    pub(crate) host_network: usize,
    /// Nodes that have one.
    pub(crate) nodes: usize,
}

/// How many pods of a virtual cluster a node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Present {
    pub(crate) pods: usize,
    /// Of these, those in the host's network.
    pub(crate) host_network: usize,
}

/// Holders of one address: nearly always one.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Holders {
    One(Key),
    Some(HashSet<Key>),
}

/// Every pod that has not ended. Costs about what a test says (`a_pod_takes_few_bytes`).
#[derive(Debug, Default)]
pub(crate) struct Pods {
    all: HashMap<Key, Owned>,
    in_namespace: HashMap<Arc<str>, HashSet<Arc<str>>>,
    at: HashMap<IpAddr, Holders>,
    counts: HashMap<Arc<VirtualClusterName>, Counts>,
    /// Pods by node and virtual cluster.
    on_node: HashMap<Arc<str>, BTreeMap<Arc<VirtualClusterName>, Present>>,
    names: HashMap<Arc<VirtualClusterName>, usize>,
    labels: HashMap<Arc<Labels>, usize>,
    texts: HashMap<Arc<str>, usize>,
}

/// What a change of one pod was.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// The pod as it was.
    pub(crate) before: Option<Owned>,
    /// Whether anything is different now.
    pub(crate) any: bool,
}

impl Pods {
    pub(crate) fn get(&self, key: &Key) -> Option<&Owned> {
        self.all.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.all.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Owned> {
        self.all.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The pods of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Key> {
        let Some((namespace, names)) = self.in_namespace.get_key_value(namespace) else {
            return Vec::new();
        };
        names.iter().map(|name| Key::new(Arc::clone(namespace), Arc::clone(name))).collect()
    }

    /// How many pods each virtual cluster has.
    pub(crate) fn counts(&self, name: &VirtualClusterName) -> Counts {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Which virtual clusters have pods on which node.
    pub(crate) fn presence(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<VirtualClusterName>, Present)> {
        let nodes = self.on_node.iter();
        nodes.flat_map(|(node, there)| there.iter().map(move |(name, it)| (node, name, *it)))
    }

    /// The pod that has an address. Of two, which happens while one goes and the address is given
    /// anew: the one that does not end, then the younger.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Owned> {
        match self.at.get(&address)? {
            Holders::One(key) => self.all.get(key),
            Holders::Some(keys) => keys
                .iter()
                .filter_map(|key| self.all.get(key))
                .max_by_key(|it| (Reverse(it.pod.ending), it.pod.created, &it.pod.uid)),
        }
    }

    /// Takes in a pod.
    pub(crate) fn apply(&mut self, mut pod: Pod, bindings: &Bindings) -> Changed {
        let owner = bindings.owner(&pod.key.namespace, &pod.labels).cloned();
        if let Some(known) = self.all.get(&pod.key)
            && known.pod == pod
            && known.owner.as_deref() == owner.as_ref()
        {
            return Changed::default();
        }
        let before = self.remove(&pod.key);
        pod.labels = taken(&mut self.labels, pod.labels);
        pod.key.namespace = taken(&mut self.texts, pod.key.namespace);
        pod.node = pod.node.map(|node| taken(&mut self.texts, node));
        let owner = owner.map(|owner| taken(&mut self.names, Arc::new(owner)));
        let placed = Owned { pod, owner };
        self.attach(&placed);
        self.all.insert(placed.pod.key.clone(), placed);
        Changed { before, any: true }
    }

    /// Decides anew whose a pod is.
    pub(crate) fn decide(&mut self, key: &Key, bindings: &Bindings) -> Changed {
        match self.all.get(key).map(|known| known.pod.clone()) {
            Some(pod) => self.apply(pod, bindings),
            None => Changed::default(),
        }
    }

    /// Takes a pod out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Owned> {
        let owned = self.all.remove(key)?;
        let Key { namespace, name } = &owned.pod.key;
        if let Entry::Occupied(mut there) = self.in_namespace.entry(Arc::clone(namespace)) {
            there.get_mut().remove(name);
            if there.get().is_empty() {
                there.remove();
            }
        }
        for address in owned.holds() {
            self.release(*address, key);
        }
        self.count(&owned, false);
        given_back(&mut self.labels, &owned.pod.labels);
        given_back(&mut self.texts, namespace);
        owned.pod.node.iter().for_each(|node| given_back(&mut self.texts, node));
        owned.owner.iter().for_each(|owner| given_back(&mut self.names, owner));
        Some(owned)
    }

    fn attach(&mut self, owned: &Owned) {
        let key = &owned.pod.key;
        let there = self.in_namespace.entry(Arc::clone(&key.namespace)).or_default();
        there.insert(Arc::clone(&key.name));
        for address in owned.holds() {
            self.hold(*address, key);
        }
        self.count(owned, true);
    }

    fn hold(&mut self, address: IpAddr, key: &Key) {
        match self.at.entry(address) {
            Entry::Vacant(free) => drop(free.insert(Holders::One(key.clone()))),
            Entry::Occupied(mut there) => match there.get_mut() {
                Holders::One(other) if other == key => {}
                Holders::One(other) => {
                    let both = HashSet::from([other.clone(), key.clone()]);
                    *there.get_mut() = Holders::Some(both);
                }
                Holders::Some(keys) => drop(keys.insert(key.clone())),
            },
        }
    }

    fn release(&mut self, address: IpAddr, key: &Key) {
        let Entry::Occupied(mut there) = self.at.entry(address) else {
            return;
        };
        match there.get_mut() {
            Holders::One(holder) if holder == key => drop(there.remove()),
            Holders::One(_) => {}
            Holders::Some(keys) => {
                keys.remove(key);
                if let (1, Some(last)) = (keys.len(), keys.iter().next().cloned()) {
                    *there.get_mut() = Holders::One(last);
                }
            }
        }
    }

    fn count(&mut self, it: &Owned, more: bool) {
        let Some(owner) = &it.owner else {
            return;
        };
        let step = |count: &mut usize| {
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        };
        let counts = self.counts.entry(Arc::clone(owner)).or_default();
        step(&mut counts.pods);
        if it.pod.host_network {
            step(&mut counts.host_network);
        }
        if let Some(node) = &it.pod.node {
            let there = self.on_node.entry(Arc::clone(node)).or_default();
            let present = there.entry(Arc::clone(owner)).or_default();
            step(&mut present.pods);
            if it.pod.host_network {
                step(&mut present.host_network);
            }
            if (present.pods, more) == (1, true) {
                counts.nodes += 1;
            } else if present.pods == 0 {
                counts.nodes = counts.nodes.saturating_sub(1);
                there.remove(owner);
                if there.is_empty() {
                    self.on_node.remove(node);
                }
            }
        }
        if counts.pods == 0 {
            self.counts.remove(owner);
        }
    }
}

/// The one copy of a value that many pods have, counted once more.
fn taken<T: std::hash::Hash + Eq + ?Sized>(
    known: &mut HashMap<Arc<T>, usize>,
    it: Arc<T>,
) -> Arc<T> {
    let shared = known.get_key_value(&it).map_or(it, |(shared, _)| Arc::clone(shared));
    *known.entry(Arc::clone(&shared)).or_default() += 1;
    shared
}

/// One pod less has the value.
fn given_back<T: std::hash::Hash + Eq + ?Sized>(known: &mut HashMap<Arc<T>, usize>, it: &Arc<T>) {
    if let Some(count) = known.get_mut(it) {
        *count -= 1;
        if *count == 0 {
            known.remove(it);
        }
    }
}
