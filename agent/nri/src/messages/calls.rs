use super::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, LinuxResources, PodSandbox,
};

/// A message with nothing in it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// To the runtime: a plugin introduces itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterPluginRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Its place among the plugins, two digits: lower ones are asked first.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
    /// Version of the protocol's Go module that the plugin was built with; told to newer runtimes.
    #[prost(string, tag = "3")]
    pub nri_version: String,
}

/// To the runtime: changes of containers that nobody asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateContainersRequest {
    /// Changes.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
    /// Containers to stop.
    #[prost(message, repeated, tag = "2")]
    pub evict: Vec<ContainerEviction>,
}

/// The runtime's answer to changes that nobody asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateContainersResponse {
    /// Changes that failed.
    #[prost(message, repeated, tag = "1")]
    pub failed: Vec<ContainerUpdate>,
}

/// The runtime introduces itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigureRequest {
    /// The plugin's configuration, where the runtime has one.
    #[prost(string, tag = "1")]
    pub config: String,
    /// The runtime's name.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// The runtime's version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Milliseconds for a registration; 0 where the runtime does not tell.
    #[prost(int64, tag = "4")]
    pub registration_timeout: i64,
    /// Milliseconds for a request; 0 where the runtime does not tell.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
    /// Version of the protocol's Go module in the runtime; only the newest tell it.
    #[prost(string, tag = "6")]
    pub nri_version: String,
}

/// The plugin says what it wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ConfigureResponse {
    /// Bit n - 1 for event n; 0 stands for every event.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// What exists when the plugin comes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SynchronizeRequest {
    /// Pods.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    /// Containers.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Whether more pods and containers follow in a further request.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// Answer to what exists.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SynchronizeResponse {
    /// Changes of existing containers; only in the answer to the last request.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
    /// Whether the plugin takes the further requests.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// A pod; the request of `RunPodSandbox`, `StopPodSandbox`, `RemovePodSandbox` and
/// `PostUpdatePodSandbox`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
}

/// A pod's resources change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdatePodSandboxRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// What the pod takes beside its containers.
    #[prost(message, optional, tag = "2")]
    pub overhead_linux_resources: Option<LinuxResources>,
    /// The sum of its containers' resources.
    #[prost(message, optional, tag = "3")]
    pub linux_resources: Option<LinuxResources>,
}

/// A container and its pod; the request of `CreateContainer`, `StopContainer`, `RemoveContainer`,
/// `StartContainer` and the calls that come after something was done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
}

/// Answer to the creation of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainerResponse {
    /// How it shall differ from what was asked for.
    #[prost(message, optional, tag = "1")]
    pub adjust: Option<ContainerAdjustment>,
    /// Changes of other containers.
    #[prost(message, repeated, tag = "2")]
    pub update: Vec<ContainerUpdate>,
    /// Other containers to stop.
    #[prost(message, repeated, tag = "3")]
    pub evict: Vec<ContainerEviction>,
}

/// A container's resources change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateContainerRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
    /// Its new resources.
    #[prost(message, optional, tag = "3")]
    pub linux_resources: Option<LinuxResources>,
}

/// Answer to a change of a container's resources.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateContainerResponse {
    /// Changes of this container and of others.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
    /// Containers to stop.
    #[prost(message, repeated, tag = "2")]
    pub evict: Vec<ContainerEviction>,
}

/// Answer to the end of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StopContainerResponse {
    /// Changes of other containers.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
}

/// How older runtimes tell every event that has no call of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateChangeEvent {
    /// Number of the event.
    #[prost(int32, tag = "1")]
    pub event: i32,
    /// The pod, or the container's pod.
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    /// The container, of an event of one.
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

/// What all plugins made of a container that is being created.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValidateContainerAdjustmentRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// The container as it was asked for.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
    /// How it shall differ.
    #[prost(message, optional, tag = "3")]
    pub adjust: Option<ContainerAdjustment>,
    /// Changes of other containers.
    #[prost(message, repeated, tag = "4")]
    pub update: Vec<ContainerUpdate>,
}

/// A plugin's judgement of what all plugins made of a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ValidateContainerAdjustmentResponse {
    /// Whether the container must not be created.
    #[prost(bool, tag = "1")]
    pub reject: bool,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
}
