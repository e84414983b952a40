//! The cycle in Kubernetes: pods that begin are registered before their containers run, and
//! counted a last time before they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bulkhead_core::{
    CgroupId, Claim, Fact, LocalPod, LocalPods, NetworkMode, Observed, Placement, Pod,
    PodAccounting, PodCgroup, PodFact, PodOwner, PodPath, PodUid, Sample, Snapshot, Step, Unknown,
    UsageRecord, VirtualClusterName, VirtualClusterNumber, account_pods,
};

use super::Cycle;
use super::late::{Late, Waits};
use crate::clock::Now;
use crate::kernel::seam::{Kernel, KernelError};

/// What was decided of a pod that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is a virtual cluster's, and stands in the kernel's tables as such.
    Registered(VirtualClusterName),
    /// It is nobody's, and may run.
    LeftAlone,
    /// It is nobody's, and such a one may not run now.
    Refused(String),
    /// It should stand in the kernel's tables and does not.
    Failed {
        /// Why.
        reason: String,
        /// Whether it must not run like that.
        must_not_run: bool,
    },
}

/// How the node does by its pods.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodsReport {
    /// How many pods of each virtual cluster are registered.
    pub registered: BTreeMap<VirtualClusterName, usize>,
    /// How many are nobody's and never cut off.
    pub exempt: usize,
    /// How many are nobody's.
    pub of_nobody: usize,
    /// Cgroups of pods of which nobody has told whose they are: their UIDs, the first few.
    pub unknown: Vec<PodUid>,
    /// How many of those there are.
    pub unknown_count: usize,
    /// What becomes of pods of nobody and of those that are not known.
    pub policy: Unknown,
    /// Whether all pods were told of at least once.
    pub is_complete: bool,
    /// Pods that went without a last count since the agent began.
    pub ended_unseen: BTreeMap<VirtualClusterName, u64>,
    /// How late pods were registered while no runtime told of them.
    pub late: Late,
}

/// How many UIDs a report shows.
const SHOWN: usize = 5;

/// What stands of pods in the kernel, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// By number; numbers are never given twice.
    names: BTreeMap<u32, VirtualClusterName>,
    owners: BTreeMap<CgroupId, PodOwner>,
    exempt: BTreeSet<CgroupId>,
    pods: BTreeMap<CgroupId, PodPath>,
    /// Pods whose last count was taken when they were stopped.
    counted_last: BTreeSet<CgroupId>,
    ended_unseen: BTreeMap<VirtualClusterName, u64>,
    waits: Waits,
    /// When the turn began, nanoseconds since boot; `None`: there was none.
    began: Option<(u64, Instant)>,
}

impl Registered {
    /// Learns names; those of virtual clusters that go are needed for their last counts.
    pub(super) fn name(&mut self, snapshot: Option<&Snapshot>) {
        let clusters = snapshot.into_iter().flat_map(|snapshot| snapshot.virtual_clusters.values());
        self.names.extend(clusters.map(|one| (one.number.get(), one.name.clone())));
    }

    fn see(&mut self, observed: &Observed) {
        for (id, owner) in &self.owners {
            let went = self.pods.contains_key(id) && !observed.pods.contains_key(id);
            if went && !self.counted_last.remove(id) {
                *self.ended_unseen.entry(owner.name.clone()).or_insert(0) += 1;
            }
        }
        self.owners.clear();
        self.exempt.clear();
        for (id, member) in &observed.network.members {
            if member.virtual_cluster == 0 {
                self.exempt.insert(*id);
            }
            let number = VirtualClusterNumber::new(member.virtual_cluster);
            let owner = self.names.get(&member.virtual_cluster).zip(number);
            let owner = owner.map(|(name, number)| PodOwner { name: name.clone(), number });
            self.owners.extend(owner.map(|owner| (*id, owner)));
        }
        self.pods.clone_from(&observed.pods);
        self.counted_last.retain(|id| observed.pods.contains_key(id));
    }

    /// A step of the turn was done.
    pub(super) fn done(&mut self, step: &Step) {
        if let (Step::SetPodMember { pod, .. }, Some((began, clock))) = (step, self.began) {
            let passed = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.waits.registered(pod.path.uid(), began.saturating_add(passed));
        }
    }

    pub(super) fn has(&self, id: CgroupId) -> bool {
        self.pods.contains_key(&id)
    }

