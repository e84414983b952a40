//! Answers that are true for a while, not more of them than there is room for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Answers by question.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    most: usize,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Mutex::default() }
    }

    /// The answer, if it still holds.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, question: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entries = self.lock();
        let (answer, until) = entries.get(question)?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    /// Keeps an answer. Where there is no room, those that hold no longer go; if all do, all go:
    /// they are only asked for again.
    pub(super) fn keep(&self, question: K, answer: V, until: Instant) {
        let mut entries = self.lock();
        if entries.len() >= self.most {
            let now = Instant::now();
            entries.retain(|_, (_, until)| now < *until);
            if entries.len() >= self.most {
                entries.clear();
            }
        }
        entries.insert(question, (answer, until));
    }

    pub(super) fn forget<Q: Eq + Hash + ?Sized>(&self, question: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.lock().remove(question);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (V, Instant)>> {
        // No entry is ever half made.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_a_while_and_are_bounded() {
        let cache = Cache::new(2);
        let soon = Instant::now() + Duration::from_secs(5);
        let late = Instant::now() + Duration::from_secs(50);
        cache.keep("a", 1, soon);
        cache.keep("b", 2, late);
        assert_eq!((cache.get("a"), cache.get("b"), cache.get("c")), (Some(1), Some(2), None));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((cache.get("a"), cache.get("b")), (None, Some(2)));
        cache.keep("c", 3, late);
        assert_eq!((cache.get("b"), cache.get("c")), (Some(2), Some(3)), "the old one made room");
        cache.keep("d", 4, late);
        assert_eq!((cache.get("b"), cache.get("d")), (None, Some(4)));
        assert_eq!(cache.lock().len(), 1);
        cache.forget("d");
        assert_eq!(cache.get("d"), None);
    }
}
