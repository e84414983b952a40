//! A kernel in memory for tests of the cycle. It does steps as `bulkhead_core::model` says,
//! which the tests on real kernels are held to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bulkhead_abi::Counters;
use bulkhead_core::amount::Pids;
use bulkhead_core::{
    Bytes, Capacities, CgroupCounters, CgroupId, Control, NanoCores, NodeFacts, Observed,
    Placement, Pod, PodCgroup, PodSample, Sample, Step, Support, VirtualClusterName,
    VirtualClusterSample, model,
};

use super::seam::{Kernel, KernelError};
use crate::clock::Now;

/// A kernel in memory.
#[derive(Debug, Default)]
pub struct FakeKernel {
    /// What stands.
    pub observed: Observed,
    /// What the files of each virtual cluster's cgroup count.
    pub counted: BTreeMap<VirtualClusterName, CgroupCounters>,
    /// Steps that were done, as people read them.
    pub done: Vec<String>,
    /// Steps that fail: those whose line holds this text.
    pub failing: Option<String>,
    /// Virtual clusters whose counters cannot be read.
    pub unreadable: BTreeMap<VirtualClusterName, String>,
    /// Whether somebody took the root or the pins away.
    pub taken_away: bool,
    /// Where the processes of virtual clusters live.
    pub placement: Placement,
    /// What the files of each pod's cgroup count.
    pub counted_pods: BTreeMap<CgroupId, CgroupCounters>,
    /// What the programs counted of each pod.
    pub passed: BTreeMap<CgroupId, Box<Counters>>,
    next_cgroup: u64,
}

impl Kernel for FakeKernel {
    fn node(&mut self, _devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError> {
        Ok(NodeFacts {
            cpu: NanoCores(2_000_000_000),
            memory: Bytes(1 << 33),
            pids: Pids(32_768),
            page_bytes: 4_096,
            addresses: BTreeSet::new(),
            devices: BTreeMap::new(),
            support: Support::default(),
            capacities: Capacities::default(),
            placement: self.placement,
        })
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        if self.taken_away {
            let (subject, message) = ("node".to_owned(), "somebody removed the pins".to_owned());
            return Err(KernelError { subject, message, needs_restart: true });
        }
        Ok(self.observed.clone())
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let line = step.to_string();
        if self.failing.as_ref().is_some_and(|failing| line.contains(failing)) {
            let (subject, message) = (line, "it was told to fail".to_owned());
            return Err(KernelError { subject, message, needs_restart: false });
        }
        self.next_cgroup += 1;
        let offered = BTreeSet::from(Control::ALL);
        model::apply(&mut self.observed, step, CgroupId(self.next_cgroup), &offered)
            .map_err(|error| KernelError::new("model", &error))?;
        self.done.push(line);
        Ok(())
    }

    fn pod(&mut self, pod: &Pod) -> Result<Option<PodCgroup>, KernelError> {
        let mut pods = self.observed.pods.iter();
        let found = pods.find(|(_, path)| *path.uid() == pod.uid);
        Ok(found.map(|(id, path)| PodCgroup { path: path.clone(), id: *id }))
    }

    fn sample(&mut self, now: Now) -> Result<Sample, KernelError> {
        let sample = |(name, cgroup): (&VirtualClusterName, &bulkhead_core::ObservedCgroup)| {
            let cgroup_counters = self.counted.get(name).copied().unwrap_or_default();
            let cgroup = cgroup.id;
            let seen = VirtualClusterSample { cgroup, cgroup_counters, network: None };
            (name.clone(), seen)
        };
        let pod = |id: &CgroupId| {
            let cgroup_counters = self.counted_pods.get(id).copied().unwrap_or_default();
            (*id, PodSample { cgroup_counters, network: self.passed.get(id).cloned() })
        };
        Ok(Sample {
            at: now.at,
            since_boot_nanoseconds: now.since_boot_nanoseconds,
            network_epoch: bulkhead_core::UnixNanos(1),
            foreign: Vec::new(),
            virtual_clusters: self.observed.cgroups.iter().map(sample).collect(),
            failed: self.unreadable.clone(),
            pods: if self.placement == Placement::Overlay {
                self.observed.network.counters.iter().map(pod).collect()
            } else {
                BTreeMap::new()
            },
            failed_pods: BTreeMap::new(),
        })
    }
}
