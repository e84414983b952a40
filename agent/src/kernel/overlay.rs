//! The real kernel in Kubernetes: pods stay in the cgroups that the kubelet made for them, and are
//! registered there. Nothing is written to any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bulkhead_core::compile::UNWRITTEN;
use bulkhead_core::{
    CgroupId, Control, NodeFacts, Observed, ObservedNetwork, Placement, Pod, PodCgroup, PodPath,
    PodSample, Sample, Step, Support, UnixNanos, Unknown,
};

use super::bpf::Bpf;
use super::cgroup::{CgroupError, Counted, PodTree, Sampler, SamplerPass};
use super::probe::{Probe, host_addresses};
use super::seam::{Kernel, KernelError};
use super::tables::{self, table};
use crate::clock::Now;

/// The kernel of this node, with the kubelet's cgroups.
#[derive(Debug)]
pub struct OverlayKernel {
    tree: PodTree,
    sampler: Sampler<PodCgroup>,
    bpf: Bpf,
    probe: Probe,
}

fn cgroup(error: &CgroupError) -> KernelError {
    KernelError::new("kubepods", error)
}

impl OverlayKernel {
    /// The kernel with the kubelet's root open, and programs that are loaded for it.
    pub const fn new(tree: PodTree, bpf: Bpf, probe: Probe, sampler: Sampler<PodCgroup>) -> Self {
        Self { tree, sampler, bpf, probe }
    }

    /// The kubelet makes its root when it starts on a fresh node; the programs go with the old one.
    fn must_be_whole(&self) -> Result<(), KernelError> {
        let replaced = self.tree.is_replaced().map_err(|error| cgroup(&error))?;
        let root = || format!("root of the kubelet at {}", self.tree.path().display());
        tables::must_be_whole(&self.bpf, replaced.then(root))
    }

    fn directory(&self, path: &PodPath) -> PathBuf {
        self.tree.path().join(Path::new(path.relative()))
    }
}

impl Kernel for OverlayKernel {
    fn node(&mut self, devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError> {
        let addresses = host_addresses().map_err(|error| KernelError::new("addresses", &error))?;
        let capacities = tables::capacities(&self.bpf);
        let facts = self.probe.node_facts(&[], addresses, devices, capacities);
        let missing = Control::ALL.into_iter().map(|control| (control, UNWRITTEN.to_owned()));
        let support = Support { missing: missing.collect() };
        Ok(NodeFacts { placement: Placement::Overlay, support, ..facts })
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.must_be_whole()?;
        // Before the tables: a pod that comes in between is not taken for one that has gone.
        let network = tables::observe(&self.bpf)?;
        let unknown = self.bpf.unknown().map_err(table("PLACEMENT"))?;
        let unknown =
            if unknown == bulkhead_abi::Placement::PASS { Unknown::Allow } else { Unknown::Deny };
        let network = ObservedNetwork { unknown: Some(unknown), ..network };
        let pods = self.tree.pods().map_err(|error| cgroup(&error))?;
        Ok(Observed { pods, network, ..Observed::default() })
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::EndPodConnections { name, pod } => {
                let directory = self.directory(&pod.path);
                tables::end_connections(&self.bpf, (pod.id.0, &directory), name)
            }
            Step::SetUnknown(unknown) => {
                let unknown = match unknown {
                    Unknown::Allow => bulkhead_abi::Placement::PASS,
                    Unknown::Deny => bulkhead_abi::Placement::DROP,
                };
                self.bpf.set_unknown(unknown).map_err(table("PLACEMENT"))
            }
            step => tables::apply(&self.bpf, step),
        }
    }

    fn pod(&mut self, pod: &Pod) -> Result<Option<PodCgroup>, KernelError> {
        self.tree.pod(pod).map_err(|error| cgroup(&error))
    }

    fn sample(&mut self, now: Now) -> Result<Sample, KernelError> {
        let counters = self.bpf.tables().counters.read_all().map_err(table("CELLS"))?;
        let mut counters: BTreeMap<_, _> =
            counters.into_iter().map(|(id, counters)| (CgroupId(id), counters)).collect();
        let ids: BTreeSet<CgroupId> = counters.keys().copied().collect();
        let counted = Counted { tree: &self.tree, ids: &ids };
        let pass = self.sampler.sample(&counted).map_err(|error| cgroup(&error))?;
        let mut sample = Sample {
            at: now.at,
            since_boot_nanoseconds: now.since_boot_nanoseconds,
            network_epoch: UnixNanos(self.bpf.epoch()),
            foreign: tables::foreign_counters(&self.bpf)?,
            ..Sample::default()
        };
        take_readings(pass, &mut sample);
        // Counters stand still while a program is off: what passes then is a gap.
        if !self.bpf.is_linked().map_err(table("programs"))? {
            let off = "the kernel programs were off".to_owned();
            sample.failed_pods.extend(sample.pods.keys().map(|id| (*id, off.clone())));
            return Ok(sample);
        }
        for (id, seen) in &mut sample.pods {
            seen.network = counters.remove(id).map(Box::new);
        }
        // What is left is of pods whose cgroups are gone; what they sent last is still here.
        let left = counters.into_iter().filter(|(id, _)| !sample.failed_pods.contains_key(id));
        let left = left.map(|(id, counters)| {
            (id, PodSample { network: Some(Box::new(counters)), ..PodSample::default() })
        });
        sample.pods.extend(left.collect::<Vec<_>>());
        Ok(sample)
    }
}

fn take_readings(pass: SamplerPass<PodCgroup>, sample: &mut Sample) {
    for reading in pass.readings.into_values() {
        let seen = PodSample { cgroup_counters: reading.counters, network: None };
        sample.pods.insert(reading.id, seen);
    }
    let failed = pass.failed.into_iter();
    sample.failed_pods.extend(failed.map(|(pod, error)| (pod.id, cgroup(&error).message)));
}
