//! The one loop: observe, count, decide, apply. Owned by one plain thread; time and facts are
//! passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;

use bulkhead_core::judge::mended;
use bulkhead_core::{
    Accounting, Attempt, Books, CgroupId, Degradation, Desired, Fact, Failure, Index, NodeFacts,
    Observed, OnStale, Plan, Sample, State, Step, UsageRecord, VirtualClusterName,
    VirtualClusterNumber, account, compile, judge, plan,
};

use crate::checkpoint;
use crate::clock::Now;
use crate::faults::{self, Point};
use crate::journal::Journal;
use crate::kernel::seam::{Kernel, KernelError};

mod late;
mod pods;

pub use late::Late;
use pods::Registered;
pub use pods::{Admission, PodsReport};

/// How the cycle counts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which boot this is: cgroup ids mean nothing in another.
    pub boot_id: String,
    /// Length of a window, nanoseconds.
    pub window_nanoseconds: NonZeroU64,
    /// Time between samples over which memory is not integrated, nanoseconds.
    pub longest_gap_nanoseconds: u64,
}

/// What people may know of the node after a turn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The generation that stands.
    pub applied_generation: u64,
    /// How the node does by each virtual cluster.
    pub states: BTreeMap<VirtualClusterName, State>,
    /// How often somebody else's change was mended; `None`: tables and programs.
    pub mended: BTreeMap<Option<VirtualClusterName>, u64>,
    /// What is wrong with the node itself.
    pub reasons: Vec<Degradation>,
    /// How the node does by its pods; `None`: virtual clusters have cgroups of their own.
    pub pods: Option<PodsReport>,
}

/// The loop's state.
#[derive(Debug)]
pub struct Cycle<K> {
    kernel: K,
    journal: Journal,
    settings: Settings,
    index: Index,
    books: Books,
    registered: Registered,
    /// What the newest facts ask for, as far as they were not refused.
    desired: Option<Desired>,
    /// The wish that stood, whole, after the last turn that reached it.
    reached: Option<Desired>,
    attempt: Option<Attempt>,
    mended: BTreeMap<Option<VirtualClusterName>, u64>,
    node: Option<NodeFacts>,
    /// Whose connections are to be ended in the next turn, too.
    again: Vec<Step>,
    needs_restart: bool,
    /// What was found at the start and stays so until the next.
    noted: Vec<Degradation>,
    /// What is wrong with observing, counting or the journal.
    troubles: BTreeMap<&'static str, Degradation>,
}

