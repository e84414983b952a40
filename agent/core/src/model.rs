//! What the kernel should say after a step: the reference that executors and fakes are held to.

use std::collections::BTreeSet;

use crate::control::Control;
use crate::name::CgroupId;
use crate::observed::{Observed, ObservedCgroup};
use crate::plan::PROGRAMS;
use crate::step::Step;

/// A step that cannot be done as things stand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{step}\" cannot be done: {reason}")]
pub struct Impossible {
    /// The step.
    pub step: String,
    /// Why not.
    pub reason: &'static str,
}

/// Does a step to `observed` as the kernel would; `fresh` is the id of a cgroup that the step
/// makes, `offered` are the controls that a cgroup on this node has.
pub fn apply(
    observed: &mut Observed,
    step: &Step,
    fresh: CgroupId,
    offered: &BTreeSet<Control>,
) -> Result<(), Impossible> {
    try_apply(observed, step, fresh, offered)
        .map_err(|reason| Impossible { step: step.to_string(), reason })
}

fn try_apply(
    observed: &mut Observed,
    step: &Step,
    fresh: CgroupId,
    offered: &BTreeSet<Control>,
) -> Result<(), &'static str> {
    let network = &mut observed.network;
    match step {
        Step::CreateCgroup { name, .. } => {
            let cgroup = observed.cgroups.entry(name.clone()).or_insert_with(|| ObservedCgroup {
                id: fresh,
                controls: std::collections::BTreeMap::new(),
                populated: false,
            });
            for control in offered {
                cgroup.controls.entry(*control).or_insert_with(|| control.default_value());
            }
        }
        Step::SetControl { name, control, value } => {
            let cgroup = observed.cgroups.get_mut(name).ok_or("there is no such cgroup")?;
            let held = cgroup.controls.get_mut(control).ok_or("it has no such control")?;
            *held = value.clone();
        }
        Step::PutAddresses(entries) => network.addresses.extend(entries.iter().copied()),
        Step::DeleteAddresses(keys) => network.addresses.retain(|key, _| !keys.contains(key)),
        Step::PutPrefixes(entries) => network.prefixes.extend(entries.iter().copied()),
        Step::DeletePrefixes(keys) => network.prefixes.retain(|key, _| !keys.contains(key)),
        Step::Allow(pairs) => network.allowed.extend(pairs.iter().copied()),
        Step::Disallow(pairs) => network.allowed.retain(|pair| !pairs.contains(pair)),
        Step::CreateCounters { name } => {
            let cgroup = observed.cgroups.get(name).ok_or("there is no such cgroup")?;
            network.counters.insert(cgroup.id);
        }
        Step::SetMember { name, member } => {
            let cgroup = observed.cgroups.get(name).ok_or("there is no such cgroup")?;
            if !network.counters.contains(&cgroup.id) {
                return Err("it would be judged but not counted");
            }
            network.members.insert(cgroup.id, *member);
        }
        Step::Isolate { name } => {
            let cgroup = observed.cgroups.get(name).ok_or("there is no such cgroup")?;
            network.members.remove(&cgroup.id);
        }
        Step::Attach => {
            network.configured = true;
            network.attached = BTreeSet::from(PROGRAMS);
        }
        Step::CreatePodCounters { pod, .. } => drop(network.counters.insert(pod.id)),
        Step::SetPodMember { name, pod, member } => {
            if name.is_some() && !network.counters.contains(&pod.id) {
                return Err("it would be judged but not counted");
            }
            network.members.insert(pod.id, *member);
        }
        Step::SetUnknown(unknown) => network.unknown = Some(*unknown),
        Step::EndConnections { .. } | Step::EndPodConnections { .. } => {}
        Step::RemoveCgroup { name } => match observed.cgroups.get(name) {
            Some(cgroup) if cgroup.populated => return Err("it has processes"),
            Some(_) => drop(observed.cgroups.remove(name)),
            None => return Err("there is no such cgroup"),
        },
        Step::DeleteMember(id) => drop(network.members.remove(id)),
        Step::DeleteCounters(id) => drop(network.counters.remove(id)),
        Step::ForgetVersion(version) => drop(network.retired.remove(version)),
    }
    Ok(())
}
