//! Pods in the kubelet's cgroups: what MEMBERS must say of each, and in which order.
//!
//! Tables are complete before a pod is a member; a pod is counted before it is judged; who is
//! exempt is known before anybody is cut off; and a pod leaves MEMBERS only after its last counts.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{
    Address, AllowKey, FarEnd, MODE_ENFORCE, Member, Verdict, classify, decide, mode_for,
};

use super::{PROGRAMS, tables};
use crate::address::{from_abi, to_abi};
use crate::compile::{register, without_plain};
use crate::desired::{Desired, DesiredNetwork, Overlay, look_up};
use crate::facts::Snapshot;
use crate::inventory::{Pod, PodPath};
use crate::name::{CgroupId, VirtualClusterName};
use crate::observed::{Capacities, Observed, ObservedNetwork};
use crate::step::{PodCgroup, Step};

/// The number of nobody's: no virtual cluster has it, so a member of it has no own addresses and
/// may talk with no other's. A pod that is nobody's for a moment has it, since here one that is no
/// member at all would be open.
pub const NOBODY: u32 = u32::MAX;

/// What MEMBERS should say of a pod.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: Option<&'a VirtualClusterName>,
    member: Member,
}

/// How many entries MEMBERS will have at most.
pub(super) fn members(desired: &Desired, observed: &Observed) -> usize {
    let wanted = wanted(desired, observed).into_keys();
    let all = wanted.chain(observed.network.members.keys().copied());
    all.collect::<BTreeSet<_>>().len()
}

pub(super) fn plan(
    desired: &Desired,
    overlay: &Overlay,
    observed: &Observed,
    capacities: Capacities,
    steps: &mut Vec<Step>,
) {
    let wanted = wanted(desired, observed);
    let pod =
        |id: CgroupId| observed.pods.get(&id).map(|path| PodCgroup { path: path.clone(), id });
    isolate_renumbered(&wanted, observed, pod, steps);
    tables(&desired.network, &observed.network, capacities, steps);
    if !overlay.is_complete {
        steps.retain_mut(|step| keep_addresses(&observed.network, step));
    }
    for (id, wanted) in &wanted {
        let Some(pod) = pod(*id) else { continue };
        put(pod, wanted, &observed.network, steps);
    }
    if observed.network.unknown != Some(overlay.unknown) {
        steps.push(Step::SetUnknown(overlay.unknown));
    }
    let mut attached = PROGRAMS.iter().map(|program| observed.network.attached.contains(program));
    let attach = !observed.network.configured || !attached.all(|attached| attached);
    if attach {
        steps.push(Step::Attach);
    }
    let denied = Denied::between(desired, &observed.network);
    for (id, wanted) in &wanted {
        let Some((pod, name)) = pod(*id).zip(wanted.name) else { continue };
        let now = observed.network.members.get(id);
        if wanted.member.mode == MODE_ENFORCE
            && (attach || now != Some(&wanted.member) || denied.concerns(wanted.member))
        {
            steps.push(Step::EndPodConnections { name: name.clone(), pod });
        }
    }
    retire(&wanted, observed, steps);
}

/// What MEMBERS should say of each pod that is there. Until all pods were told of, and where no
/// runtime tells that one has ended, one that is a member and that nobody tells of stays what it
/// is, in the mode that its virtual cluster has now.
fn wanted<'a>(desired: &'a Desired, observed: &Observed) -> BTreeMap<CgroupId, Wanted<'a>> {
    let Some(overlay) = &desired.overlay else {
        return BTreeMap::new();
    };
    let of = |(id, path): (&CgroupId, &PodPath)| {
        if let Some(pod) = overlay.pod(path) {
            return Some((*id, Wanted { name: pod.owner.as_ref(), member: pod.member }));
        }
        let stays = overlay.unnamed_stay && !overlay.is_known(path.uid());
        let stands = observed.network.members.get(id).filter(|_| stays)?;
        let mut members = desired.network.members.iter();
        let owner = members.find(|(_, now)| now.virtual_cluster == stands.virtual_cluster);
        let wanted = match owner {
            Some((name, now)) => Wanted { name: Some(name), member: *now },
            None => Wanted { name: None, member: *stands },
        };
        Some((*id, wanted))
    };
    observed.pods.iter().filter_map(of).collect()
}

/// Whether an address is a virtual cluster's. Until all pods were told of it stays so: it may be
/// that of a pod that runs here.
fn may_be_a_pods(observed: &ObservedNetwork, address: &Address) -> bool {
    let far = observed.addresses.get(address).filter(|_| !address.is_of_node_port());
    far.is_some_and(|far| far.virtual_cluster != 0)
}

/// Takes such addresses out of what is to be deleted; gives whether anything is left to do.
fn keep_addresses(observed: &ObservedNetwork, step: &mut Step) -> bool {
    let Step::DeleteAddresses(addresses) = step else { return true };
    addresses.retain(|address| !may_be_a_pods(observed, address));
    !addresses.is_empty()
}

/// While tables change, a pod that gets another number must be taken for nobody's.
fn isolate_renumbered(
    wanted: &BTreeMap<CgroupId, Wanted<'_>>,
    observed: &Observed,
    pod: impl Fn(CgroupId) -> Option<PodCgroup>,
    steps: &mut Vec<Step>,
) {
    for (id, wanted) in wanted {
        let now = observed.network.members.get(id).filter(|now| now.virtual_cluster != 0);
        let Some((now, pod)) = now.zip(pod(*id)) else { continue };
        if now.virtual_cluster != wanted.member.virtual_cluster && now.virtual_cluster != NOBODY {
            let member = Member { virtual_cluster: NOBODY, mode: now.mode };
            steps.push(Step::SetPodMember { name: wanted.name.cloned(), pod, member });
        }
    }
}

