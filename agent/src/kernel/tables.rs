//! The kernel's tables and programs, whatever cgroups they are about: what stands in them, and
//! the steps that change them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bulkhead_abi::{AllowKey, FarEnd, Prefix, Verdict, classify, decide, mode_for};
use bulkhead_core::address::to_abi;
use bulkhead_core::sample::ForeignCounters;
use bulkhead_core::{CgroupId, ObservedNetwork, Step, UnixNanos, VirtualClusterName};

use super::bpf::{Bpf, BpfError, Foreign};
use super::seam::KernelError;
use super::sockets;

pub(super) fn table(name: &'static str) -> impl Fn(BpfError) -> KernelError {
    move |error| KernelError::new(name, &error)
}

/// What stands in the tables, and whether the programs work.
pub(super) fn observe(bpf: &Bpf) -> Result<ObservedNetwork, KernelError> {
    let tables = bpf.tables();
    let members = tables.members.read_all().map_err(table("MEMBERS"))?;
    let counters = tables.counters.read_all().map_err(table("CELLS"))?;
    let allowed = tables.allowed.read_all().map_err(table("ALLOWED"))?;
    let attached = bpf.attached().map_err(table("programs"))?;
    Ok(ObservedNetwork {
        members: members.into_iter().map(|(id, member)| (CgroupId(id), member)).collect(),
        addresses: collect(tables.addresses.read_all().map_err(table("ADDRESSES"))?),
        prefixes: collect(tables.prefixes.read_all().map_err(table("PREFIXES"))?),
        allowed: allowed.into_iter().map(|(pair, _)| pair).collect(),
        counters: counters.into_iter().map(|(id, _)| CgroupId(id)).collect(),
        attached: attached.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
        configured: bpf.configured().map_err(table("CONFIG"))?,
        unknown: None,
        retired: foreign(bpf)?.iter().filter(|f| !f.is_linked).map(|f| f.version).collect(),
    })
}

/// Somebody who removes a root or our pins takes the attachments with them. What this process still
/// holds then is nobody else's any more; another start makes it anew. `replaced`: the root that is
/// another one now.
pub(super) fn must_be_whole(bpf: &Bpf, replaced: Option<String>) -> Result<(), KernelError> {
    let gone = match replaced {
        Some(root) => root,
        None if !bpf.is_pinned() => "pins of the kernel tables".to_owned(),
        None => return Ok(()),
    };
    Err(KernelError {
        subject: "node".to_owned(),
        message: format!("somebody removed the {gone}; the agent ends, to be started again"),
        needs_restart: true,
    })
}

fn collect<K: Ord, V>(entries: Vec<(K, V)>) -> BTreeMap<K, V> {
    entries.into_iter().collect()
}

/// What agents of other versions have counted in tables of their own.
pub(super) fn foreign(bpf: &Bpf) -> Result<Vec<Foreign>, KernelError> {
    bpf.foreign().map_err(table("counters of another version"))
}

/// The same, for a sample.
pub(super) fn foreign_counters(bpf: &Bpf) -> Result<Vec<ForeignCounters>, KernelError> {
    let one = |foreign: Foreign| {
        let by_cgroup = foreign.counters.into_iter().map(|(id, counters)| (CgroupId(id), counters));
        ForeignCounters { epoch: UnixNanos(foreign.epoch), by_cgroup: by_cgroup.collect() }
    };
    Ok(foreign(bpf)?.into_iter().map(one).collect())
}

