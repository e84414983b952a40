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
    let (network, contested) = network::compile(snapshot, node, &local(snapshot, inventory))?;
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
    let registered = |pod: &Pod| {
        let pod = (pod.uid.clone(), register(pod, snapshot, &network.members)?);
        Some(pod)
    };
    let overlay = Overlay {
        pods: inventory.iter().filter_map(registered).collect(),
        is_complete: inventory.is_complete(),
        unknown: snapshot.policy.unknown,
    };
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
    let mut local = Local::new();
    for pod in inventory.iter() {
        if let Claim::Member(owner) = pod.claim(snapshot) {
            local.extend(pod.addresses.iter().map(|address| (*address, owner)));
        }
    }
    local
}

fn contest(contested: &Contested<'_>) -> Degradation {
    let Contested { address, other, .. } = contested;
    let message = format!(
        "a pod of it has the address {address}, which is in a block of virtual cluster \"{other}\", \
         and is taken for that one's; take the block out of one of them"
    );
    Degradation { subject: "addresses".to_owned(), message }
}
