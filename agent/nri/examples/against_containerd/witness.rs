//! A plugin that remembers what it is told.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_nri::messages::{
    Container, ContainerAdjustment, ContainerUpdate, CreateContainerResponse, LinuxResources,
    PodSandbox, UpdateContainerResponse,
};
use bulkhead_nri::{Event, EventMask, Plugin, Refusal, RuntimeInfo};

/// The namespace whose pods are refused the first time.
pub(crate) const REFUSED: &str = "refused-once";
/// The namespace whose pods are answered too late.
pub(crate) const SLOW: &str = "slow";
/// The slice in which containers are put.
pub(crate) const SLICE: &str = "kubepods-bh0a-0b.slice";

/// Something that the plugin was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) event: Event,
    pub(crate) pod: PodSandbox,
    pub(crate) container: Option<Container>,
}

/// A plugin that remembers what it is told.
#[derive(Default)]
pub(crate) struct Witness {
    told: Mutex<Vec<Told>>,
    existed: Mutex<Vec<(Vec<PodSandbox>, Vec<Container>)>>,
    refused: Mutex<HashSet<String>>,
}

impl Witness {
    /// What it was told since it was asked the last time.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *lock(&self.told))
    }

    /// What existed each time that it connected.
    pub(crate) fn existed(&self) -> Vec<(Vec<PodSandbox>, Vec<Container>)> {
        lock(&self.existed).clone()
    }

    fn note(&self, event: Event, pod: PodSandbox, container: Option<Container>) {
        lock(&self.told).push(Told { event, pod, container });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugin for Witness {
    fn events(&self, _: &RuntimeInfo) -> EventMask {
        EventMask::ALL.without(Event::ValidateContainerAdjustment.into())
    }

    async fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> Vec<ContainerUpdate> {
        lock(&self.existed).push((pods, containers));
        Vec::new()
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Refusal> {
        let first = pod.namespace == REFUSED && lock(&self.refused).insert(pod.uid.clone());
        if pod.namespace == SLOW {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        self.note(Event::RunPodSandbox, pod, None);
        if first { Err(Refusal::retry_later("not the first time")) } else { Ok(()) }
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        self.note(Event::StopPodSandbox, pod, None);
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.note(Event::RemovePodSandbox, pod, None);
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<CreateContainerResponse, Refusal> {
        let path = format!("{SLICE}:cri-containerd:{}", container.id);
        self.note(Event::CreateContainer, pod, Some(container));
        Ok(ContainerAdjustment::cgroups_path(path).into())
    }

    async fn post_create_container(&self, pod: PodSandbox, container: Container) {
        self.note(Event::PostCreateContainer, pod, Some(container));
    }

    async fn start_container(&self, pod: PodSandbox, container: Container) -> Result<(), Refusal> {
        self.note(Event::StartContainer, pod, Some(container));
        Ok(())
    }

    async fn post_start_container(&self, pod: PodSandbox, container: Container) {
        self.note(Event::PostStartContainer, pod, Some(container));
    }

    async fn update_container(
        &self,
        pod: PodSandbox,
        container: Container,
        _: Option<LinuxResources>,
    ) -> Result<UpdateContainerResponse, Refusal> {
        self.note(Event::UpdateContainer, pod, Some(container));
        Ok(UpdateContainerResponse::default())
    }

    async fn post_update_container(&self, pod: PodSandbox, container: Container) {
        self.note(Event::PostUpdateContainer, pod, Some(container));
    }

    async fn stop_container(&self, pod: PodSandbox, container: Container) -> Vec<ContainerUpdate> {
        self.note(Event::StopContainer, pod, Some(container));
        Vec::new()
    }

    async fn remove_container(&self, pod: PodSandbox, container: Container) {
        self.note(Event::RemoveContainer, pod, Some(container));
    }
}