    fn admit(&mut self, cgroup: PodCgroup, owner: Option<PodOwner>) {
        match owner {
            Some(owner) => drop(self.owners.insert(cgroup.id, owner)),
            None => drop(self.exempt.insert(cgroup.id)),
        }
        self.counted_last.remove(&cgroup.id);
        self.pods.insert(cgroup.id, cgroup.path);
    }
}

impl<K: Kernel> Cycle<K> {
    /// Takes in what stands when a turn begins.
    pub(super) fn see(&mut self, observed: &Observed, now: Now) {
        let began = (now.since_boot_nanoseconds, Instant::now());
        let first = self.registered.began.replace(began).is_none();
        let away = self.index.inventory().is_runtime_away();
        let overlay = self.desired.as_ref().and_then(|desired| desired.overlay.as_ref());
        let is_nobodys = |uid: &PodUid| overlay.is_some_and(|it| it.others.contains(uid));
        let there: BTreeSet<&PodUid> = observed.pods.values().map(PodPath::uid).collect();
        let waits = |uid: &PodUid| away && there.contains(uid) && !is_nobodys(uid);
        self.registered.waits.retain(waits);
        // Those that were there first are as old as may be.
        let known: BTreeSet<&PodUid> = self.registered.pods.values().map(PodPath::uid).collect();
        for uid in there.iter().filter(|uid| !first && !known.contains(*uid) && waits(uid)) {
            self.registered.waits.seen((*uid).clone(), began.0);
        }
        self.registered.see(observed);
    }

    /// A pod begins to run: none of its containers does before this returns. Says what was decided,
    /// and whether a turn has to follow.
    pub fn admit(&mut self, pod: Pod, now: Now) -> (Admission, bool) {
        let Some(snapshot) = self.index.shared_snapshot().cloned() else {
            self.learn(Fact::Pods(PodFact::Runs(pod)));
            return (Admission::LeftAlone, false);
        };
        let (owner, must_not_run) = match pod.claim(&snapshot) {
            Claim::CutOff => return (Admission::Refused(refusal(&pod)), false),
            Claim::Member(name) => {
                let cluster = snapshot.virtual_clusters.get(name);
                let mode = cluster.map(|cluster| cluster.network.mode);
                (Some(name.clone()), mode == Some(NetworkMode::Enforce))
            }
            Claim::Exempt => (None, false),
            Claim::LeftAlone => {
                // Its addresses may have been a virtual cluster's.
                let turn = !pod.addresses.is_empty();
                self.learn(Fact::Pods(PodFact::Runs(pod)));
                return (Admission::LeftAlone, turn);
            }
        };
        self.learn(Fact::Pods(PodFact::Runs(pod.clone())));
        let admission = match self.register(&snapshot, &pod, owner.as_ref(), now) {
            Ok(()) => owner.map_or(Admission::LeftAlone, Admission::Registered),
            Err(error) => {
                let reason = format!("pod {}/{}: {error}", pod.namespace, pod.name);
                tracing::error!(reason, "a pod is not registered");
                Admission::Failed { reason, must_not_run }
            }
        };
        let failed = matches!(admission, Admission::Failed { .. });
        (admission, failed)
    }

    fn register(
        &mut self,
        snapshot: &Snapshot,
        pod: &Pod,
        owner: Option<&VirtualClusterName>,
        now: Now,
    ) -> Result<(), KernelError> {
        let planned = |cycle: &Self| cycle.desired.as_ref().map(|desired| desired.generation);
        if planned(self) != Some(snapshot.generation) {
            // Its virtual cluster's addresses may not stand yet.
            self.turn(now);
        }
        let error = |message: &str| KernelError {
            subject: "registration".to_owned(),
            message: message.to_owned(),
            needs_restart: false,
        };
        let cgroup = self.kernel.pod(pod)?.ok_or_else(|| {
            error("its cgroup is not there; is the kubelet's root the one that the agent watches?")
        })?;
        let standing = self.desired.as_ref();
        let standing = standing.ok_or_else(|| error("nothing that the controller said stands"))?;
        let number = owner.map(|name| {
            let member = standing.network.members.get(name);
            member.and_then(|member| VirtualClusterNumber::new(member.virtual_cluster))
        });
        let number = match number {
            Some(None) => return Err(error("its virtual cluster does not stand yet")),
            Some(number) => number,
            None => None,
        };
        let steps = bulkhead_core::plan::admit(snapshot, standing, pod, cgroup.clone());
        for step in steps.unwrap_or_default() {
            tracing::info!(%step, "apply");
            self.kernel.apply(&step)?;
        }
        let owner = owner.zip(number);
        if let Some((_, number)) = owner {
            self.books.baselines.begin(cgroup.id, number);
        }
        let owner = owner.map(|(name, number)| PodOwner { name: name.clone(), number });
        self.registered.admit(cgroup, owner);
        Ok(())
    }

