//! The real kernel: cgroupfs and bpf(2) behind the seam.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_core::{
    Controller, NodeFacts, Observed, Sample, Step, UnixNanos, VirtualClusterName,
    VirtualClusterSample,
};

use super::bpf::Bpf;
use super::cgroup::{CgroupError, CgroupTree, EmptyLeaves, Observer, Sampler};
use super::probe::{Probe, host_addresses};
use super::seam::{Kernel, KernelError};
use super::tables::{self, table};
use crate::clock::Now;

/// How long a leaf of `exec` may be empty before it is taken for left behind: one is empty for a
/// moment between its making and its first process, too.
const LEAF_GRACE: Duration = Duration::from_secs(10);

/// The kernel of this node.
#[derive(Debug)]
pub struct LinuxKernel {
    tree: CgroupTree,
    sampler: Sampler,
    observer: Observer,
    leaves: EmptyLeaves,
    bpf: Bpf,
    probe: Probe,
}

fn cgroup(error: &CgroupError) -> KernelError {
    KernelError::new("cgroup", error)
}

impl LinuxKernel {
    /// The kernel below an open root, with programs that are loaded. Enables every controller
    /// that the node has for our root: measuring needs them where no limit does.
    pub fn new(tree: CgroupTree, bpf: Bpf, probe: Probe) -> Self {
        for (controller, reason) in tree.enable(&BTreeSet::from(Controller::ALL)) {
            tracing::warn!(%controller, reason, "a controller is not to be had");
        }
        let (sampler, observer) = (Sampler::default(), Observer::default());
        Self { tree, sampler, observer, leaves: EmptyLeaves::default(), bpf, probe }
    }

    /// Reads usage in another way than from files alone.
    #[must_use]
    pub fn sampling_with(self, sampler: Sampler) -> Self {
        Self { sampler, ..self }
    }

    fn id(&self, name: &VirtualClusterName) -> Result<u64, KernelError> {
        let id = self.tree.create_virtual_cluster(name).map_err(|error| cgroup(&error))?;
        Ok(id.0)
    }

    fn must_be_whole(&self) -> Result<(), KernelError> {
        let replaced = self.tree.is_replaced().map_err(|error| cgroup(&error))?;
        let root = || format!("root {} of the virtual clusters", self.tree.path().display());
        tables::must_be_whole(&self.bpf, replaced.then(root))
    }

    fn apply_to_tables(&self, step: &Step) -> Result<(), KernelError> {
        let tables = self.bpf.tables();
        match step {
            Step::CreateCounters { name } => {
                let created = tables.counters.create(self.id(name)?);
                created.map(drop).map_err(table("CELLS"))
            }
            Step::SetMember { name, member } => {
                let entry = (self.id(name)?, *member);
                tables.members.put(&[entry]).map_err(table("MEMBERS"))
            }
            Step::Isolate { name } => {
                tables.members.remove(&[self.id(name)?]).map_err(table("MEMBERS"))
            }
            step => tables::apply(&self.bpf, step),
        }
    }

    /// Ends what the tables, as they stand now, deny.
    fn end_connections(&self, name: &VirtualClusterName) -> Result<(), KernelError> {
        let directory = self.tree.path().join(name.as_str());
        tables::end_connections(&self.bpf, (self.id(name)?, &directory), name)
    }
}

/// Members that are judged and not counted: their packets are a gap, not nothing.
fn uncounted<'a, C>(
    seen: impl Iterator<Item = (&'a VirtualClusterName, u64)>,
    members: &BTreeSet<u64>,
    counters: &BTreeMap<u64, C>,
) -> Vec<(VirtualClusterName, String)> {
    let gap = |(_, id): &(_, u64)| members.contains(id) && !counters.contains_key(id);
    let why = || "its packets are not counted: the kernel has no counters for it".to_owned();
    seen.filter(gap).map(|(name, _)| (name.clone(), why())).collect()
}

