//! From a request to a method of [`Plugin`], and back.

use prost::Message;
use tracing::debug;

use crate::event::Event;
use crate::messages::{
    ConfigureRequest, Container, ContainerRequest, PodRequest, PodSandbox, StateChangeEvent,
    StopContainerResponse, SynchronizeRequest, UpdateContainerRequest, UpdatePodSandboxRequest,
    ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse,
};
use crate::plugin::{Plugin, Refusal};
use crate::ttrpc::{Code, Request, Status};

pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A request of the runtime's.
#[derive(Debug)]
pub(crate) enum Call {
    Configure(ConfigureRequest),
    Synchronize(SynchronizeRequest),
    Shutdown,
    Told(Box<Told>),
    /// An event that this crate does not know.
    Unknown,
}

/// An event, and what it is about.
#[derive(Debug)]
pub(crate) enum Told {
    Pod(Event, PodSandbox),
    PodUpdate(PodSandbox, Box<UpdatePodSandboxRequest>),
    Container(Event, PodSandbox, Container),
    ContainerUpdate(PodSandbox, Container, Box<UpdateContainerRequest>),
    Validation(Box<ValidateContainerAdjustmentRequest>),
}

impl Told {
    pub(crate) fn event(&self) -> Event {
        match self {
            Self::Pod(event, _) | Self::Container(event, ..) => *event,
            Self::PodUpdate(..) => Event::UpdatePodSandbox,
            Self::ContainerUpdate(..) => Event::UpdateContainer,
            Self::Validation(_) => Event::ValidateContainerAdjustment,
        }
    }
}

/// What a request asks for; an answer to what cannot be understood.
pub(crate) fn call(request: &Request) -> Result<Call, Status> {
    let Request { service, method, payload, .. } = request;
    if service != PLUGIN_SERVICE {
        return Err(Status::new(Code::UNIMPLEMENTED, format!("service {service}")));
    }
    match &**method {
        "Configure" => Ok(Call::Configure(decode(method, payload)?)),
        "Synchronize" => Ok(Call::Synchronize(decode(method, payload)?)),
        "Shutdown" => Ok(Call::Shutdown),
        "StateChange" => state_change(decode(method, payload)?),
        _ => {
            let event = Event::ALL.into_iter().find(|event| event.name() == method);
            let unknown = || Status::new(Code::UNIMPLEMENTED, format!("method {method}"));
            Ok(Call::Told(Box::new(told(event.ok_or_else(unknown)?, payload)?)))
        }
    }
}

fn told(event: Event, payload: &[u8]) -> Result<Told, Status> {
    let name = event.name();
    Ok(match event {
        Event::RunPodSandbox
        | Event::StopPodSandbox
        | Event::RemovePodSandbox
        | Event::PostUpdatePodSandbox => {
            let PodRequest { pod } = decode(name, payload)?;
            Told::Pod(event, present(name, pod)?)
        }
        Event::UpdatePodSandbox => {
            let mut request: Box<UpdatePodSandboxRequest> = Box::new(decode(name, payload)?);
            Told::PodUpdate(present(name, request.pod.take())?, request)
        }
        Event::UpdateContainer => {
            let mut request: Box<UpdateContainerRequest> = Box::new(decode(name, payload)?);
            let pod = present(name, request.pod.take())?;
            Told::ContainerUpdate(pod, present(name, request.container.take())?, request)
        }
        Event::ValidateContainerAdjustment => Told::Validation(Box::new(decode(name, payload)?)),
        Event::CreateContainer
        | Event::PostCreateContainer
        | Event::StartContainer
        | Event::PostStartContainer
        | Event::PostUpdateContainer
        | Event::StopContainer
        | Event::RemoveContainer => {
            let ContainerRequest { pod, container } = decode(name, payload)?;
            Told::Container(event, present(name, pod)?, present(name, container)?)
        }
    })
}

/// Events that have a call of their own in every runtime do not come this way: their answers would
/// not fit.
fn state_change(change: StateChangeEvent) -> Result<Call, Status> {
    let Some(event) = Event::from_number(change.event) else {
        debug!(number = change.event, "an event that is not known yet");
        return Ok(Call::Unknown);
    };
    let name = event.name();
    Ok(Call::Told(Box::new(match event {
        Event::RunPodSandbox
        | Event::StopPodSandbox
        | Event::RemovePodSandbox
        | Event::PostUpdatePodSandbox => Told::Pod(event, present(name, change.pod)?),
        Event::PostCreateContainer
        | Event::StartContainer
        | Event::PostStartContainer
        | Event::PostUpdateContainer
        | Event::RemoveContainer => {
            let container = present(name, change.container)?;
            Told::Container(event, present(name, change.pod)?, container)
        }
        Event::CreateContainer
        | Event::UpdateContainer
        | Event::StopContainer
        | Event::UpdatePodSandbox
        | Event::ValidateContainerAdjustment => {
            let reason = format!("{name} is a call of its own, no StateChange");
            return Err(Status::new(Code::INVALID_ARGUMENT, reason));
        }
    })))
}

