//! From what stands and what should stand to the steps in between.
//!
//! The order is never open: cgroups are limited before they are members; tables are filled
//! before the programs attach; what is added to a table comes before what is taken out; a virtual
//! cluster that gets another number is nobody in between; and Enforce begins only when every
//! table is complete.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{Address, FarEnd, MODE_ENFORCE, MODE_OFF, Member, Prefix};

use crate::desired::{Desired, DesiredCgroup, DesiredNetwork};
use crate::name::{CgroupId, VirtualClusterName};
use crate::observed::{Capacities, Observed, ObservedCgroup, ObservedNetwork};
use crate::step::Step;

mod overlay;

pub use overlay::{NOBODY, admit};

/// Steps in the order in which they are to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether the node is as wanted.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The plan without steps that end counters, for when the last counts could not be put into
    /// the journal.
    #[must_use]
    pub fn keeping_counters(mut self) -> Self {
        self.steps.retain(|step| !step.ends_counters());
        self
    }
}

/// Why a change was refused whole; what stood before stands on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It would not fit.
    #[error(
        "kernel table {table} would need {needed} entries and holds {capacity}; {}", mend(.table)
    )]
    TableFull {
        /// Which.
        table: &'static str,
        /// How many it would need.
        needed: usize,
        /// How many it holds.
        capacity: usize,
    },
}

fn mend(table: &str) -> &'static str {
    match table {
        "CELLS" => {
            "place fewer virtual clusters on this node, or detach and start the agent with a greater \
             --max-counted-cgroups"
        }
        "ADDRESSES" => {
            "give virtual clusters prefixes instead of single addresses, or detach and start the \
             agent with a greater --max-addresses"
        }
        "PREFIXES" => "give virtual clusters fewer and wider prefixes",
        _ => "place fewer virtual clusters on this node",
    }
}

/// The programs that a node must have attached.
pub const PROGRAMS: [&str; 6] = bulkhead_abi::programs::ALL;

/// Decides what is to be done, all of it or nothing.
pub fn plan(
    desired: &Desired,
    observed: &Observed,
    capacities: Capacities,
) -> Result<Plan, PlanError> {
    fits(desired, observed, capacities)?;
    let mut steps = Vec::new();
    if let Some(overlay) = &desired.overlay {
        overlay::plan(desired, overlay, observed, capacities, &mut steps);
        forget_versions(observed, &mut steps);
        return Ok(Plan { steps });
    }
    let mut ends = ends(desired, observed);
    if !has_room(desired, observed, capacities) {
        steps.append(&mut ends);
    }
    cgroups(desired, observed, &mut steps);
    let tightened = network(desired, observed, capacities, &mut steps);
    for name in tightened {
        steps.push(Step::EndConnections { name });
    }
    release_gone(desired, observed, &mut steps);
    steps.append(&mut ends);
    forget_versions(observed, &mut steps);
    Ok(Plan { steps })
}

/// Only once all stands: whose a cgroup is, the last counts of another version need, too.
fn forget_versions(observed: &Observed, steps: &mut Vec<Step>) {
    if steps.is_empty() {
        steps.extend(observed.network.retired.iter().copied().map(Step::ForgetVersion));
    }
}

fn fits(desired: &Desired, observed: &Observed, capacities: Capacities) -> Result<(), PlanError> {
    let members = if desired.overlay.is_some() {
        overlay::members(desired, observed)
    } else {
        // Those that are gone and have no process make room, see `has_room`.
        let living = gone(desired, observed).filter(|(_, cgroup)| cgroup.populated).count();
        desired.network.members.len() + living
    };
    let needs = [
        ("MEMBERS", members, capacities.members),
        ("CELLS", members, capacities.counters),
        ("ADDRESSES", desired.network.addresses.len(), capacities.addresses),
        ("PREFIXES", desired.network.prefixes.len(), capacities.prefixes),
        ("ALLOWED", desired.network.allowed.len(), capacities.allowed),
    ];
    match needs.into_iter().find(|(_, needed, capacity)| needed > capacity) {
        Some((table, needed, capacity)) => Err(PlanError::TableFull { table, needed, capacity }),
        None => Ok(()),
    }
}