impl Kernel for LinuxKernel {
    fn node(&mut self, devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError> {
        let capacities = tables::capacities(&self.bpf);
        // Once our root has its controllers, its files are those of its children, too.
        let files = self.tree.control_files().map_err(|error| cgroup(&error))?;
        let controls = self.probe.controls(Some(&files));
        let addresses = host_addresses().map_err(|error| KernelError::new("addresses", &error))?;
        Ok(self.probe.node_facts(&controls, addresses, devices, capacities))
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.must_be_whole()?;
        let seen = self.observer.observe(&self.tree, self.sampler.iterator());
        let seen = seen.map_err(|error| cgroup(&error))?;
        let now = Duration::from_nanos(Now::read().since_boot_nanoseconds);
        let swept = self.leaves.sweep(&self.tree, &seen, now, LEAF_GRACE);
        for leaf in swept.map_err(|error| cgroup(&error))? {
            tracing::debug!(leaf, "removed an empty leaf");
        }
        let network = tables::observe(&self.bpf)?;
        Ok(Observed { cgroups: seen.cgroups, network, ..Observed::default() })
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::CreateCgroup { name, controllers } => {
                let wanted = controllers.iter().copied().collect();
                let refused = self.tree.enable(&wanted);
                self.tree.create_virtual_cluster(name).map_err(|error| cgroup(&error))?;
                match refused.into_iter().next() {
                    Some((controller, message)) => {
                        let subject = controller.name().to_owned();
                        Err(KernelError { subject, message, needs_restart: false })
                    }
                    None => Ok(()),
                }
            }
            Step::SetControl { name, control, value } => self
                .tree
                .write(name, *control, value)
                .map_err(|error| KernelError::new(control.file(), &error)),
            Step::RemoveCgroup { name } => {
                let removed = self.tree.remove_virtual_cluster(name);
                removed.map(drop).map_err(|error| cgroup(&error))
            }
            Step::EndConnections { name } => self.end_connections(name),
            step => self.apply_to_tables(step),
        }
    }

    fn sample(&mut self, now: Now) -> Result<Sample, KernelError> {
        let pass = self.sampler.sample(&self.tree).map_err(|error| cgroup(&error))?;
        let counters = self.bpf.tables().counters.read_all().map_err(table("CELLS"))?;
        let mut counters: BTreeMap<_, _> = counters.into_iter().collect();
        // Counters stand still while a program is off: what passes then is a gap, not nothing, and
        // nothing may end in it.
        let linked = self.bpf.is_linked().map_err(table("programs"))?;
        if !linked {
            counters.clear();
        }
        let failed = pass.failed.iter();
        let mut failed: BTreeMap<_, _> =
            failed.map(|(name, error)| (name.clone(), cgroup(error).message)).collect();
        if !linked {
            let off = "the kernel programs were off".to_owned();
            failed.extend(pass.readings.keys().map(|name| (name.clone(), off.clone())));
        } else if pass.readings.values().any(|reading| !counters.contains_key(&reading.id.0)) {
            let members = self.bpf.tables().members.read_all().map_err(table("MEMBERS"))?;
            let members: BTreeSet<_> = members.into_iter().map(|(id, _)| id).collect();
            let ids = pass.readings.iter().map(|(name, reading)| (name, reading.id.0));
            failed.extend(uncounted(ids, &members, &counters));
        }
        let virtual_clusters = pass.readings.into_iter().map(|(name, reading)| {
            let seen = VirtualClusterSample {
                cgroup: reading.id,
                cgroup_counters: reading.counters,
                network: counters.remove(&reading.id.0).map(Box::new),
            };
            (name, seen)
        });
        Ok(Sample {
            at: now.at,
            since_boot_nanoseconds: now.since_boot_nanoseconds,
            network_epoch: UnixNanos(self.bpf.epoch()),
            foreign: tables::foreign_counters(&self.bpf)?,
            virtual_clusters: virtual_clusters.collect(),
            failed,
            ..Sample::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_counters_is_a_gap_and_who_is_no_member_is_none() {
        let names = ["counted", "uncounted", "no-member"].map(|name| name.parse().unwrap());
        let seen = names.iter().zip(1..);
        let gaps = uncounted(seen, &BTreeSet::from([1, 2]), &BTreeMap::from([(1, 0)]));
        let [(name, why)] = &gaps[..] else { panic!("{gaps:?}") };
        assert_eq!((name, why.contains("not counted")), (&names[1], true));
    }
}