fn decode<M: Message + Default>(method: &str, payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|error| {
        Status::new(
            Code::INVALID_ARGUMENT,
            format!("{method}: the message cannot be read: {error}"),
        )
    })
}

fn present<T>(method: &str, object: Option<T>) -> Result<T, Status> {
    let reason = || format!("{method}: the pod or container is missing");
    object.ok_or_else(|| Status::new(Code::INVALID_ARGUMENT, reason()))
}

/// Tells the plugin; returns the answer for the runtime.
pub(crate) async fn tell<P: Plugin>(plugin: &P, told: Told) -> Result<Vec<u8>, Status> {
    match told {
        Told::Pod(event, pod) => tell_pod(plugin, event, pod).await,
        Told::PodUpdate(pod, request) => {
            let UpdatePodSandboxRequest { overhead_linux_resources, linux_resources, .. } =
                *request;
            let done = plugin.update_pod_sandbox(pod, overhead_linux_resources, linux_resources);
            nothing(done.await)
        }
        Told::Container(event, pod, container) => {
            tell_container(plugin, event, pod, container).await
        }
        Told::ContainerUpdate(pod, container, request) => Ok(plugin
            .update_container(pod, container, request.linux_resources)
            .await?
            .encode_to_vec()),
        Told::Validation(request) => {
            let judged = plugin.validate_container_adjustment(*request).await;
            let (reject, reason) = match judged {
                Ok(()) => (false, String::new()),
                Err(refusal) => (true, refusal.reason().to_owned()),
            };
            Ok(ValidateContainerAdjustmentResponse { reject, reason }.encode_to_vec())
        }
    }
}

async fn tell_pod<P: Plugin>(plugin: &P, event: Event, pod: PodSandbox) -> Result<Vec<u8>, Status> {
    match event {
        Event::RunPodSandbox => return nothing(plugin.run_pod_sandbox(pod).await),
        Event::StopPodSandbox => plugin.stop_pod_sandbox(pod).await,
        Event::RemovePodSandbox => plugin.remove_pod_sandbox(pod).await,
        Event::PostUpdatePodSandbox => plugin.post_update_pod_sandbox(pod).await,
        _ => {}
    }
    Ok(Vec::new())
}

async fn tell_container<P: Plugin>(
    plugin: &P,
    event: Event,
    pod: PodSandbox,
    container: Container,
) -> Result<Vec<u8>, Status> {
    match event {
        Event::CreateContainer => {
            return Ok(plugin.create_container(pod, container).await?.encode_to_vec());
        }
        Event::StartContainer => return nothing(plugin.start_container(pod, container).await),
        Event::StopContainer => {
            let update = plugin.stop_container(pod, container).await;
            return Ok(StopContainerResponse { update }.encode_to_vec());
        }
        Event::PostCreateContainer => plugin.post_create_container(pod, container).await,
        Event::PostStartContainer => plugin.post_start_container(pod, container).await,
        Event::PostUpdateContainer => plugin.post_update_container(pod, container).await,
        Event::RemoveContainer => plugin.remove_container(pod, container).await,
        _ => {}
    }
    Ok(Vec::new())
}

fn nothing(done: Result<(), Refusal>) -> Result<Vec<u8>, Status> {
    done.map(|()| Vec::new()).map_err(Status::from)
}

/// "No" in the place of a plugin that is late; `None` for an event that cannot be refused.
pub(crate) fn late_refusal(event: Event) -> Option<Result<Vec<u8>, Status>> {
    let reason = "the plugin did not answer in time";
    match event {
        Event::RunPodSandbox
        | Event::UpdatePodSandbox
        | Event::CreateContainer
        | Event::StartContainer
        | Event::UpdateContainer => Some(Err(Refusal::retry_later(reason).into())),
        Event::ValidateContainerAdjustment => {
            let reason = reason.to_owned();
            Some(Ok(ValidateContainerAdjustmentResponse { reject: true, reason }.encode_to_vec()))
        }
        _ => None,
    }
}