/// Whether all that is new has room beside all that is there. Where not, what is gone ends first.
fn has_room(desired: &Desired, observed: &Observed, capacities: Capacities) -> bool {
    let id = |name| observed.cgroups.get(name).map(|cgroup| cgroup.id);
    let new = |is_there: &dyn Fn(&CgroupId) -> bool| {
        let names = desired.network.members.keys();
        names.filter(|name| !id(*name).is_some_and(|id| is_there(&id))).count()
    };
    let ObservedNetwork { members, counters, .. } = &observed.network;
    members.len() + new(&|id| members.contains_key(id)) <= capacities.members
        && counters.len() + new(&|id| counters.contains(id)) <= capacities.counters
}

fn cgroups(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    for (name, cgroup) in &desired.cgroups {
        let stands = observed.cgroups.get(name);
        let enabled = |stands: &ObservedCgroup| {
            cgroup.controls.keys().all(|control| stands.controls.contains_key(control))
        };
        if !stands.is_some_and(enabled) {
            let controllers = cgroup.controllers.iter().copied().collect();
            steps.push(Step::CreateCgroup { name: name.clone(), controllers });
        }
        controls(name, cgroup, stands, steps);
    }
}

/// Writes every control that is not as wanted. A cgroup that is not there yet has defaults.
fn controls(
    name: &VirtualClusterName,
    wanted: &DesiredCgroup,
    stands: Option<&ObservedCgroup>,
    steps: &mut Vec<Step>,
) {
    for (control, value) in &wanted.controls {
        let default = control.default_value();
        let now = stands.and_then(|stands| stands.controls.get(control)).unwrap_or(&default);
        if now != value {
            let (name, control, value) = (name.clone(), *control, value.clone());
            steps.push(Step::SetControl { name, control, value });
        }
    }
}

/// Tables, then members, then programs. Returns whose open connections may be denied now.
fn network(
    desired: &Desired,
    observed: &Observed,
    capacities: Capacities,
    steps: &mut Vec<Step>,
) -> BTreeSet<VirtualClusterName> {
    let mut tightened = BTreeSet::new();
    isolate_renumbered(desired, observed, steps);
    let begun = steps.len();
    tables(&desired.network, &observed.network, capacities, steps);
    let tables_changed = steps.len() > begun;
    for (name, member) in &desired.network.members {
        let id = observed.cgroups.get(name).map(|cgroup| cgroup.id);
        if !id.is_some_and(|id| observed.network.counters.contains(&id)) {
            steps.push(Step::CreateCounters { name: name.clone() });
        }
        let now = id.and_then(|id| observed.network.members.get(&id));
        if now != Some(member) {
            steps.push(Step::SetMember { name: name.clone(), member: *member });
        }
        let judged_anew = now != Some(member) || tables_changed;
        if member.mode == MODE_ENFORCE && judged_anew && id.is_some() {
            tightened.insert(name.clone());
        }
    }
    let mut attached = PROGRAMS.iter().map(|program| observed.network.attached.contains(program));
    if !observed.network.configured || !attached.all(|attached| attached) {
        steps.push(Step::Attach);
        let enforced = desired.network.members.iter();
        let enforced = enforced.filter(|(_, member)| member.mode == MODE_ENFORCE);
        tightened.extend(enforced.map(|(name, _)| name.clone()));
    }
    tightened
}

/// A virtual cluster that has another number now would be taken for the one that had it before,
/// while the tables change. Until it is a member again, it is nobody, and dropped.
fn isolate_renumbered(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    for (name, member) in &desired.network.members {
        let now = observed.cgroups.get(name).map(|cgroup| cgroup.id);
        let now = now.and_then(|id| observed.network.members.get(&id));
        if now.is_some_and(|now| now.virtual_cluster != member.virtual_cluster) {
            steps.push(Step::Isolate { name: name.clone() });
        }
    }
}

