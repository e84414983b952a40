//! Which pods are on which node, to be named to that node. Many versions live at once: a change
//! copies a sixteenth of the nodes, and one node's pods.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bulkhead_core::{NamedPod, PodUid};

use super::cluster::Pod;

const SHARDS: usize = 16;

/// The pods of one node.
pub(crate) type NodePods = BTreeMap<PodUid, Arc<NamedPod>>;

type Shard = BTreeMap<Arc<str>, Arc<NodePods>>;

/// The pods of each node. Clones share what they have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    shards: [Arc<Shard>; SHARDS],
}

fn shard(node: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
}

impl Directory {
    /// The pods of a node; `None`: it has none.
    pub(crate) fn of(&self, node: &str) -> Option<&Arc<NodePods>> {
        self.shards[shard(node)].get(node)
    }

    /// Whether the two share everything: nothing is written that is there already.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.shards.iter().zip(&other.shards).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    fn put(&mut self, node: &Arc<str>, uid: &PodUid, pod: NamedPod) {
        let before = self.of(node).and_then(|pods| pods.get(uid));
        if before.is_some_and(|before| **before == pod) {
            return;
        }
        let nodes = Arc::make_mut(&mut self.shards[shard(node)]);
        let pods = nodes.entry(Arc::clone(node)).or_default();
        Arc::make_mut(pods).insert(uid.clone(), Arc::new(pod));
    }

    fn take(&mut self, node: &str, uid: &PodUid) {
        if !self.of(node).is_some_and(|pods| pods.contains_key(uid)) {
            return;
        }
        let nodes = Arc::make_mut(&mut self.shards[shard(node)]);
        let Some(pods) = nodes.get_mut(node) else { return };
        Arc::make_mut(pods).remove(uid);
        if pods.is_empty() {
            nodes.remove(node);
        }
    }
}

/// Where each pod is named.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_uid: HashMap<PodUid, Arc<str>>,
    /// Each once: many pods are on it.
    nodes: HashMap<Arc<str>, usize>,
}

impl Places {
    /// A pod is there, or is otherwise than it was; `None`: it is gone.
    pub(super) fn set(&mut self, directory: &mut Directory, uid: &str, pod: Option<&Pod>) {
        // What is no UID is no kubelet's.
        let Ok(uid) = uid.parse::<PodUid>() else { return };
        let named = pod.and_then(|pod| Some((pod.node.as_str(), pod.named()?)));
        if let Some(before) = self.by_uid.get(&uid).cloned()
            && named.as_ref().is_none_or(|(node, _)| **node != *before)
        {
            directory.take(&before, &uid);
            self.by_uid.remove(&uid);
            self.leave(&before);
        }
        let Some((node, pod)) = named else { return };
        let node = match self.by_uid.get(&uid) {
            Some(node) => Arc::clone(node),
            None => self.enter(&uid, node),
        };
        directory.put(&node, &uid, pod);
    }

    /// Every pod that is not named is gone.
    pub(super) fn retain(&mut self, directory: &mut Directory, is_there: impl Fn(&str) -> bool) {
        let gone = self.by_uid.keys().filter(|uid| !is_there(uid.as_str()));
        for uid in gone.cloned().collect::<Vec<_>>() {
            self.set(directory, uid.as_str(), None);
        }
    }

    fn enter(&mut self, uid: &PodUid, node: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(node).map(|(node, _)| Arc::clone(node));
        let node = known.unwrap_or_else(|| Arc::from(node));
        *self.nodes.entry(Arc::clone(&node)).or_default() += 1;
        self.by_uid.insert(uid.clone(), Arc::clone(&node));
        node
    }

    fn leave(&mut self, node: &Arc<str>) {
        if let Some(pods) = self.nodes.get_mut(node) {
            *pods -= 1;
            if *pods == 0 {
                self.nodes.remove(node);
            }
        }
    }
}
