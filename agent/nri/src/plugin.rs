//! What a plugin is.

use std::future::{Future, ready};

use crate::event::EventMask;
use crate::messages::{
    Container, ContainerAdjustment, ContainerUpdate, CreateContainerResponse, LinuxResources,
    PodSandbox, UpdateContainerResponse, ValidateContainerAdjustmentRequest,
};
use crate::runtime::{Runtime, RuntimeInfo};
use crate::ttrpc::{Code, Status};

/// A plugin's "no": the runtime fails what it was about to do, with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
    code: Code,
}

impl Refusal {
    /// No for now: what was asked for may be asked again (status `UNAVAILABLE`). A kubelet tries a
    /// refused pod again, later and later.
    pub fn retry_later(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), code: Code::UNAVAILABLE }
    }

    /// No, and asking again will not help (status `FAILED_PRECONDITION`). A kubelet asks again
    /// all the same.
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), code: Code::FAILED_PRECONDITION }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.reason)
    }
}

impl From<ContainerAdjustment> for CreateContainerResponse {
    fn from(adjust: ContainerAdjustment) -> Self {
        Self { adjust: Some(adjust), ..Self::default() }
    }
}

/// A plugin. Write the methods of the events that it wants as `async fn`; all others do nothing.
///
/// The runtime waits for each answer, and nothing else on the node can start meanwhile: answer in
/// milliseconds, from memory. A runtime closes the connection to a plugin that takes longer than
/// its request timeout (2 s by default); see [`WhenLate`](crate::WhenLate) for what happens before
/// that.
///
/// Each request runs in a task of its own, so `&self` is shared. A method that has begun is run to
/// its end, also when its answer comes too late to be sent; only the end of the connection cuts it
/// off at an `await`.
///
/// Methods that return a [`Refusal`] are those whose failure a runtime can bear: it fails the pod
/// or container and cleans up. Others return nothing, since an error would leave things that
/// cannot be stopped or removed.
pub trait Plugin: Send + Sync + 'static {
    /// What the plugin wants to be told. What the runtime does not know is left out, and
    /// [`State::Connected`](crate::State::Connected) says what is left; see
    /// [`RuntimeInfo::known_events`].
    fn events(&self, runtime: &RuntimeInfo) -> EventMask;

    /// The connection is being made. A refusal ends it; it is tried again later.
    fn configure(
        &self,
        info: &RuntimeInfo,
        runtime: Runtime,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (info, runtime);
        ready(Ok(()))
    }

    /// What exists now: all of it, also when the runtime tells it in pieces. Comes before any
    /// other event of this connection, and again after each reconnection: what the plugin knew
    /// and what is not here is gone. Returns changes of containers.
    fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> impl Future<Output = Vec<ContainerUpdate>> + Send {
        let _ = (pods, containers);
        ready(Vec::new())
    }

    /// A sandbox was made, its network too; no container runs yet. After a refusal, the runtime
    /// tears the sandbox down, and may tell its stop and its removal.
    fn run_pod_sandbox(&self, pod: PodSandbox) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = pod;
        ready(Ok(()))
    }

    /// A pod's resources change: what it takes beside its containers, and their sum.
    fn update_pod_sandbox(
        &self,
        pod: PodSandbox,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (pod, overhead, resources);
        ready(Ok(()))
    }

    /// A pod's resources were changed.
    fn post_update_pod_sandbox(&self, pod: PodSandbox) -> impl Future<Output = ()> + Send {
        let _ = pod;
        ready(())
    }

    /// A sandbox is stopped.
    fn stop_pod_sandbox(&self, pod: PodSandbox) -> impl Future<Output = ()> + Send {
        let _ = pod;
        ready(())
    }

    /// A sandbox is removed.
    fn remove_pod_sandbox(&self, pod: PodSandbox) -> impl Future<Output = ()> + Send {
        let _ = pod;
        ready(())
    }

    /// A container is being created: how shall it differ from what was asked for? The only event
    /// that can set a container's cgroup.
    fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Result<CreateContainerResponse, Refusal>> + Send {
        let _ = (pod, container);
        ready(Ok(CreateContainerResponse::default()))
    }

    /// A container was created.
    fn post_create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pod, container);
        ready(())
    }

    /// A container is being started.
    fn start_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (pod, container);
        ready(Ok(()))
    }

    /// A container was started; its process runs.
    fn post_start_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pod, container);
        ready(())
    }

    /// A container's resources change.
    fn update_container(
        &self,
        pod: PodSandbox,
        container: Container,
        resources: Option<LinuxResources>,
    ) -> impl Future<Output = Result<UpdateContainerResponse, Refusal>> + Send {
        let _ = (pod, container, resources);
        ready(Ok(UpdateContainerResponse::default()))
    }

    /// A container's resources were changed.
    fn post_update_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pod, container);
        ready(())
    }

    /// A container is stopped, or ended. Returns changes of other containers.
    fn stop_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Vec<ContainerUpdate>> + Send {
        let _ = (pod, container);
        ready(Vec::new())
    }

    /// A container is removed.
    fn remove_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pod, container);
        ready(())
    }

    /// All plugins adjusted a container; a refusal fails its creation.
    fn validate_container_adjustment(
        &self,
        request: ValidateContainerAdjustmentRequest,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = request;
        ready(Ok(()))
    }
}