/// Additions before removals, so that an address that changes from one entry to another (a prefix
/// that becomes single addresses, say) is never in none and taken for outside. Where a table has
/// no room for both, removals come first.
fn tables(
    desired: &DesiredNetwork,
    observed: &ObservedNetwork,
    capacities: Capacities,
    steps: &mut Vec<Step>,
) {
    let disallow = observed.allowed.difference(&desired.allowed).copied();
    // What is nobody's stays what it is while it is marked as such: where nothing is any more, the
    // marks go first.
    let is_marked = |far: &FarEnd| far.flags & FarEnd::PLAIN != 0;
    let marks_go = !desired.addresses.values().chain(desired.prefixes.values()).any(is_marked);
    let (last, disallow): (Vec<_>, Vec<_>) = disallow.partition(|pair| pair.to == 0 && marks_go);
    push(steps, Step::Disallow, disallow);
    let allow = desired.allowed.difference(&observed.allowed).copied();
    let (of_nobody, allow): (Vec<_>, Vec<_>) = allow.partition(|pair| pair.to == 0);
    push(steps, Step::Allow, of_nobody);
    let prefixes = Difference::between(&observed.prefixes, &desired.prefixes);
    let addresses = Difference::between(&observed.addresses, &desired.addresses);
    let room = observed.prefixes.len() + prefixes.new.len() <= capacities.prefixes
        && observed.addresses.len() + addresses.new.len() <= capacities.addresses;
    push(steps, Step::PutPrefixes, prefixes.changed);
    push(steps, Step::PutAddresses, addresses.changed);
    let added = (prefixes.new, addresses.new);
    let removed = (addresses.gone, prefixes.gone);
    if room {
        add(added, steps);
        remove(removed, steps);
    } else {
        remove(removed, steps);
        add(added, steps);
    }
    push(steps, Step::Allow, allow);
    push(steps, Step::Disallow, last);
}

type Entries<K> = Vec<(K, FarEnd)>;

fn add((prefixes, addresses): (Entries<Prefix>, Entries<Address>), steps: &mut Vec<Step>) {
    push(steps, Step::PutPrefixes, prefixes);
    push(steps, Step::PutAddresses, addresses);
}

fn remove((addresses, prefixes): (Vec<Address>, Vec<Prefix>), steps: &mut Vec<Step>) {
    push(steps, Step::DeleteAddresses, addresses);
    push(steps, Step::DeletePrefixes, prefixes);
}

fn push<T>(steps: &mut Vec<Step>, step: impl FnOnce(Vec<T>) -> Step, entries: Vec<T>) {
    if !entries.is_empty() {
        steps.push(step(entries));
    }
}

struct Difference<K, V> {
    changed: Vec<(K, V)>,
    gone: Vec<K>,
    new: Vec<(K, V)>,
}

impl<K: Ord + Copy, V: PartialEq + Copy> Difference<K, V> {
    fn between(now: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Self {
        let gone = now.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        let (mut changed, mut new) = (Vec::new(), Vec::new());
        for (key, value) in wanted {
            match now.get(key) {
                None => new.push((*key, *value)),
                Some(stands) if stands != value => changed.push((*key, *value)),
                Some(_) => {}
            }
        }
        Self { changed, gone, new }
    }
}

/// Virtual clusters that are gone.
fn gone<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a VirtualClusterName, &'a ObservedCgroup)> {
    observed.cgroups.iter().filter(|(name, _)| !desired.cgroups.contains_key(*name))
}

/// One that is gone and still has processes is released: its limits are lifted and nothing is
/// denied, but it is counted until its last process ends.
fn release_gone(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    for (name, cgroup) in gone(desired, observed).filter(|(_, cgroup)| cgroup.populated) {
        release(name, cgroup, observed, steps);
    }
}

/// Ends of those that are gone and have no process, and of entries whose cgroup is gone.
fn ends(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let empty = || gone(desired, observed).filter(|(_, cgroup)| !cgroup.populated);
    let mut steps: Vec<_> =
        empty().map(|(name, _)| Step::RemoveCgroup { name: name.clone() }).collect();
    let removed: BTreeSet<_> = empty().map(|(_, cgroup)| cgroup.id).collect();
    let alive: BTreeSet<_> = observed
        .cgroups
        .values()
        .map(|cgroup| cgroup.id)
        .filter(|id| !removed.contains(id))
        .collect();
    let stale = observed.network.members.keys().filter(|id| !alive.contains(id));
    steps.extend(stale.map(|id| Step::DeleteMember(*id)));
    let stale = observed.network.counters.iter().filter(|id| !alive.contains(id));
    steps.extend(stale.map(|id| Step::DeleteCounters(*id)));
    steps
}

fn release(
    name: &VirtualClusterName,
    cgroup: &ObservedCgroup,
    observed: &Observed,
    steps: &mut Vec<Step>,
) {
    for (control, value) in &cgroup.controls {
        let default = control.default_value();
        if *value != default {
            steps.push(Step::SetControl { name: name.clone(), control: *control, value: default });
        }
    }
    if let Some(member) = observed.network.members.get(&cgroup.id)
        && member.mode != MODE_OFF
    {
        let member = Member { mode: MODE_OFF, ..*member };
        steps.push(Step::SetMember { name: name.clone(), member });
    }
}

#[cfg(test)]
mod tests;