impl<K: Kernel> Cycle<K> {
    /// A cycle that knows nothing yet and changes nothing until it is told something.
    pub fn new(kernel: K, journal: Journal, settings: Settings, books: Books) -> Self {
        Self {
            kernel,
            journal,
            settings,
            index: Index::default(),
            books,
            registered: Registered::default(),
            desired: None,
            reached: None,
            attempt: None,
            mended: BTreeMap::new(),
            node: None,
            again: Vec::new(),
            needs_restart: false,
            noted: Vec::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// What was found at the start and an operator must know.
    pub fn note(&mut self, found: Vec<Degradation>) {
        self.noted = found;
    }

    /// Takes in what the node was told. A fact that makes no sense changes nothing.
    pub fn learn(&mut self, fact: Fact) {
        let refused = self.index.apply(fact).err();
        self.registered.name(self.index.snapshot());
        self.trouble("facts", refused.map(|error| KernelError::new("snapshot", &error)));
    }

    /// The journal, for acknowledgements and its backlog.
    pub const fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// One turn: what was counted goes into the journal before anything that ends counters is
    /// done.
    pub fn turn(&mut self, now: Now) -> Report {
        let observed = match self.kernel.observe() {
            Ok(observed) => observed,
            Err(error) => {
                let failure = Degradation {
                    subject: error.subject.clone(),
                    message: format!("nothing can be seen to: {}", error.message),
                };
                self.attempt = Some(Attempt::Failed(vec![Failure { subject: None, failure }]));
                self.needs_restart |= error.needs_restart;
                self.trouble("observe", Some(error));
                return self.report();
            }
        };
        self.trouble("observe", None);
        self.see(&observed, now);
        let (plan, refused) = self.decide(&observed);
        let plan = self.repeating(plan);
        // Nothing else is kept waiting for the disk.
        let failures = if plan.steps.iter().any(Step::counts_first) {
            self.book(now, &observed);
            let uncounted = self.troubles.contains_key("count");
            self.carry_out(&if uncounted { plan.keeping_counters() } else { plan })
        } else {
            let failures = self.carry_out(&plan);
            self.book(now, &observed);
            failures
        };
        self.conclude(failures, refused);
        self.report()
    }

    /// Counts, and keeps whether that went well.
    fn book(&mut self, now: Now, observed: &Observed) {
        let counted = self.count(now, observed);
        faults::pass(Point::TurnCounted);
        self.trouble("count", counted.err());
    }

    fn conclude(&mut self, failures: Vec<Failure>, refused: Option<Degradation>) {
        if self.desired.is_none() && refused.is_none() {
            return;
        }
        self.attempt = Some(match (refused, failures.is_empty()) {
            (Some(reason), _) => Attempt::Refused(reason),
            (None, false) => Attempt::Failed(failures),
            (None, true) => {
                self.reached.clone_from(&self.desired);
                Attempt::Reached
            }
        });
    }

    /// Whether only another start of the agent can mend what is wrong.
    pub const fn needs_restart(&self) -> bool {
        self.needs_restart
    }

    /// Whether the newest facts stand, as far as they can: then they are worth keeping.
    pub const fn accepts(&self) -> bool {
        !matches!(self.attempt, Some(Attempt::Refused(_)))
    }

    /// What the next turn would do, one line for each step.
    pub fn preview(&mut self) -> Result<Vec<String>, KernelError> {
        let observed = self.kernel.observe()?;
        let plan = self.wish().and_then(|(desired, node)| match desired {
            Some(desired) => plan(&desired, &observed, node.capacities)
                .map_err(|error| KernelError::new("plan", &error)),
            None => Ok(Plan::default()),
        })?;
        Ok(plan.steps.iter().map(ToString::to_string).collect())
    }

    /// What the node was when it was last looked at.
    pub const fn node(&self) -> Option<&NodeFacts> {
        self.node.as_ref()
    }

    /// What people may know now.
    pub fn report(&self) -> Report {
        let states = match (&self.desired, &self.attempt) {
            (Some(desired), Some(attempt)) => judge(desired, attempt),
            _ => BTreeMap::new(),
        };
        let mut reasons: Vec<_> =
            self.noted.iter().chain(self.troubles.values()).cloned().collect();
        if let Some(Attempt::Refused(reason)) = &self.attempt {
            reasons.push(reason.clone());
        }
        reasons.extend(self.stale());
        Report {
            applied_generation: self.reached.as_ref().map_or(0, |reached| reached.generation),
            states: self.with_pending(states),
            mended: self.mended.clone(),
            reasons,
            pods: self.pods_report(),
        }
    }

    /// What it means that the controller is away.
    fn stale(&self) -> Option<Degradation> {
        let snapshot = self.index.snapshot().filter(|_| self.index.is_stale())?;
        let message = match snapshot.policy.on_stale {
            OnStale::AllowCounted => {
                "it is away: addresses inside the cluster that it never told of pass, and are \
                 counted as would-deny (BulkheadConfig, onStale)"
            }
            OnStale::Deny => {
                "it is away: addresses inside the cluster that it never told of are refused \
                 (BulkheadConfig, onStale)"
            }
        };
        Some(Degradation { subject: "controller".to_owned(), message: message.to_owned() })
    }

    /// Virtual clusters that were told of but are in no wish yet.
    fn with_pending(
        &self,
        mut states: BTreeMap<VirtualClusterName, State>,
    ) -> BTreeMap<VirtualClusterName, State> {
        let known = self.index.snapshot().map(|snapshot| snapshot.virtual_clusters.keys());
        for name in known.into_iter().flatten() {
            let state = match &self.attempt {
                Some(Attempt::Refused(reason)) => State::Refused(vec![reason.clone()]),
                _ => State::Pending,
            };
            states.entry(name.clone()).or_insert(state);
        }
        states
    }

    /// Counts and puts the counts into the journal.
    fn count(&mut self, now: Now, observed: &Observed) -> Result<(), KernelError> {
        let sample = self.kernel.sample(now)?;
        let numbers: BTreeMap<CgroupId, VirtualClusterNumber> = observed
            .network
            .members
            .iter()
            .filter_map(|(id, member)| {
                Some((*id, VirtualClusterNumber::new(member.virtual_cluster)?))
            })
            .collect();
        let accounting = Accounting {
            window_nanoseconds: self.settings.window_nanoseconds,
            longest_gap_nanoseconds: self.settings.longest_gap_nanoseconds,
            numbers: &numbers,
        };
        let mut records = account(&sample, accounting, &mut self.books.integrals);
        records.extend(self.count_pods(&sample));
        if records.is_empty() {
            return unread(&sample);
        }
        self.append(&records)?;
        unread(&sample)
    }

    fn append(&mut self, records: &[UsageRecord]) -> Result<(), KernelError> {
        let checkpoint = checkpoint::encode(&self.settings.boot_id, &self.books)
            .map_err(|error| KernelError::new("journal", &error))?;
        let appended = self.journal.append_with(records, Some(&checkpoint));
        appended.map(drop).map_err(|error| KernelError::new("journal", &error))
    }

    /// What the newest facts ask for on this node as it is now.
    fn wish(&mut self) -> Result<(Option<Desired>, NodeFacts), KernelError> {
        let devices = self.devices();
        let node = self.kernel.node(&devices)?;
        self.node = Some(node.clone());
        let desired =
            compile(&self.index, &node).map_err(|error| KernelError::new("snapshot", &error))?;
        Ok((desired, node))
    }

    fn devices(&self) -> BTreeSet<PathBuf> {
        let snapshot = self.index.snapshot();
        let clusters = snapshot.iter().flat_map(|snapshot| snapshot.virtual_clusters.values());
        clusters.flat_map(|one| one.limit.io.iter()).map(|limit| limit.device.clone()).collect()
    }

    /// The plan, and why the newest facts were refused, if they were: then the plan is that of
    /// the wish before, which goes on being looked after.
    fn decide(&mut self, observed: &Observed) -> (Plan, Option<Degradation>) {
        let decided = self.wish().and_then(|(desired, node)| {
            let Some(desired) = desired else {
                return Ok(None);
            };
            let plan = plan(&desired, observed, node.capacities)
                .map_err(|error| KernelError::new("plan", &error))?;
            Ok(Some((desired, plan)))
        });
        let refused = match decided {
            Ok(None) => return (Plan::default(), None),
            Ok(Some((desired, plan))) => {
                let as_before = self.reached.as_ref() == Some(&desired);
                self.desired = Some(desired);
                return (self.noting(plan, as_before), None);
            }
            Err(error) => error,
        };
        tracing::error!(%refused, "the newest snapshot is refused; the one before stands");
        let capacities = self.node.as_ref().map(|node| node.capacities).unwrap_or_default();
        let before = self.desired.as_ref().map(|desired| plan(desired, observed, capacities));
        let plan = before.and_then(Result::ok).unwrap_or_default();
        let as_before = self.reached.is_some() && self.reached == self.desired;
        (self.noting(plan, as_before), Some(refused.into()))
    }

    /// Counts what somebody else made necessary.
    fn noting(&mut self, plan: Plan, as_before: bool) -> Plan {
        for (subject, count) in mended(&plan, as_before) {
            *self.mended.entry(subject).or_insert(0) += count;
        }
        plan
    }

    /// Ends once more what was ended in the turn before: a connection that was being made then
    /// belonged to no process yet.
    fn repeating(&mut self, mut plan: Plan) -> Plan {
        let due = std::mem::take(&mut self.again);
        let ends = |step: &&Step| {
            matches!(step, Step::EndConnections { .. } | Step::EndPodConnections { .. })
        };
        self.again = plan.steps.iter().filter(ends).cloned().collect();
        let stands = |step: &Step| match step {
            Step::EndPodConnections { pod, .. } => self.registered.has(pod.id),
            step => step.subject().is_some_and(|name| {
                self.desired.as_ref().is_some_and(|desired| desired.cgroups.contains_key(name))
            }),
        };
        let due = due.into_iter().filter(|step| stands(step) && !self.again.contains(step));
        plan.steps.extend(due.collect::<Vec<_>>());
        plan
    }

    fn carry_out(&mut self, plan: &Plan) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut keep_counters = false;
        for step in &plan.steps {
            if keep_counters && step.ends_counters() {
                continue;
            }
            tracing::info!(%step, "apply");
            faults::pass(Point::StepBegin);
            let applied = self.kernel.apply(step);
            faults::pass(Point::StepDone);
            let Err(error) = applied else {
                self.registered.done(step);
                self.book_lives_of_counters(step);
                continue;
            };
            if matches!(step, Step::EndConnections { .. } | Step::EndPodConnections { .. })
                && !self.again.contains(step)
            {
                self.again.push(step.clone());
            }
            tracing::error!(%error, %step, "a step failed");
            // It lives on, so it goes on being a member and being counted.
            keep_counters |= matches!(step, Step::RemoveCgroup { .. });
            let subject = step.subject().cloned();
            failures.push(Failure { subject, failure: error.into() });
            if step.failure_stops() {
                break;
            }
        }
        failures
    }

    /// Where counting of a pod begins and ends with its counters.
    pub(super) fn book_lives_of_counters(&mut self, step: &Step) {
        match step {
            Step::CreatePodCounters { pod, .. } => self.books.baselines.counters_begin(pod.id),
            Step::DeleteCounters(cgroup) => {
                self.books.baselines.counters_end(*cgroup);
                self.books.integrals.forget(*cgroup);
            }
            _ => {}
        }
    }

    fn trouble(&mut self, what: &'static str, error: Option<KernelError>) {
        match error {
            Some(error) => {
                tracing::error!(%error, what, "trouble");
                self.troubles.insert(what, error.into());
            }
            None => drop(self.troubles.remove(what)),
        }
    }
}

/// An error where something could not be read: its counters must not end uncounted.
fn unread(sample: &Sample) -> Result<(), KernelError> {
    let failed = sample.failed.iter().next();
    let failed = failed.map(|(name, why)| (format!("virtual cluster \"{name}\""), why));
    let failed_pod = sample.failed_pods.iter().next();
    let failed_pod = failed_pod.map(|(id, why)| (format!("the pod with cgroup {id}"), why));
    match failed.or(failed_pod) {
        Some((what, why)) => Err(KernelError {
            subject: "sample".to_owned(),
            message: format!("{what} is not counted in this turn: {why}"),
            needs_restart: false,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
