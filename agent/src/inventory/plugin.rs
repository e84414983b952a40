//! What the runtime tells and asks through NRI.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_core::{Claim, Fact, NetworkMode, Pod, PodFact, PodUid, Snapshot};
use bulkhead_nri::messages::{Container, ContainerUpdate, PodSandbox};
use bulkhead_nri::{Event as NriEvent, EventMask, Plugin, Refusal, RuntimeInfo};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::addresses::{AddressReader, places};
use super::sandbox::{Sandboxes, pod_of};
use crate::cycle::Admission;
use crate::owner::Event;

/// How long a pod's start waits for its addresses; later ones are told later.
const ADDRESSES: Duration = Duration::from_millis(5);
/// How long they are waited for at all.
const LATE_ADDRESSES: Duration = Duration::from_secs(10);
/// How long a pod's start or stop waits for the thread that owns the kernel: half of what
/// runtimes allow, so that the answer is ours.
const OWNER: Duration = Duration::from_secs(1);

/// Registers every pod before any of its containers runs.
#[derive(Debug)]
pub struct PodPlugin {
    kubepods: PathBuf,
    kubepods_relative: String,
    owner: Sender<Event>,
    told: watch::Receiver<Option<Arc<Snapshot>>>,
    sandboxes: Mutex<Sandboxes>,
    addresses: AddressReader,
}

impl PodPlugin {
    /// A plugin that knows of no pod yet. `kubepods` is the kubelet's root, `kubepods_relative`
    /// the same below the mount of cgroup v2.
    pub fn new(
        kubepods: PathBuf,
        kubepods_relative: String,
        owner: Sender<Event>,
        told: watch::Receiver<Option<Arc<Snapshot>>>,
    ) -> Self {
        let (sandboxes, addresses) = (Mutex::default(), AddressReader::default());
        Self { kubepods, kubepods_relative, owner, told, sandboxes, addresses }
    }

    /// The sandbox's pod; `None`: it is no kubelet's.
    fn pod(&self, sandbox: &PodSandbox) -> Option<Pod> {
        let pod = pod_of(sandbox, &self.kubepods_relative);
        pod.inspect_err(|error| tracing::debug!(sandbox = sandbox.id, %error, "left alone")).ok()
    }

    fn sandboxes<T>(&self, change: impl FnOnce(&mut Sandboxes) -> T) -> T {
        // Nothing that holds it can leave it half changed.
        change(&mut self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn(&self, fact: PodFact) {
        // Without an owner the agent is ending.
        drop(self.owner.send(Event::Learn(Fact::Pods(fact))));
    }

    /// Fills in the pod's addresses, or sees to it that they are told later.
    async fn find_addresses(&self, sandbox: &PodSandbox, pod: &mut Pod) {
        if pod.host_network || !pod.addresses.is_empty() {
            return;
        }
        let cgroup = pod.cgroup.as_ref().map(|path| self.kubepods.join(path.relative()));
        let places = places(sandbox.network_namespace(), sandbox.pid, cgroup.as_deref());
        let (reader, owner, uid) = (self.addresses.clone(), self.owner.clone(), pod.uid.clone());
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            let Ok(Some(found)) = timeout(LATE_ADDRESSES, reader.read(places)).await else {
                tracing::warn!(pod = %uid, "its addresses are not known until the controller tells");
                return;
            };
            // Nobody waits any more.
            if let Err(found) = reply.send(found) {
                drop(owner.send(Event::Learn(Fact::Pods(PodFact::Addresses(uid, found)))));
            }
        });
        let found: Option<BTreeSet<IpAddr>> =
            timeout(ADDRESSES, answer).await.ok().and_then(Result::ok);
        pod.addresses = found.unwrap_or_default();
    }

