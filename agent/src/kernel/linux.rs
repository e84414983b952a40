//! The real kernel: cgroupfs and bpf(2) behind the seam.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_abi::{AllowKey, FarEnd, Prefix, Verdict, classify, decide};
use bulkhead_core::address::to_abi;
use bulkhead_core::sample::ForeignCounters;
use bulkhead_core::{
    Capacities, CgroupId, Controller, NodeFacts, Observed, ObservedNetwork, Sample, Step,
    UnixNanos, VirtualClusterName, VirtualClusterSample,
};

use super::bpf::{Bpf, BpfError, Foreign};
use super::cgroup::{CgroupError, CgroupTree, EmptyLeaves, Observer, Sampler};
use super::probe::{Probe, host_addresses};
use super::seam::{Kernel, KernelError};
use super::sockets;
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

fn table(name: &'static str) -> impl Fn(BpfError) -> KernelError {
    move |error| KernelError::new(name, &error)
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

    /// Somebody who removes our root or our pins takes the attachments with them. What this
    /// process still holds then is nobody else's any more; another start makes it anew.
    fn must_be_whole(&self) -> Result<(), KernelError> {
        let gone = if self.tree.is_replaced().map_err(|error| cgroup(&error))? {
            format!("root {} of the virtual clusters", self.tree.path().display())
        } else if !self.bpf.is_pinned() {
            "pins of the kernel tables".to_owned()
        } else {
            return Ok(());
        };
        Err(KernelError {
            subject: "node".to_owned(),
            message: format!("somebody removed the {gone}; the agent ends, to be started again"),
            needs_restart: true,
        })
    }

    fn observe_network(&self) -> Result<ObservedNetwork, KernelError> {
        let tables = self.bpf.tables();
        let members = tables.members.read_all().map_err(table("MEMBERS"))?;
        let counters = tables.counters.read_all().map_err(table("COUNTERS"))?;
        let allowed = tables.allowed.read_all().map_err(table("ALLOWED"))?;
        let attached = self.bpf.attached().map_err(table("programs"))?;
        Ok(ObservedNetwork {
            members: members.into_iter().map(|(id, member)| (CgroupId(id), member)).collect(),
            addresses: collect(tables.addresses.read_all().map_err(table("ADDRESSES"))?),
            prefixes: collect(tables.prefixes.read_all().map_err(table("PREFIXES"))?),
            allowed: allowed.into_iter().map(|(pair, _)| pair).collect(),
            counters: counters.into_iter().map(|(id, _)| CgroupId(id)).collect(),
            attached: attached.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
            configured: self.bpf.configured().map_err(table("CONFIG"))?,
            retired: self.foreign()?.iter().filter(|f| !f.is_linked).map(|f| f.version).collect(),
        })
    }

    fn foreign(&self) -> Result<Vec<Foreign>, KernelError> {
        self.bpf.foreign().map_err(table("counters of another version"))
    }

    fn apply_to_tables(&self, step: &Step) -> Result<(), KernelError> {
        let tables = self.bpf.tables();
        match step {
            Step::PutAddresses(entries) => {
                tables.addresses.put(entries).map_err(table("ADDRESSES"))
            }
            Step::DeleteAddresses(keys) => {
                tables.addresses.remove(keys).map_err(table("ADDRESSES"))
            }
            Step::PutPrefixes(entries) => tables.prefixes.put(entries).map_err(table("PREFIXES")),
            Step::DeletePrefixes(keys) => tables.prefixes.remove(keys).map_err(table("PREFIXES")),
            Step::Allow(pairs) => {
                let entries: Vec<_> = pairs.iter().map(|pair| (*pair, 1)).collect();
                tables.allowed.put(&entries).map_err(table("ALLOWED"))
            }
            Step::Disallow(pairs) => tables.allowed.remove(pairs).map_err(table("ALLOWED")),
            Step::CreateCounters { name } => {
                let created = tables.counters.create(self.id(name)?);
                created.map(drop).map_err(table("COUNTERS"))
            }
            Step::SetMember { name, member } => {
                let entry = (self.id(name)?, *member);
                tables.members.put(&[entry]).map_err(table("MEMBERS"))
            }
            Step::DeleteMember(id) => tables.members.remove(&[id.0]).map_err(table("MEMBERS")),
            Step::DeleteCounters(id) => {
                tables.counters.remove(id.0).map(drop).map_err(table("COUNTERS"))
            }
            Step::ForgetVersion(version) => {
                self.bpf.forget(*version).map_err(table("counters of another version"))
            }
            Step::Isolate { name } => {
                tables.members.remove(&[self.id(name)?]).map_err(table("MEMBERS"))
            }
            _ => self.attach(),
        }
    }

    /// Attaches, and takes off what another version of the agent has left: its tables stand still,
    /// and what it denies nobody could allow.
    fn attach(&self) -> Result<(), KernelError> {
        self.bpf.attach_all().map_err(table("programs"))?;
        let others = self.bpf.detach_other_versions().map_err(table("programs"))?;
        if !others.is_empty() {
            tracing::warn!(?others, "took off what another version of the agent had left");
        }
        Ok(())
    }

    /// Ends what the tables, as they stand now, deny.
    fn end_connections(&self, name: &VirtualClusterName) -> Result<(), KernelError> {
        let tables = self.bpf.tables();
        let Some(member) = tables.members.get(&self.id(name)?).map_err(table("MEMBERS"))? else {
            return Ok(());
        };
        let me = member.virtual_cluster;
        // What cannot be looked up is left alone: its packets are judged all the same.
        let far_end = |peer: SocketAddr| -> Result<Option<FarEnd>, BpfError> {
            let address = to_abi(peer.ip());
            match tables.addresses.get(&address)? {
                None => tables.prefixes.get(&Prefix { prefix_len: 128, address }),
                known => Ok(known),
            }
        };
        let verdict = |peer| -> Result<Verdict, BpfError> {
            let far = far_end(peer)?;
            let to = far.map_or(0, |far| far.virtual_cluster);
            let allowed = tables.allowed.get(&AllowKey { from: me, to })?.is_some();
            Ok(decide(classify(me, far), allowed))
        };
        let denied = |peer| verdict(peer).is_ok_and(|verdict| verdict != Verdict::Pass);
        let directory = self.tree.path().join(name.as_str());
        let done = sockets::end_connections(&directory, denied);
        if done.ended > 0 {
            let (ended, kept) = (done.ended, done.kept);
            tracing::info!(virtual_cluster = %name, ended, kept, "ended connections denied now");
        }
        match done.errors.first() {
            Some(error) => Err(KernelError::new("connections", error)),
            None => Ok(()),
        }
    }
}

