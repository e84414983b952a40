//! How nodes stand, as their agents say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_core::LocalPods;
use bulkhead_proto::time::timestamp;
use bulkhead_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::ledger::KnownNode;

/// Every node that ever reported.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: Mutex<BTreeMap<String, Node>>,
    /// Counts changes that operators can see.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Node {
    facts: v1::NodeFacts,
    status: Option<v1::NodeStatus>,
    last_seen: u64,
    sent_generation: u64,
    left_out: LeftOut,
    live: Option<Live>,
    /// How many streams it had: each has a number.
    streams: u64,
    /// As its agent says.
    pods: Arc<LocalPods>,
    /// Why what it said last is not taken.
    wrong_pods: Option<String>,
}

/// Usage that a node reported and that cannot be booked, since the controller began.
#[derive(Debug, Default)]
struct LeftOut {
    records: usize,
    /// What is wrong with the one that came last.
    last: String,
}

/// The stream that a node has now.
#[derive(Debug)]
struct Live {
    stream: u64,
    started: u64,
    /// Ends it.
    replace: oneshot::Sender<()>,
}

/// A younger process of the node has a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Older {
    /// When that one began, nanoseconds since the Unix epoch.
    pub(crate) younger_started: u64,
}

/// A node's stream, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Stream {
    nodes: Arc<Nodes>,
    node: String,
    number: u64,
}

impl Nodes {
    /// With what the ledger remembers.
    pub(crate) fn new(known: Vec<KnownNode>) -> Self {
        let node = |known: KnownNode| {
            let node = Node { facts: known.facts, last_seen: known.last_seen, ..Node::default() };
            (known.name, node)
        };
        let nodes = known.into_iter().map(node).collect();
        Self { nodes: Mutex::new(nodes), changes: watch::Sender::default() }
    }

    /// Gives a node's stream to an agent process that began at `started`. The older of two is
    /// refused; the stream that was there is told to end through its receiver.
    pub(crate) fn connect(
        self: &Arc<Self>,
        node: &str,
        facts: v1::NodeFacts,
        started: u64,
        now: u64,
    ) -> Result<(Stream, oneshot::Receiver<()>), Older> {
        let (replace, replaced) = oneshot::channel();
        let number = {
            let mut nodes = self.lock();
            let entry = nodes.entry(node.to_owned()).or_default();
            if let Some(live) = &entry.live
                && live.started > started
            {
                return Err(Older { younger_started: live.started });
            }
            entry.streams += 1;
            let live = Live { stream: entry.streams, started, replace };
            if let Some(before) = entry.live.replace(live) {
                // Its task may have ended by itself.
                let _ = before.replace.send(());
            }
            entry.facts = facts;
            entry.last_seen = now;
            entry.streams
        };
        self.changed();
        Ok((Stream { nodes: Arc::clone(self), node: node.to_owned(), number }, replaced))
    }

    /// The addresses that each node has, as its agent said.
    pub(crate) fn addresses(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let nodes = self.lock();
        nodes.iter().map(|(name, node)| (name.clone(), addresses(&node.facts))).collect()
    }

    /// The pods of a node, as its agent said last.
    pub(crate) fn pods(&self, name: &str) -> Arc<LocalPods> {
        self.lock().get(name).map(|node| Arc::clone(&node.pods)).unwrap_or_default()
    }

    /// The generation that a node said last that it stands at; 0: none.
    #[expect(dead_code, reason = "the watches of Kubernetes ask for it")]
    pub(crate) fn acknowledged(&self, name: &str) -> u64 {
        let nodes = self.lock();
        let status = nodes.get(name).and_then(|node| node.status.as_ref());
        status.map_or(0, |status| status.applied_generation)
    }

    /// Forgets the pods of a node that has no stream. Gives whether it did.
    pub(crate) fn forget_pods(&self, name: &str) -> bool {
        let mut nodes = self.lock();
        let node = nodes.get_mut(name).filter(|node| node.live.is_none() && !node.pods.is_empty());
        node.map(|node| node.pods = Arc::default()).is_some()
    }

    /// Whether any node was ever called so.
    pub(crate) fn get(&self, name: &str) -> Option<v1::Node> {
        self.lock().get(name).map(|node| node.shown(name))
    }

