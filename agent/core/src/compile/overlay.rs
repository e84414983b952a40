//! Pods in the kubelet's own cgroups: whose each is. Nothing is written there.

use std::collections::BTreeMap;

use bulkhead_abi::Member;

use super::network::{self, Contested, Local};
use super::{CompileError, controls};
use crate::binding::Unknown;
use crate::desired::{Degradation, Desired, DesiredPod, EXEMPT, Overlay};
use crate::facts::Snapshot;
use crate::inventory::{Claim, Inventory, Pod};
use crate::name::VirtualClusterName;
use crate::observed::NodeFacts;

pub(super) fn compile(
    snapshot: &Snapshot,
    inventory: &Inventory,
    node: &NodeFacts,
) -> Result<Desired, CompileError> {
    let local = local(snapshot, inventory);
    let (network, contested) = network::compile(snapshot, node, &local)?;
    let mut degraded: BTreeMap<_, Vec<Degradation>> = BTreeMap::new();
    for (name, virtual_cluster) in &snapshot.virtual_clusters {
        let unwritten = controls::unwritten(virtual_cluster, node);
        if !unwritten.is_empty() {
            degraded.insert(name.clone(), unwritten);
        }
    }
    for one in contested {
        degraded.entry(one.owner.clone()).or_default().push(contest(&one));
    }
    let mut overlay = Overlay {
        is_complete: inventory.is_complete(),
        unnamed_stay: !inventory.is_complete() || inventory.is_runtime_away(),
        unknown: snapshot.policy.unknown,
        ..Overlay::default()
    };
    for pod in inventory.iter() {
        let uid = pod.uid.clone();
        match register(pod, snapshot, &network.members) {
            Some(registered) => drop(overlay.pods.insert(uid, registered)),
            None => drop(overlay.others.insert(uid)),
        }
    }
    let generation = snapshot.generation;
    let overlay = Some(overlay);
    Ok(Desired { generation, overlay, network, degraded, ..Desired::default() })
}

/// What is registered for a pod; `None`: nothing.
pub(crate) fn register(
    pod: &Pod,
    snapshot: &Snapshot,
    members: &BTreeMap<VirtualClusterName, Member>,
) -> Option<DesiredPod> {
    let path = pod.cgroup.clone();
    match pod.claim(snapshot) {
        Claim::Member(owner) => {
            Some(DesiredPod { owner: Some(owner.clone()), path, member: *members.get(owner)? })
        }
        // Where nobody is cut off, there is nothing to be exempt from.
        Claim::Exempt if snapshot.policy.unknown == Unknown::Deny => {
            Some(DesiredPod { owner: None, path, member: EXEMPT })
        }
        Claim::Exempt | Claim::LeftAlone | Claim::CutOff => None,
    }
}

fn local<'a>(snapshot: &'a Snapshot, inventory: &'a Inventory) -> Local<'a> {
    let mut addresses = BTreeMap::new();
    for pod in inventory.shown() {
        if let Claim::Member(owner) = pod.claim(snapshot) {
            addresses.extend(pod.addresses.iter().map(|address| (*address, owner)));
        }
    }
    Local { addresses, is_newest: !inventory.is_runtime_away() }
}

fn contest(contested: &Contested<'_>) -> Degradation {
    let Contested { address, other, .. } = contested;
    let message = format!(
        "a pod of it has the address {address}, which is in a block of virtual cluster \"{other}\", \
         and is taken for that one's; take the block out of one of them"
    );
    Degradation { subject: "addresses".to_owned(), message }
}
