//! What a kubelet asks of a runtime: CRI v1, as much as a pod with one container takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// Every request and answer that is nothing but an identifier.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(int64, tag = "1")]
    cpu_period: i64,
    #[prost(int64, tag = "2")]
    cpu_quota: i64,
    #[prost(int64, tag = "3")]
    cpu_shares: i64,
    #[prost(int64, tag = "4")]
    memory_limit_in_bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "1")]
    resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(btree_map = "string, string", tag = "9")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateResources {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, optional, tag = "2")]
    linux: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// A pod as the kubelet would ask for it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) uid: &'static str,
    /// How often it was tried before.
    pub(crate) attempt: u32,
}

impl Pod {
    /// The slice that the kubelet makes for the pod.
    pub(crate) fn slice(&self) -> String {
        format!("kubepods-burstable-pod{}.slice", self.uid.replace('-', "_"))
    }

    fn config(&self) -> SandboxConfig {
        let text = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        SandboxConfig {
            metadata: Some(Metadata {
                name: self.name.to_owned(),
                uid: self.uid.to_owned(),
                namespace: self.namespace.to_owned(),
                attempt: self.attempt,
            }),
            labels: text(&[
                ("app", self.name),
                ("io.kubernetes.pod.name", self.name),
                ("io.kubernetes.pod.namespace", self.namespace),
                ("io.kubernetes.pod.uid", self.uid),
            ]),
            annotations: text(&[("kubernetes.io/config.source", "api")]),
            linux: Some(LinuxSandbox {
                cgroup_parent: format!("/kubepods.slice/kubepods-burstable.slice/{}", self.slice()),
            }),
        }
    }
}

/// A connection to the runtime's CRI service.
pub(crate) struct Kubelet {
    grpc: Grpc<Channel>,
}

impl Kubelet {
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let path: Arc<Path> = socket.into();
        let connector = tower::service_fn(move |_| {
            let path = Arc::clone(&path);
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://runtime");
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self { grpc: Grpc::new(channel) })
    }

    async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(method);
        let request = tonic::Request::new(request);
        Ok(self.grpc.unary(request, path, ProstCodec::default()).await?.into_inner())
    }

    /// Makes the pod's sandbox; returns its identifier.
    pub(crate) async fn run(&mut self, pod: &Pod) -> Result<String, tonic::Status> {
        let request = RunPodSandbox { config: Some(pod.config()) };
        let Id { id } = self.call("/runtime.v1.RuntimeService/RunPodSandbox", request).await?;
        Ok(id)
    }

    /// Makes a container in a sandbox; returns its identifier.
    pub(crate) async fn create(
        &mut self,
        sandbox: &str,
        pod: &Pod,
        name: &str,
        image: &str,
    ) -> Result<String, tonic::Status> {
        let labels = BTreeMap::from([("io.kubernetes.container.name".to_owned(), name.to_owned())]);
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(ImageSpec { image: image.to_owned() }),
            labels,
            linux: Some(LinuxContainer { resources: Some(limits(64 << 20)) }),
        };
        let request = CreateContainer {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.config()),
        };
        let Id { id } = self.call("/runtime.v1.RuntimeService/CreateContainer", request).await?;
        Ok(id)
    }

    /// Gives a container another limit of memory, in bytes.
    pub(crate) async fn resize(&mut self, container: &str, memory: i64) -> Result<()> {
        let request =
            UpdateResources { container_id: container.to_owned(), linux: Some(limits(memory)) };
        let method = "/runtime.v1.RuntimeService/UpdateContainerResources";
        self.call::<_, Empty>(method, request).await.context("resize a container").map(drop)
    }

    pub(crate) async fn start(&mut self, container: &str) -> Result<()> {
        self.by_id("/runtime.v1.RuntimeService/StartContainer", container).await
    }

    pub(crate) async fn stop(&mut self, container: &str) -> Result<()> {
        self.by_id("/runtime.v1.RuntimeService/StopContainer", container).await
    }

    pub(crate) async fn remove(&mut self, container: &str) -> Result<()> {
        self.by_id("/runtime.v1.RuntimeService/RemoveContainer", container).await
    }

    pub(crate) async fn stop_pod(&mut self, sandbox: &str) -> Result<()> {
        self.by_id("/runtime.v1.RuntimeService/StopPodSandbox", sandbox).await
    }

    pub(crate) async fn remove_pod(&mut self, sandbox: &str) -> Result<()> {
        self.by_id("/runtime.v1.RuntimeService/RemovePodSandbox", sandbox).await
    }

    async fn by_id(&mut self, method: &'static str, id: &str) -> Result<()> {
        let done = self.call::<_, Empty>(method, Id { id: id.to_owned() }).await;
        done.context(method).map(drop)
    }
}

fn limits(memory_limit_in_bytes: i64) -> Resources {
    Resources { cpu_period: 100_000, cpu_quota: 50_000, cpu_shares: 512, memory_limit_in_bytes }
}