fn foreign_counters(foreign: Foreign) -> ForeignCounters {
    let by_cgroup = foreign.counters.into_iter().map(|(id, counters)| (CgroupId(id), counters));
    ForeignCounters { epoch: UnixNanos(foreign.epoch), by_cgroup: by_cgroup.collect() }
}

fn collect<K: Ord, V>(entries: Vec<(K, V)>) -> BTreeMap<K, V> {
    entries.into_iter().collect()
}

impl Kernel for LinuxKernel {
    fn node(&mut self, devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError> {
        let tables = self.bpf.tables();
        let size = |capacity: u32| usize::try_from(capacity).unwrap_or(usize::MAX);
        let capacities = Capacities {
            members: size(tables.members.capacity().min(tables.counters.capacity())),
            addresses: size(tables.addresses.capacity()),
            prefixes: size(tables.prefixes.capacity()),
            allowed: size(tables.allowed.capacity()),
        };
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
        Ok(Observed { cgroups: seen.cgroups, network: self.observe_network()? })
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
        let counters = self.bpf.tables().counters.read_all().map_err(table("COUNTERS"))?;
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
            foreign: self.foreign()?.into_iter().map(foreign_counters).collect(),
            virtual_clusters: virtual_clusters.collect(),
            failed,
        })
    }
}
