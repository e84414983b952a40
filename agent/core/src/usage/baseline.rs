//! Where counting begins for a pod: its cgroup has counted since it was made, and its virtual
//! cluster owes for no more than the time in which the pod was its own.

use std::collections::{BTreeMap, BTreeSet};

use super::Epoch;
use crate::meter::{Kind, Meter};
use crate::name::{CgroupId, VirtualClusterNumber};

/// Where counting began for every pod; kept over restarts of the agent, not over boots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Baselines {
    /// By cgroup.
    pub by_cgroup: BTreeMap<CgroupId, Baseline>,
    /// Pods that ran already, whose network counters began at zero when they became their virtual
    /// cluster's. Not kept over a restart: another agent cannot know what was booked since.
    pub new_counters: BTreeSet<CgroupId>,
    /// Pods that were a virtual cluster's and are nobody's. Not kept over a restart.
    pub left: BTreeSet<CgroupId>,
}

/// Where counting began for one pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline {
    /// Whose it is.
    pub number: VirtualClusterNumber,
    /// Since when; zero: as long as the cgroup.
    pub epoch: Epoch,
    /// The life of the network counters that are in `values`.
    pub network_epoch: Epoch,
    /// What its counters held then; what is not here was zero.
    pub values: BTreeMap<Meter, u64>,
}

impl Baseline {
    /// A pod that was its virtual cluster's before any of its containers ran.
    pub const fn whole(number: VirtualClusterNumber) -> Self {
        let (epoch, network_epoch) = (Epoch(0), Epoch(0));
        Self { number, epoch, network_epoch, values: BTreeMap::new() }
    }

    /// What was counted since, of counters that count as long as the cgroup. Levels are what they
    /// are.
    pub(super) fn since(&self, values: BTreeMap<Meter, u64>) -> BTreeMap<Meter, u64> {
        let since = |(meter, value): (Meter, u64)| match meter.kind() {
            Kind::Gauge => (meter, value),
            Kind::Counter => {
                let before = self.values.get(&meter).copied().unwrap_or(0);
                (meter, value.saturating_sub(before))
            }
        };
        values.into_iter().map(since).collect()
    }

    /// The same of network counters with a life of their own; `None`: of these it is not known
    /// what they held.
    pub(super) fn network_since(
        &self,
        epoch: Epoch,
        values: BTreeMap<Meter, u64>,
    ) -> Option<(Epoch, BTreeMap<Meter, u64>)> {
        if epoch > self.epoch {
            Some((epoch, values))
        } else if epoch == self.network_epoch {
            Some((self.epoch, self.since(values)))
        } else {
            None
        }
    }
}

impl Baselines {
    /// A pod begins to run. It is its virtual cluster's from the first, unless its cgroup was
    /// another's or nobody's before: then it is counted from when that is seen.
    pub fn begin(&mut self, cgroup: CgroupId, number: VirtualClusterNumber) {
        if self.left.contains(&cgroup) {
            self.counters_begin(cgroup);
        } else {
            self.by_cgroup.entry(cgroup).or_insert_with(|| Baseline::whole(number));
        }
    }

    /// A pod's network counters ended, after they were booked: while it is nobody's, nothing of it
    /// is anybody's.
    pub fn counters_end(&mut self, cgroup: CgroupId) {
        self.new_counters.remove(&cgroup);
        if self.by_cgroup.remove(&cgroup).is_some() {
            self.left.insert(cgroup);
        }
    }

    /// Network counters of a pod begin, at zero: all that they will hold is its virtual cluster's.
    pub fn counters_begin(&mut self, cgroup: CgroupId) {
        self.new_counters.insert(cgroup);
    }

    /// Forgets cgroups that are gone.
    pub fn retain(&mut self, alive: &BTreeSet<CgroupId>) {
        self.new_counters.retain(|cgroup| alive.contains(cgroup));
        self.left.retain(|cgroup| alive.contains(cgroup));
        self.by_cgroup.retain(|cgroup, _| alive.contains(cgroup));
    }
}
