//! A kernel in memory that outlives the agent, and that really uses things.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_abi::Counters;
use bulkhead_agent::clock::Now;
use bulkhead_agent::kernel::seam::{Kernel, KernelError};
use bulkhead_core::amount::Pids;
use bulkhead_core::sample::{CpuCounters, MemoryCounters};
use bulkhead_core::{
    Bytes, Capacities, CgroupCounters, CgroupId, Control, NanoCores, NodeFacts, Observed, Sample,
    Step, Support, UnixNanos, VirtualClusterName, VirtualClusterSample, model,
};

use crate::random::Random;

/// The kernel of a node. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SimKernel(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct Machine {
    address: IpAddr,
    boot: u64,
    observed: Observed,
    /// Of cgroups that live.
    used: BTreeMap<CgroupId, Used>,
    network_epoch: u64,
    next_cgroup: u64,
    /// Members when the agent looked last: of these it knows whose they are.
    members: BTreeSet<CgroupId>,
    sampled: Vec<Sampled>,
}

/// What a cgroup really used.
#[derive(Clone, Debug, Default)]
struct Used {
    cpu: u64,
    memory: u64,
    network: Counters,
}

/// What the last sample must have put into the journal, of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sampled {
    pub(crate) name: VirtualClusterName,
    pub(crate) cgroup: u64,
    pub(crate) cpu: u64,
    pub(crate) network_epoch: u64,
    pub(crate) sent_bytes: u64,
}

impl SimKernel {
    pub(crate) fn new(address: IpAddr, now: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine::booted(address, 1, now))))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything is gone, and cgroup ids begin again.
    pub(crate) fn reboot(&self, now: u64) {
        let mut machine = self.machine();
        *machine = Machine::booted(machine.address, machine.boot + 1, now);
    }

    /// The tables of the kernel programs were made anew: network counters begin at zero.
    pub(crate) fn new_network_epoch(&self, now: u64) {
        let mut machine = self.machine();
        machine.network_epoch = now.max(machine.network_epoch + 1);
        for used in machine.used.values_mut() {
            used.network = Counters::default();
        }
    }

    pub(crate) fn boot_id(&self) -> String {
        format!("boot-{}", self.machine().boot)
    }

    /// Everything that lives uses something.
    pub(crate) fn grow(&self, random: &Random) {
        for used in self.machine().used.values_mut() {
            if random.chance(25) {
                continue;
            }
            used.cpu += random.below(5_000_000_000);
            used.memory = random.below(1 << 30);
            let cell = &mut used.network.cells[0][0][0];
            cell.bytes += random.below(1 << 20);
            cell.packets += random.below(1 << 10);
            used.network.cells[1][3][1].bytes += random.below(2) * 60;
        }
    }

    /// What the last sample saw of members; empty: there was none since the last call.
    pub(crate) fn take_sampled(&self) -> Vec<Sampled> {
        std::mem::take(&mut self.machine().sampled)
    }
}

impl Machine {
    fn booted(address: IpAddr, boot: u64, now: u64) -> Self {
        Self {
            address,
            boot,
            observed: Observed::default(),
            used: BTreeMap::new(),
            network_epoch: now,
            next_cgroup: 100,
            members: BTreeSet::new(),
            sampled: Vec::new(),
        }
    }
}

impl Kernel for SimKernel {
    fn node(&mut self, _devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError> {
        Ok(NodeFacts {
            cpu: NanoCores(2_000_000_000),
            memory: Bytes(1 << 33),
            pids: Pids(32_768),
            page_bytes: 4_096,
            addresses: BTreeSet::from([self.machine().address]),
            devices: BTreeMap::new(),
            support: Support::default(),
            capacities: Capacities::default(),
            placement: bulkhead_core::Placement::Directory,
        })
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        let mut machine = self.machine();
        machine.members = machine.observed.network.members.keys().copied().collect();
        Ok(machine.observed.clone())
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let mut machine = self.machine();
        machine.next_cgroup += 1;
        let fresh = CgroupId(machine.next_cgroup);
        let offered = BTreeSet::from(Control::ALL);
        model::apply(&mut machine.observed, step, fresh, &offered)
            .map_err(|error| KernelError::new("model", &error))?;
        let alive: BTreeSet<CgroupId> =
            machine.observed.cgroups.values().map(|cgroup| cgroup.id).collect();
        machine.used.retain(|cgroup, _| alive.contains(cgroup));
        for cgroup in alive {
            machine.used.entry(cgroup).or_default();
        }
        Ok(())
    }

    fn sample(&mut self, now: Now) -> Result<Sample, KernelError> {
        let mut machine = self.machine();
        let Machine { observed, used, network_epoch, members, sampled, .. } = &mut *machine;
        sampled.clear();
        let mut virtual_clusters = BTreeMap::new();
        for (name, cgroup) in &observed.cgroups {
            let used = used.get(&cgroup.id).cloned().unwrap_or_default();
            let cpu = CpuCounters { usage_nanoseconds: used.cpu, ..CpuCounters::default() };
            let memory = MemoryCounters { current_bytes: used.memory, ..MemoryCounters::default() };
            let counted = observed.network.counters.contains(&cgroup.id);
            if members.contains(&cgroup.id) {
                sampled.push(Sampled {
                    name: name.clone(),
                    cgroup: cgroup.id.0,
                    cpu: used.cpu,
                    network_epoch: *network_epoch,
                    sent_bytes: used.network.cells[0][0][0].bytes,
                });
            }
            let seen = VirtualClusterSample {
                cgroup: cgroup.id,
                cgroup_counters: CgroupCounters {
                    cpu: Some(cpu),
                    memory: Some(memory),
                    ..CgroupCounters::default()
                },
                network: counted.then(|| Box::new(used.network)),
            };
            virtual_clusters.insert(name.clone(), seen);
        }
        Ok(Sample {
            at: now.at,
            since_boot_nanoseconds: now.since_boot_nanoseconds,
            network_epoch: UnixNanos(*network_epoch),
            virtual_clusters,
            ..Sample::default()
        })
    }
}