    /// At most `most` nodes whose names come after `after`, by name.
    pub(crate) fn list(&self, after: &str, most: usize) -> Vec<v1::Node> {
        let nodes = self.lock();
        let later = nodes.iter().filter(|(name, _)| name.as_str() > after);
        later.take(most).map(|(name, node)| node.shown(name)).collect()
    }

    /// How each node does by each virtual cluster.
    pub(crate) fn by_virtual_cluster(&self) -> BTreeMap<String, Vec<v1::VirtualClusterNodeStatus>> {
        let nodes = self.lock();
        let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for status in nodes.values().filter_map(|node| node.status.as_ref()) {
            for one in &status.virtual_clusters {
                found.entry(one.name.clone()).or_default().push(one.clone());
            }
        }
        found
    }

    /// Tells of changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        // Each change is a few assignments: none can panic half way.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a node's facts is an address.
pub(crate) fn addresses(facts: &v1::NodeFacts) -> BTreeSet<IpAddr> {
    facts.addresses.iter().filter_map(|text| text.parse().ok()).collect()
}

impl Node {
    fn shown(&self, name: &str) -> v1::Node {
        let connection = match self.live {
            Some(_) => v1::node::Connection::Connected,
            None => v1::node::Connection::Away,
        };
        let mut status = self.status.clone();
        let LeftOut { records, last } = &self.left_out;
        if *records > 0 {
            let message = format!("{records} records are not booked, the last one: {last}");
            let reason = v1::Reason { subject: "usage".to_owned(), message };
            status.get_or_insert_default().reasons.push(reason);
        }
        if let Some(problem) = &self.wrong_pods {
            let message = format!("what the agent says of its pods is not taken: {problem}");
            let reason = v1::Reason { subject: "pods".to_owned(), message };
            status.get_or_insert_default().reasons.push(reason);
        }
        v1::Node {
            name: name.to_owned(),
            connection: connection.into(),
            last_seen: Some(timestamp(self.last_seen)),
            facts: Some(self.facts.clone()),
            status,
            wanted_generation: self.sent_generation,
        }
    }
}

impl Stream {
    /// The node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The node was heard of.
    pub(crate) fn seen(&self, now: u64) {
        self.update(|node| node.last_seen = now);
    }

    /// The node was sent this generation.
    pub(crate) fn sent(&self, generation: u64) {
        self.update(|node| node.sent_generation = generation);
        self.nodes.changed();
    }

    /// Records of the node cannot be booked; what is wrong with each.
    pub(crate) fn left_out(&self, records: &[String]) {
        self.update(|node| {
            node.left_out.records += records.len();
            node.left_out.last = records.last().cloned().unwrap_or_default();
        });
        self.nodes.changed();
    }

    /// The node said how it stands.
    pub(crate) fn stands(&self, mut status: v1::NodeStatus, now: u64) {
        for one in &mut status.virtual_clusters {
            one.node.clone_from(&self.node);
            one.observed_at.get_or_insert_with(|| timestamp(now));
        }
        self.update(|node| {
            node.status = Some(status);
            node.last_seen = now;
        });
        self.nodes.changed();
    }

    /// The node said which pods it has; `whole`: all of them. Gives all that it has now, where
    /// that is news and no other stream has the node; or how many it would have, where that is
    /// more than `most`.
    pub(crate) fn has_pods(
        &self,
        whole: bool,
        pods: LocalPods,
        removed: &[String],
        most: usize,
    ) -> Result<Option<Arc<LocalPods>>, usize> {
        let mut all = Ok(None);
        self.update(|node| {
            let mut next = if whole { LocalPods::new() } else { LocalPods::clone(&node.pods) };
            next.extend(pods);
            for uid in removed {
                next.remove(uid);
            }
            if next.len() > most {
                all = Err(next.len());
                return;
            }
            node.wrong_pods = None;
            if next != *node.pods {
                node.pods = Arc::new(next);
                all = Ok(Some(Arc::clone(&node.pods)));
            }
        });
        all
    }

    /// What the node said of its pods is not taken; why.
    pub(crate) fn has_wrong_pods(&self, problem: String) {
        self.update(|node| node.wrong_pods = Some(problem));
        self.nodes.changed();
    }

    /// Changes the node, unless another stream has it now.
    fn update(&self, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.lock().get_mut(&self.node)
            && node.live.as_ref().is_some_and(|live| live.stream == self.number)
        {
            change(node);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.update(|node| node.live = None);
        self.nodes.changed();
    }
}
