//! From what the kernel counted to what the ledger keeps.
//!
//! Records carry cumulative counters, keyed so that the ledger can merge them by maximum: sent
//! twice, late or out of order, the result is the same.

use std::collections::BTreeMap;

use crate::meter::Meter;
use crate::name::{CgroupId, VirtualClusterName, VirtualClusterNumber};
use crate::sample::UnixNanos;

/// A span of time to which what was last seen in it is booked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Window {
    /// A multiple of the length.
    pub start: UnixNanos,
    /// Nanoseconds, at least 1.
    pub length_nanoseconds: u64,
}

impl Window {
    /// The window of that length that holds `at`.
    pub const fn containing(at: UnixNanos, length_nanoseconds: std::num::NonZeroU64) -> Self {
        let length = length_nanoseconds.get();
        Self { start: UnixNanos(at.0 - at.0 % length), length_nanoseconds: length }
    }
}

/// The life of some counters: they were zero when it began. Zero: as long as the cgroup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// Counters of one cgroup of one virtual cluster, as last seen in one window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageRecord {
    /// Whose.
    pub virtual_cluster: VirtualClusterName,
    /// Its number.
    pub number: VirtualClusterNumber,
    /// The cgroup's incarnation.
    pub cgroup: CgroupId,
    /// The life of these counters.
    pub epoch: Epoch,
    /// When.
    pub window: Window,
    /// Cumulative since the epoch (counters) or highest in the window (gauges).
    pub values: BTreeMap<Meter, u64>,
}

mod account;
mod baseline;
mod integral;
mod pods;

pub use account::{Accounting, account};
pub use baseline::{Baseline, Baselines};
pub use integral::{Integral, Integrals};
pub use pods::{PodAccounting, PodOwner, account_pods};

/// What accounting carries over from pass to pass, and over restarts of the agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Books {
    /// Levels integrated over time.
    pub integrals: Integrals,
    /// Where counting began for pods.
    pub baselines: Baselines,
}
