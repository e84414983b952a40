//! Chance that repeats itself.

use std::sync::{Arc, Mutex, PoisonError};

/// A stream of numbers that its seed decides (`SplitMix64`). Clones go on together.
#[derive(Clone, Debug)]
pub(crate) struct Random(Arc<Mutex<u64>>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// Another stream, so that what one part draws changes nothing for the others.
    pub(crate) fn branch(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, but without, `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Both ends can come.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them; there is one at least.
    pub(crate) fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        let place = self.below(u64::try_from(choices.len()).unwrap_or(1));
        choices[usize::try_from(place).unwrap_or(0)]
    }
}
