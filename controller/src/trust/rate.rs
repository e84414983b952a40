//! How often each of many may do something: a bucket for each, not more buckets than there is
//! room for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most buckets that are kept; a bucket that is full again need not be kept.
const MOST: usize = 16_384;

/// So many at once, and one more each so often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) one_each: Duration,
}

/// The buckets of all.
#[derive(Debug)]
pub(super) struct Rates<K> {
    rate: Rate,
    /// When each bucket will be full again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Rates<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_at: Mutex::default() }
    }

    /// Whether `who` may do it once more now.
    pub(super) fn take(&self, who: K) -> bool {
        let now = Instant::now();
        let Rate { burst, one_each } = self.rate;
        // Each entry is one value.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MOST && !full_at.contains_key(&who) {
            full_at.retain(|_, full| now < *full);
            if full_at.len() >= MOST {
                return false;
            }
        }
        let full = full_at.get(&who).map_or(now, |full| (*full).max(now)) + one_each;
        if full > now + one_each * burst {
            return false;
        }
        full_at.insert(who, full);
        true
    }

    /// What `who` took last does not count.
    pub(super) fn give_back(&self, who: &K) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full) = full_at.get_mut(who) {
            *full = full.checked_sub(self.rate.one_each).unwrap_or(*full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_has_a_burst_and_then_waits() {
        let rates = Rates::new(Rate { burst: 3, one_each: Duration::from_secs(1) });
        let took = |who| (0..5).filter(|_| rates.take(who)).count();
        assert_eq!((took("a"), took("b")), (3, 3));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(took("a"), 2);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(took("a"), 3, "no more than a burst is saved up");
        rates.give_back(&"a");
        assert_eq!(took("a"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_not_more_buckets_than_there_is_room_for() {
        let rates = Rates::new(Rate { burst: 1, one_each: Duration::from_secs(1) });
        assert!((0..MOST).all(|who| rates.take(who)));
        assert!(!rates.take(MOST));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(rates.take(MOST));
        assert_eq!(rates.full_at.lock().unwrap().len(), 1);
    }
}