    /// What holds for a pod as far as can be said without the owner: a refusal, or whether it
    /// must not run unregistered.
    fn judge(&self, pod: &Pod) -> Result<bool, Refusal> {
        let told = self.told.borrow();
        let Some(snapshot) = &*told else { return Ok(false) };
        match pod.claim(snapshot) {
            Claim::CutOff => Err(Refusal::retry_later(format!(
                "Bulkhead: pod {}/{} is of no virtual cluster, and such pods may not run here",
                pod.namespace, pod.name
            ))),
            Claim::Member(name) => {
                let cluster = snapshot.virtual_clusters.get(name);
                Ok(cluster.is_some_and(|one| one.network.mode == NetworkMode::Enforce))
            }
            Claim::Exempt | Claim::LeftAlone => Ok(false),
        }
    }

    async fn admit(&self, pod: Pod, must_be_registered: bool) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let name = format!("{}/{}", pod.namespace, pod.name);
        let asked = self.owner.send(Event::PodStarts(Box::new(pod), reply)).is_ok();
        let admission = if asked { timeout(OWNER, answer).await.ok() } else { None };
        match admission.and_then(Result::ok) {
            Some(
                Admission::Registered(_)
                | Admission::LeftAlone
                | Admission::Failed { must_not_run: false, .. },
            ) => Ok(()),
            Some(Admission::Refused(reason) | Admission::Failed { reason, must_not_run: true }) => {
                Err(Refusal::retry_later(format!("Bulkhead: {reason}")))
            }
            None if must_be_registered => Err(Refusal::retry_later(format!(
                "Bulkhead: pod {name} was not registered within {} ms",
                OWNER.as_millis()
            ))),
            None => {
                tracing::error!(pod = name, "it runs without being registered yet");
                Ok(())
            }
        }
    }

    fn forget(&self, uid: PodUid, sandbox: &str) {
        if self.sandboxes(|sandboxes| sandboxes.removed(&uid, sandbox)) {
            self.learn(PodFact::Gone(uid));
        }
    }
}

impl Plugin for PodPlugin {
    fn events(&self, _: &RuntimeInfo) -> EventMask {
        let events =
            [NriEvent::RunPodSandbox, NriEvent::StopPodSandbox, NriEvent::RemovePodSandbox];
        EventMask::of(&events)
    }

    async fn synchronize(&self, pods: Vec<PodSandbox>, _: Vec<Container>) -> Vec<ContainerUpdate> {
        let pods =
            pods.iter().filter_map(|sandbox| Some((self.pod(sandbox)?, sandbox.id.as_str())));
        let pods: Vec<_> = pods.collect();
        self.sandboxes(|sandboxes| sandboxes.all(pods.iter().map(|(pod, id)| (&pod.uid, *id))));
        self.learn(PodFact::All(pods.into_iter().map(|(pod, _)| pod).collect()));
        Vec::new()
    }

    async fn run_pod_sandbox(&self, sandbox: PodSandbox) -> Result<(), Refusal> {
        let Some(mut pod) = self.pod(&sandbox) else { return Ok(()) };
        let must_be_registered = self.judge(&pod)?;
        self.find_addresses(&sandbox, &mut pod).await;
        let uid = pod.uid.clone();
        self.sandboxes(|sandboxes| sandboxes.begins(&uid, &sandbox.id));
        let admitted = self.admit(pod, must_be_registered).await;
        if admitted.is_err() {
            self.forget(uid, &sandbox.id);
        }
        admitted
    }

    async fn stop_pod_sandbox(&self, sandbox: PodSandbox) {
        let Some(pod) = self.pod(&sandbox) else { return };
        if !self.sandboxes(|sandboxes| sandboxes.stopped(&pod.uid, &sandbox.id)) {
            return;
        }
        let (reply, answer) = oneshot::channel();
        if self.owner.send(Event::PodStopped(pod.uid.clone(), reply)).is_ok()
            && timeout(OWNER, answer).await.is_err()
        {
            tracing::warn!(pod = %pod.uid, "its last count comes late");
        }
        // They are given to another pod soon.
        self.learn(PodFact::Addresses(pod.uid, BTreeSet::new()));
    }

    async fn remove_pod_sandbox(&self, sandbox: PodSandbox) {
        if let Some(pod) = self.pod(&sandbox) {
            self.forget(pod.uid, &sandbox.id);
        }
    }
}
