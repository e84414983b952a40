//! A plugin that writes down what it is told, and the two ends of a conversation with it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_nri::messages::{
    Container, ContainerAdjustment, ContainerUpdate, CreateContainerResponse, PodRequest,
    PodSandbox,
};
use bulkhead_nri::testing::FakeRuntime;
use bulkhead_nri::{
    End, EventMask, Options, Plugin, PluginName, Refusal, Runtime, RuntimeInfo, State,
};
use tokio::io::DuplexStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// What containerd 1.7.24 calls itself.
pub(crate) const OLD: (&str, &str) = ("containerd", "1.7.24~ds1");
/// The first containerd with the newer events.
pub(crate) const NEW: (&str, &str) = ("containerd", "v2.2.0");

pub(crate) struct Diary {
    pub(crate) events: EventMask,
    /// How long an answer to a request takes, and to `synchronize`.
    pub(crate) takes: Duration,
    pub(crate) synchronizes_in: Duration,
    pub(crate) told: Mutex<Vec<String>>,
    pub(crate) runtime: Mutex<Option<Runtime>>,
}

impl Diary {
    pub(crate) fn new(events: EventMask) -> Arc<Self> {
        Self::slow(events, Duration::ZERO, Duration::ZERO)
    }

    pub(crate) fn slow(events: EventMask, takes: Duration, synchronizes_in: Duration) -> Arc<Self> {
        let (told, runtime) = (Mutex::default(), Mutex::default());
        Arc::new(Self { events, takes, synchronizes_in, told, runtime })
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, what: &str, pod: &PodSandbox) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(format!("{what} {}", pod.name));
    }
}

impl Plugin for Diary {
    fn events(&self, _: &RuntimeInfo) -> EventMask {
        self.events
    }

    async fn configure(&self, info: &RuntimeInfo, runtime: Runtime) -> Result<(), Refusal> {
        if info.name == "unloved" {
            return Err(Refusal::for_good("not with this runtime"));
        }
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        Ok(())
    }

    async fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> Vec<ContainerUpdate> {
        tokio::time::sleep(self.synchronizes_in).await;
        for pod in &pods {
            self.note("exists", pod);
        }
        let update = |it: Container| ContainerUpdate { container_id: it.id, ..Default::default() };
        containers.into_iter().map(update).collect()
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Refusal> {
        tokio::time::sleep(self.takes).await;
        assert_ne!(pod.name, "cursed", "the plugin has a defect");
        self.note("run", &pod);
        if pod.namespace == "unknown" {
            return Err(Refusal::retry_later("whose is this namespace?"));
        }
        Ok(())
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        tokio::time::sleep(self.takes).await;
        self.note("stop", &pod);
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.note("remove", &pod);
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<CreateContainerResponse, Refusal> {
        self.note("create", &pod);
        Ok(ContainerAdjustment::cgroups_path(format!("a.slice:b:{}", container.id)).into())
    }

    async fn post_start_container(&self, pod: PodSandbox, _: Container) {
        self.note("started", &pod);
    }

    async fn post_update_pod_sandbox(&self, pod: PodSandbox) {
        self.note("resized", &pod);
    }
}

pub(crate) fn options() -> Options {
    Options::new(PluginName::new("diary", 7).expect("a good name"))
}

pub(crate) fn pod(name: &str) -> PodSandbox {
    PodSandbox { id: format!("{name}-id"), name: name.to_owned(), ..Default::default() }
}

pub(crate) fn of(pod: PodSandbox) -> PodRequest {
    PodRequest { pod: Some(pod) }
}

/// A conversation: the plugin's side serves in a task.
pub(crate) struct Conversation {
    pub(crate) runtime: FakeRuntime<DuplexStream>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<Arc<End>>,
}

impl Conversation {
    pub(crate) fn begin(plugin: &Arc<Diary>, options: Options) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (sender, state) = watch::channel(State::Connecting);
        let (stop, stopped) = oneshot::channel::<()>();
        let plugin = Arc::clone(plugin);
        let serving = tokio::spawn(async move {
            let stop = async {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            bulkhead_nri::serve(ours, &plugin, &options, &sender, stop).await
        });
        Self { runtime: FakeRuntime::new(theirs), state, stop, serving }
    }

    /// One that has come to events already.
    pub(crate) async fn connected(plugin: &Arc<Diary>, options: Options) -> io::Result<Self> {
        let mut this = Self::begin(plugin, options);
        this.runtime.handshake(OLD, EventMask::BASE, Vec::new(), Vec::new()).await?;
        Ok(this)
    }

    /// The runtime closes; why did the plugin's side end?
    pub(crate) async fn hang_up(self) -> Arc<End> {
        drop(self.runtime);
        let end = self.serving.await.expect("the plugin's side ends");
        drop(self.stop);
        end
    }
}