    /// Cgroups of these pods were made, while no runtime tells of pods.
    pub fn cgroups_seen(&mut self, pods: Vec<PodUid>, at: Now) {
        for uid in pods {
            self.registered.waits.seen(uid, at.since_boot_nanoseconds);
        }
    }

    /// A pod was stopped: nothing runs in it any more, and its cgroup is still there. What it used
    /// goes into the journal.
    pub fn count_last(&mut self, uid: &PodUid, now: Now) {
        let mut pods = self.registered.pods.iter();
        let Some((id, _)) = pods.find(|(_, path)| path.uid() == uid) else { return };
        let id = *id;
        if !self.registered.owners.contains_key(&id) {
            return;
        }
        match self.count_pod(id, now) {
            Ok(()) => drop(self.registered.counted_last.insert(id)),
            Err(error) => {
                tracing::error!(%error, pod = %uid, "its last count is not in the journal");
            }
        }
    }

    /// Books one pod: the others are booked in each turn.
    fn count_pod(&mut self, id: CgroupId, now: Now) -> Result<(), KernelError> {
        let sample = self.kernel.sample(now)?;
        let mut records = self.count_pods(&sample);
        records.retain(|record| record.cgroup == id);
        self.append(&records)?;
        match sample.failed_pods.get(&id) {
            None => Ok(()),
            Some(why) => Err(KernelError {
                subject: "sample".to_owned(),
                message: why.clone(),
                needs_restart: false,
            }),
        }
    }

    /// Counts pods, where there are some.
    pub(super) fn count_pods(&mut self, sample: &Sample) -> Vec<UsageRecord> {
        let alive = self.registered.pods.keys().copied().collect();
        let accounting = PodAccounting {
            window_nanoseconds: self.settings.window_nanoseconds,
            longest_gap_nanoseconds: self.settings.longest_gap_nanoseconds,
            owners: &self.registered.owners,
            alive: &alive,
        };
        account_pods(sample, accounting, &mut self.books)
    }

    /// What the controller said last.
    pub fn told(&self) -> Option<Arc<Snapshot>> {
        self.index.shared_snapshot().cloned()
    }

    /// The pods that the runtime shows, for the controller.
    pub fn local_pods(&self) -> LocalPods {
        let snapshot = self.index.snapshot();
        let local = |pod: &Pod| {
            let owner = snapshot.and_then(|snapshot| match pod.claim(snapshot) {
                Claim::Member(name) => Some(name.clone()),
                _ => None,
            });
            let local = LocalPod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                addresses: pod.addresses.clone(),
                host_network: pod.host_network,
                virtual_cluster: owner,
            };
            (pod.uid.to_string(), local)
        };
        self.index.inventory().shown().map(local).collect()
    }

    pub(super) fn pods_report(&self) -> Option<PodsReport> {
        let overlay = self.node.as_ref().is_some_and(|node| node.placement == Placement::Overlay);
        if !overlay {
            return None;
        }
        let inventory = self.index.inventory();
        let mut report = PodsReport {
            policy: self.index.snapshot().map(|said| said.policy.unknown).unwrap_or_default(),
            is_complete: inventory.is_complete(),
            ended_unseen: self.registered.ended_unseen.clone(),
            late: self.registered.waits.late().clone(),
            ..PodsReport::default()
        };
        for (id, path) in &self.registered.pods {
            if let Some(owner) = self.registered.owners.get(id) {
                *report.registered.entry(owner.name.clone()).or_insert(0) += 1;
            } else if self.registered.exempt.contains(id) {
                report.exempt += 1;
            } else if inventory.get(path.uid()).is_some() {
                report.of_nobody += 1;
            } else {
                report.unknown_count += 1;
                if report.unknown.len() < SHOWN {
                    report.unknown.push(path.uid().clone());
                }
            }
        }
        Some(report)
    }
}

fn refusal(pod: &Pod) -> String {
    format!(
        "pod {}/{} is of no virtual cluster, and such pods may not run (BulkheadConfig, unknown: \
         Deny); bind the namespace \"{}\" to a virtual cluster",
        pod.namespace, pod.name, pod.namespace
    )
}

#[cfg(test)]
mod tests;