fn put(pod: PodCgroup, wanted: &Wanted<'_>, now: &ObservedNetwork, steps: &mut Vec<Step>) {
    if let Some(name) = wanted.name
        && !now.counters.contains(&pod.id)
    {
        steps.push(Step::CreatePodCounters { name: name.clone(), pod: pod.clone() });
    }
    if now.members.get(&pod.id) != Some(&wanted.member) {
        let (name, member) = (wanted.name.cloned(), wanted.member);
        steps.push(Step::SetPodMember { name, pod, member });
    }
}

fn retire(wanted: &BTreeMap<CgroupId, Wanted<'_>>, observed: &Observed, steps: &mut Vec<Step>) {
    let stale = observed.network.members.keys().filter(|id| !wanted.contains_key(id));
    steps.extend(stale.map(|id| Step::DeleteMember(*id)));
    let counted =
        |id: &CgroupId| wanted.get(id).is_some_and(|wanted| wanted.member.virtual_cluster != 0);
    let stale = observed.network.counters.iter().filter(|id| !counted(id));
    steps.extend(stale.map(|id| Step::DeleteCounters(*id)));
}

/// The steps for a pod that begins to run while everything else stands: its cgroup is there, and
/// none of its containers runs. `None`: it is nobody's, and nothing is to be done.
pub fn admit(
    snapshot: &Snapshot,
    standing: &Desired,
    pod: &Pod,
    cgroup: PodCgroup,
) -> Option<Vec<Step>> {
    let members = &standing.network.members;
    let registered = register(pod, snapshot, members)?;
    let mut steps = Vec::new();
    if let Some(name) = &registered.owner {
        let (name, pod_cgroup) = (name.clone(), cgroup.clone());
        steps.push(Step::CreatePodCounters { name, pod: pod_cgroup });
        let number = registered.member.virtual_cluster;
        let addresses = pod.addresses.iter().map(|address| to_abi(*address));
        let addresses = addresses.filter(|address| !address.is_of_node_port());
        let entry = |address| Some((address, own(&standing.network, address, number)?));
        let entries: Vec<_> = addresses.filter_map(entry).collect();
        if !entries.is_empty() {
            steps.push(Step::PutAddresses(entries));
        }
    }
    let (name, member) = (registered.owner, registered.member);
    steps.push(Step::SetPodMember { name, pod: cgroup, member });
    Some(steps)
}

/// What the table says of an address that becomes a virtual cluster's; `None`: it stays what it
/// is, a host's or one in a block of another virtual cluster.
fn own(network: &DesiredNetwork, address: Address, number: u32) -> Option<FarEnd> {
    let exact = network.addresses.get(&address);
    let wider = look_up(&BTreeMap::new(), &network.prefixes, from_abi(address));
    let flags = exact.or(wider.as_ref()).map_or(0, |far| without_plain(far.flags) & !FarEnd::STALE);
    let is_others = wider.is_some_and(|far| ![0, number].contains(&far.virtual_cluster));
    (flags & FarEnd::NODE == 0 && !is_others).then_some(FarEnd { virtual_cluster: number, flags })
}

/// Whose verdicts change from passing to denying with the tables.
struct Denied<'a> {
    desired: &'a DesiredNetwork,
    observed: &'a ObservedNetwork,
    /// Far ends before and after.
    changed: BTreeSet<(Option<FarEnd>, Option<FarEnd>)>,
}

impl<'a> Denied<'a> {
    fn between(desired: &'a Desired, observed: &'a ObservedNetwork) -> Self {
        let is_complete = desired.overlay.as_ref().is_none_or(|overlay| overlay.is_complete);
        let desired = &desired.network;
        let mut changed = BTreeSet::new();
        // A prefix may hold many addresses: what was said of each of them before is not looked up.
        let prefixes_changed = desired.prefixes != observed.prefixes;
        for address in desired.addresses.keys().chain(observed.addresses.keys()) {
            let (now, then) = (observed.addresses.get(address), desired.addresses.get(address));
            let stays = then.is_none() && !is_complete && may_be_a_pods(observed, address);
            // A connection through a node port that is denied now is not told from one that came
            // from there: its packets are dropped, and nobody ends it.
            if now == then || stays || address.is_of_node_port() {
                continue;
            }
            let address = from_abi(*address);
            let far = |exact: Option<&FarEnd>, prefixes| {
                exact.copied().or_else(|| look_up(&BTreeMap::new(), prefixes, address))
            };
            changed.insert((far(now, &observed.prefixes), far(then, &desired.prefixes)));
        }
        if prefixes_changed {
            let all = desired.prefixes.values().map(|far| (None, Some(*far)));
            changed.extend(all);
        }
        Self { desired, observed, changed }
    }

    /// Whether a member may have connections that are denied now.
    fn concerns(&self, member: Member) -> bool {
        let me = member.virtual_cluster;
        let passes = |far: Option<FarEnd>, allowed: &BTreeSet<AllowKey>| {
            let to = far.map_or(0, |far| far.virtual_cluster);
            let allowed = allowed.contains(&AllowKey { from: me, to });
            let class = classify(me, far);
            mode_for(class, far, member.mode) != member.mode
                || decide(class, allowed) == Verdict::Pass
        };
        let (before, after) = (&self.observed.allowed, &self.desired.allowed);
        let disallowed = before.difference(after).any(|pair| pair.from == me);
        disallowed
            || self.changed.iter().any(|(now, then)| passes(*now, before) && !passes(*then, after))
    }
}

#[cfg(test)]
mod tests;
