//! Watches: one for each kind, for all agents together. What is heard goes to one owner; a watch
//! that fails is begun again for ever, and says that it fails.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use bulkhead_core::AddressBlock;
use futures::StreamExt;
use kube::core::Resource;
use kube::runtime::utils::{Backoff, WatchStreamExt};
use kube::runtime::watcher::{self, InitialListStrategy};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::index::told::{Change, Event};
use super::seen::{self, Seen};

/// A watch call ends after so long and goes on where it was: a connection that died in silence is
/// noticed 5 s later.
const CALL: u32 = 55;

/// How long a failed watch waits: the first time, and at most. Short: nobody else asks for all
/// nodes together, so the API server is not flooded.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a watch heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Of the cluster.
    Cluster(Event),
    /// Of the objects that users wrote.
    Object(super::objects::Heard),
    /// Ranges of the cluster that somebody else than its Nodes tells of.
    Ranges(BTreeSet<AddressBlock>),
    /// Some time has passed.
    Tick,
    /// A watch works (again), or does not.
    Link(&'static str, Result<(), String>),
}

/// Which kind lists the backends of Services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BackendKind {
    /// discovery.k8s.io/v1, from Kubernetes 1.21 on.
    EndpointSlices,
    /// What there was before.
    Endpoints,
}

impl BackendKind {
    /// What the API server has.
    pub(crate) async fn of(client: &Client) -> kube::Result<Self> {
        let groups = client.list_api_groups().await?;
        let versions = groups.groups.into_iter().filter(|group| group.name == "discovery.k8s.io");
        let has = versions.flat_map(|group| group.versions).any(|it| it.version == "v1");
        Ok(if has { Self::EndpointSlices } else { Self::Endpoints })
    }
}

/// Waits that double.
#[derive(Debug)]
struct Doubling(Duration);

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(WAITS.1);
        Some(wait)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.0 = WAITS.0;
    }
}

/// Watches everything that the index needs.
pub(crate) fn cluster(
    client: &Client,
    backends: BackendKind,
    to: &mpsc::Sender<Heard>,
    tasks: &mut JoinSet<()>,
) {
    let client = || client.clone();
    one::<seen::Pod>(Api::all(client()), "pods", to, tasks, Event::Pod);
    one::<seen::Service>(Api::all(client()), "services", to, tasks, Event::Service);
    match backends {
        BackendKind::EndpointSlices => {
            one::<seen::Slice>(Api::all(client()), "endpointslices", to, tasks, Event::Slice);
        }
        BackendKind::Endpoints => {
            one::<seen::Endpoints>(Api::all(client()), "endpoints", to, tasks, Event::Slice);
        }
    }
    one::<seen::Node>(Api::all(client()), "nodes", to, tasks, Event::Node);
    one::<seen::Namespace>(Api::all(client()), "namespaces", to, tasks, Event::Namespace);
}

fn one<K>(
    api: Api<K>,
    kind: &'static str,
    to: &mpsc::Sender<Heard>,
    tasks: &mut JoinSet<()>,
    event: fn(Change<K::Told, K::Name>) -> Event,
) where
    K: Seen + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::Told: Send,
    K::Name: Send,
{
    tasks.spawn(watch(api, kind, to.clone(), move |heard| {
        Heard::Cluster(event(match heard {
            watcher::Event::Init => Change::Begin,
            watcher::Event::InitApply(it) | watcher::Event::Apply(it) => Change::Applied(it.told()),
            watcher::Event::Delete(it) => Change::Gone(it.name()),
            watcher::Event::InitDone => Change::Done,
        }))
    }));
}

/// Watches one kind for as long as somebody listens.
pub(crate) async fn watch<K>(
    api: Api<K>,
    kind: &'static str,
    to: mpsc::Sender<Heard>,
    heard: impl Fn(watcher::Event<K>) -> Heard + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config {
        initial_list_strategy: InitialListStrategy::ListWatch,
        ..watcher::Config::default().timeout(CALL)
    };
    let events = watcher::watcher(api, config).backoff(Doubling(WAITS.0));
    let mut events = std::pin::pin!(events);
    let mut works = false;
    while let Some(event) = events.next().await {
        let (link, event) = match event {
            Ok(event) => ((!works).then_some(Ok(())), Some(heard(event))),
            Err(error) => (Some(Err(crate::reason::chain(&error))), None),
        };
        works = event.is_some();
        let link = link.map(|link| Heard::Link(kind, link));
        for heard in link.into_iter().chain(event) {
            if to.send(heard).await.is_err() {
                return;
            }
        }
    }
}
