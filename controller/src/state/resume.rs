//! What agents hold that are behind or away, so that one that comes again is told what changed
//! and not everything. Bounded: of all agents that are away so many generations are kept, and of
//! one agent that is connected so many that it has not acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::view::View;

/// Most generations that are kept for agents that are away. They share with the newest what has
/// not changed since.
const MOST_GENERATIONS: usize = 64;

/// Most of them that one agent may hold, as far as we know.
const MOST_OF_ONE: usize = 8;

/// What one agent was told and may hold: each generation, and the node's view of it. Where a view
/// stayed the same since, it is of the newest generation of which that is so.
type Sent = VecDeque<(u64, View)>;

/// What agents may hold.
#[derive(Debug)]
pub(crate) struct Resumable {
    /// What generations are counted by: a number that another controller gave means something
    /// else.
    pub(crate) instance: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    connected: HashMap<String, Weak<Mutex<Sent>>>,
    away: HashMap<String, Sent>,
    /// By generation: which nodes that are away hold a view of it.
    generations: BTreeMap<u64, BTreeSet<String>>,
}

/// What one connected agent holds.
#[derive(Debug)]
pub(crate) struct Holding<'a> {
    all: &'a Resumable,
    node: String,
    sent: Arc<Mutex<Sent>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resumable {
    pub(crate) fn new(instance: u64) -> Self {
        Self { instance, kept: Mutex::default() }
    }

    /// An agent has come. `held`: the generation that it holds, by its own word; where it is
    /// still known what that was, it goes on from there.
    pub(crate) fn connect(&self, node: &str, held: Option<u64>) -> Holding<'_> {
        let mut kept = lock(&self.kept);
        let before = kept.connected.get(node).and_then(Weak::upgrade);
        let of = |sent: &Sent| sent.iter().find(|(it, _)| Some(*it) == held).cloned();
        let found = before.and_then(|sent| of(&lock(&sent)));
        let found = found.or_else(|| kept.away.get(node).and_then(of));
        kept.forget(node);
        let sent = Arc::new(Mutex::new(found.into_iter().collect()));
        kept.connected.insert(node.to_owned(), Arc::downgrade(&sent));
        Holding { all: self, node: node.to_owned(), sent }
    }
}

impl Kept {
    fn forget(&mut self, node: &str) {
        for (_, view) in self.away.remove(node).into_iter().flatten() {
            let generation = view.world.generation;
            if let Some(nodes) = self.generations.get_mut(&generation) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.generations.remove(&generation);
                }
            }
        }
    }

    fn keep(&mut self, node: &str, sent: Sent) {
        for (_, view) in &sent {
            self.generations.entry(view.world.generation).or_default().insert(node.to_owned());
        }
        self.away.insert(node.to_owned(), sent);
        while self.generations.len() > MOST_GENERATIONS
            && let Some((oldest, nodes)) = self.generations.pop_first()
        {
            for node in nodes {
                let Some(sent) = self.away.get_mut(&node) else { continue };
                sent.retain(|(_, view)| view.world.generation != oldest);
                if sent.is_empty() {
                    self.away.remove(&node);
                }
            }
        }
    }
}

impl Holding<'_> {
    /// The newest that the agent was told; `None`: it must be told everything.
    pub(crate) fn newest(&self) -> Option<(u64, View)> {
        lock(&self.sent).back().cloned()
    }

    /// The agent was sent a view, as this generation.
    pub(crate) fn was_sent(&self, generation: u64, view: View) {
        let mut sent = lock(&self.sent);
        if sent.len() == MOST_OF_ONE {
            sent.pop_front();
        }
        sent.push_back((generation, view));
    }

    /// What the agent was sent last is what it would be told by a later generation, too.
    pub(crate) fn is_still(&self, view: View) {
        if let Some((_, newest)) = lock(&self.sent).back_mut() {
            *newest = view;
        }
    }

    /// The agent stands at this generation: it holds none before that. What it says may be
    /// another controller's number.
    pub(crate) fn acknowledged(&self, generation: u64) {
        let mut sent = lock(&self.sent);
        if let Some(place) = sent.iter().position(|(it, _)| *it == generation) {
            sent.drain(..place);
        }
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let mut kept = lock(&self.all.kept);
        let current = kept.connected.get(&self.node);
        // A younger stream of the node may have taken over.
        if current.is_some_and(|current| std::ptr::eq(current.as_ptr(), Arc::as_ptr(&self.sent))) {
            kept.connected.remove(&self.node);
            let sent = std::mem::take(&mut *lock(&self.sent));
            kept.keep(&self.node, sent);
        }
    }
}
