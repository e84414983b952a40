//! How long to wait before the next try.

use std::time::Duration;

/// Doubles from the first to the longest wait; each is shortened by up to a half at random, so
/// that a thousand agents do not come back at the same moment.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// What was tried worked.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now; `random` is any number.
    pub(super) fn wait(&mut self, random: u64) -> Duration {
        let whole = self.next.min(self.longest);
        self.next = whole.saturating_mul(2).min(self.longest);
        let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX - 1);
        whole.saturating_sub(Duration::from_micros(random % (half + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Outside, World};

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let waits: Vec<u128> = (0..8).map(|_| backoff.wait(0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.wait(0), FIRST);
    }

    #[test]
    fn waits_differ_but_by_a_half_at_most() {
        let random = || World.random();
        let waits: Vec<Duration> =
            (0..50).map(|_| Backoff::new(LONGEST, LONGEST).wait(random())).collect();
        assert!(waits.iter().all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        assert_eq!(Backoff::new(FIRST, LONGEST).wait(100_000), FIRST / 2);
        assert_eq!(Backoff::new(Duration::ZERO, LONGEST).wait(7), Duration::ZERO);
    }
}
