//! Levels integrated over time: memory in use becomes byte-seconds.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::CgroupId;
use crate::sample::UnixNanos;
use crate::usage::Epoch;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// The integrals of every cgroup; kept over restarts of the agent, not over boots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Integrals {
    /// By cgroup.
    pub by_cgroup: BTreeMap<CgroupId, Integral>,
}

/// The integral of one level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Integral {
    /// When it began at zero.
    pub epoch: Epoch,
    /// Whole byte-seconds.
    pub byte_seconds: u64,
    /// Byte-nanoseconds on top, less than 1,000,000,000.
    pub rest_byte_nanoseconds: u64,
    /// The level when it was last seen.
    pub last_bytes: u64,
    /// When it was last seen, nanoseconds since boot.
    pub last_since_boot_nanoseconds: u64,
}

impl Integral {
    const fn begin(at: UnixNanos, since_boot_nanoseconds: u64, bytes: u64) -> Self {
        Self {
            epoch: Epoch(at.0),
            byte_seconds: 0,
            rest_byte_nanoseconds: 0,
            last_bytes: bytes,
            last_since_boot_nanoseconds: since_boot_nanoseconds,
        }
    }

    /// Adds the time since it was last seen by the trapezoid rule. A gap longer than
    /// `longest_gap_nanoseconds` adds nothing: what was not seen is not invented.
    fn advance(&mut self, since_boot_nanoseconds: u64, bytes: u64, longest_gap_nanoseconds: u64) {
        let elapsed = since_boot_nanoseconds.saturating_sub(self.last_since_boot_nanoseconds);
        if elapsed <= longest_gap_nanoseconds {
            let doubled = u128::from(self.last_bytes) + u128::from(bytes);
            let area = doubled.saturating_mul(u128::from(elapsed)) / 2;
            let area = area + u128::from(self.rest_byte_nanoseconds);
            let seconds = u64::try_from(area / NANOSECONDS_PER_SECOND).unwrap_or(u64::MAX);
            self.byte_seconds = self.byte_seconds.saturating_add(seconds);
            self.rest_byte_nanoseconds =
                u64::try_from(area % NANOSECONDS_PER_SECOND).unwrap_or_default();
        }
        self.last_bytes = bytes;
        self.last_since_boot_nanoseconds = since_boot_nanoseconds;
    }
}

impl Integrals {
    /// Takes in what a cgroup holds now and gives its integral.
    pub fn see(
        &mut self,
        cgroup: CgroupId,
        at: UnixNanos,
        since_boot_nanoseconds: u64,
        bytes: u64,
        longest_gap_nanoseconds: u64,
    ) -> Integral {
        let begun = Integral::begin(at, since_boot_nanoseconds, bytes);
        let integral = self.by_cgroup.entry(cgroup).or_insert(begun);
        integral.advance(since_boot_nanoseconds, bytes, longest_gap_nanoseconds);
        *integral
    }

    /// Begins a cgroup's anew.
    pub fn forget(&mut self, cgroup: CgroupId) {
        self.by_cgroup.remove(&cgroup);
    }

    /// Forgets cgroups that are gone.
    pub fn retain(&mut self, alive: &BTreeSet<CgroupId>) {
        self.by_cgroup.retain(|cgroup, _| alive.contains(cgroup));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const ID: CgroupId = CgroupId(7);

    #[test]
    fn a_level_held_for_a_time_is_level_times_time() {
        let mut integrals = Integrals::default();
        for tick in 0..=10u64 {
            let at = UnixNanos(1_000 + tick);
            integrals.see(ID, at, tick * SECOND / 10, 50, SECOND);
        }
        let integral = integrals.by_cgroup[&ID];
        assert_eq!(integral.byte_seconds, 50);
        assert_eq!(integral.rest_byte_nanoseconds, 0);
        assert_eq!(integral.epoch, Epoch(1_000));
    }

    #[test]
    fn fractions_are_carried_not_lost() {
        let mut integrals = Integrals::default();
        for tick in 0..=3_000u64 {
            integrals.see(ID, UnixNanos(0), tick * SECOND / 3_000, 1, SECOND);
        }
        let integral = integrals.by_cgroup[&ID];
        // 3,000 steps of 333,333 ns and a few of 333,334 add up to one second.
        assert_eq!(integral.byte_seconds, 1);
    }

    #[test]
    fn a_gap_is_not_invented() {
        let mut integrals = Integrals::default();
        integrals.see(ID, UnixNanos(0), 0, 100, SECOND);
        integrals.see(ID, UnixNanos(0), 60 * SECOND, 100, SECOND);
        assert_eq!(integrals.by_cgroup[&ID].byte_seconds, 0);
        integrals.see(ID, UnixNanos(0), 61 * SECOND, 100, SECOND);
        assert_eq!(integrals.by_cgroup[&ID].byte_seconds, 100);
    }

    #[test]
    fn the_greatest_levels_do_not_overflow() {
        let mut integrals = Integrals::default();
        integrals.see(ID, UnixNanos(0), 0, u64::MAX, u64::MAX);
        integrals.see(ID, UnixNanos(0), u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(integrals.by_cgroup[&ID].byte_seconds, u64::MAX);
    }
}