/// Does a step that needs no cgroup but by its id.
pub(super) fn apply(bpf: &Bpf, step: &Step) -> Result<(), KernelError> {
    let tables = bpf.tables();
    match step {
        Step::PutAddresses(entries) => tables.addresses.put(entries).map_err(table("ADDRESSES")),
        Step::DeleteAddresses(keys) => tables.addresses.remove(keys).map_err(table("ADDRESSES")),
        Step::PutPrefixes(entries) => tables.prefixes.put(entries).map_err(table("PREFIXES")),
        Step::DeletePrefixes(keys) => tables.prefixes.remove(keys).map_err(table("PREFIXES")),
        Step::Allow(pairs) => {
            let entries: Vec<_> = pairs.iter().map(|pair| (*pair, 1)).collect();
            tables.allowed.put(&entries).map_err(table("ALLOWED"))
        }
        Step::Disallow(pairs) => tables.allowed.remove(pairs).map_err(table("ALLOWED")),
        Step::CreatePodCounters { pod, .. } => {
            tables.counters.create(pod.id.0).map(drop).map_err(table("CELLS"))
        }
        Step::SetPodMember { pod, member, .. } => {
            tables.members.put(&[(pod.id.0, *member)]).map_err(table("MEMBERS"))
        }
        Step::DeleteMember(id) => tables.members.remove(&[id.0]).map_err(table("MEMBERS")),
        Step::DeleteCounters(id) => tables.counters.remove(id.0).map(drop).map_err(table("CELLS")),
        Step::ForgetVersion(version) => {
            bpf.forget(*version).map_err(table("counters of another version"))
        }
        Step::Attach => attach(bpf),
        other => Err(KernelError {
            subject: "plan".to_owned(),
            message: format!("\"{other}\" cannot be done in this placement"),
            needs_restart: false,
        }),
    }
}

/// Attaches, and takes off what another version of the agent has left: its tables stand still,
/// and what it denies nobody could allow.
fn attach(bpf: &Bpf) -> Result<(), KernelError> {
    bpf.attach_all().map_err(table("programs"))?;
    let others = bpf.detach_other_versions().map_err(table("programs"))?;
    if !others.is_empty() {
        tracing::warn!(?others, "took off what another version of the agent had left");
    }
    Ok(())
}

/// Ends the connections below a cgroup that the tables, as they stand now, deny it.
pub(super) fn end_connections(
    bpf: &Bpf,
    (id, directory): (u64, &Path),
    name: &VirtualClusterName,
) -> Result<(), KernelError> {
    let tables = bpf.tables();
    let Some(member) = tables.members.get(&id).map_err(table("MEMBERS"))? else {
        return Ok(());
    };
    let me = member.virtual_cluster;
    // What cannot be looked up is left alone: its packets are judged all the same.
    let far_end = |peer: SocketAddr| -> Result<Option<FarEnd>, BpfError> {
        let address = to_abi(peer.ip());
        let exact =
            if address.is_of_node_port() { None } else { tables.addresses.get(&address)? };
        match exact {
            None => tables.prefixes.get(&Prefix { prefix_len: 128, address }),
            known => Ok(known),
        }
    };
    let verdict = |peer| -> Result<Verdict, BpfError> {
        let far = far_end(peer)?;
        let to = far.map_or(0, |far| far.virtual_cluster);
        let allowed = tables.allowed.get(&AllowKey { from: me, to })?.is_some();
        let class = classify(me, far);
        let is_held = mode_for(class, far, member.mode) == member.mode;
        Ok(if is_held { decide(class, allowed) } else { Verdict::Pass })
    };
    let denied = |peer| verdict(peer).is_ok_and(|verdict| verdict != Verdict::Pass);
    let done = sockets::end_connections(directory, denied);
    if done.ended > 0 {
        let (ended, kept) = (done.ended, done.kept);
        tracing::info!(virtual_cluster = %name, ended, kept, "ended connections denied now");
    }
    match done.errors.first() {
        Some(error) => Err(KernelError::new("connections", error)),
        None => Ok(()),
    }
}

/// What each table can hold.
pub(super) fn capacities(bpf: &Bpf) -> bulkhead_core::Capacities {
    let tables = bpf.tables();
    let size = |capacity: u32| usize::try_from(capacity).unwrap_or(usize::MAX);
    bulkhead_core::Capacities {
        members: size(tables.members.capacity()),
        counters: size(tables.counters.capacity()),
        addresses: size(tables.addresses.capacity()),
        prefixes: size(tables.prefixes.capacity()),
        allowed: size(tables.allowed.capacity()),
    }
}
