//! The controller inside a Kubernetes cluster: it watches everything once, for all agents, and
//! says how objects stand.
//!
//! Watches ([`watch`]) hear, one thread ([`feed`]) decides with a pure [`index`] and hands on what
//! changed, and the replica that holds the [`lease`] writes status, Events and taints ([`speak`]).
//! While the API server is away, what is known stands.

mod feed;
mod index;
mod lease;
mod links;
mod objects;
mod picture;
mod ranges;
mod seen;
mod speak;
mod standing;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{mpsc, watch as changes};
use tokio::task::{JoinHandle, JoinSet};

use crate::ledger::{Ledger, LedgerError};
use crate::state::State;
use crate::status::Nodes;
use feed::Feed;
use speak::Speaker;
use watch::{BackendKind, Heard};

/// How long a connection to the API server may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// What may wait for the one thread that takes it in.
const WAITING: usize = 4_096;
/// How often it is looked whether operators should know something.
const TICK: Duration = Duration::from_secs(1);
/// How often the API server is asked again what it can do.
const AGAIN: Duration = Duration::from_secs(2);

/// Which cluster, and who we are in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubernetesConfig {
    /// How to reach the API server; `None`: as every pod can.
    pub kubeconfig: Option<PathBuf>,
    /// Where the Lease is; `None`: in the pod's own namespace.
    pub namespace: Option<String>,
    /// Who holds the Lease and writes Events: unique among replicas.
    pub identity: String,
}

/// Why the API server cannot be talked with at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig.
    #[error("read the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Not in a pod.
    #[error("find the API server as a pod does; outside of a cluster give --kubeconfig FILE")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The client.
    #[error("make a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

impl KubernetesConfig {
    /// A client, and what is needed besides. Asks nobody anything yet.
    pub(crate) async fn connect(&self) -> Result<Link, ConnectError> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let failed = |source| ConnectError::Kubeconfig {
                    path: path.clone(),
                    source: Box::new(source),
                };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
            }
            None => Config::incluster().map_err(|it| ConnectError::InCluster(Box::new(it)))?,
        };
        config.connect_timeout = Some(CONNECT);
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|it| ConnectError::Client(Box::new(it)))?;
        Ok(Link { client, namespace, identity: self.identity.clone() })
    }
}

/// How to talk with the API server, and as whom.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    /// Where the Lease is.
    namespace: String,
    identity: String,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Everything that runs for it.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until all of it has ended.
    pub(crate) async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the cluster ended early");
            }
        }
    }
}

/// Begins to watch and to write, until `ending` becomes true.
pub(crate) fn start(
    Link { client, namespace, identity }: Link,
    (ledger, state, nodes): (Arc<Ledger>, Arc<State>, Arc<Nodes>),
    ending: &changes::Receiver<bool>,
) -> Result<Running, LedgerError> {
    let feed = Feed::new(ledger, state)?;
    let (heard, listener) = mpsc::channel(WAITING);
    let holds = changes::Sender::new(false);
    let speaker =
        Speaker::new(client.clone(), identity.clone(), nodes, feed.pictures(), holds.subscribe());
    let tasks = vec![
        tokio::task::spawn_blocking(move || feed.run(listener)),
        tokio::spawn(lease::keep(client.clone(), namespace, identity, holds, ending.clone())),
        tokio::spawn(speaker.run(ending.clone())),
        tokio::spawn(ranges::look(client.clone(), heard.clone(), ending.clone())),
        tokio::spawn(hear(client, heard, ending.clone())),
    ];
    Ok(Running { tasks })
}

/// Watches, and tells that time passes.
async fn hear(client: Client, to: mpsc::Sender<Heard>, mut ending: changes::Receiver<bool>) {
    // They end with this, and with them the last who could say anything to the one thread.
    let mut tasks = JoinSet::new();
    let watching = async {
        objects::watch_all(&client, &to, &mut tasks);
        loop {
            match BackendKind::of(&client).await {
                Ok(kind) => {
                    tracing::info!(?kind, "backends of Services are told as");
                    watch::cluster(&client, kind, &to, &mut tasks);
                    return std::future::pending::<()>().await;
                }
                Err(error) => {
                    let failed = Heard::Link("API groups", Err(crate::reason::chain(&error)));
                    let _ = to.send(failed).await;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    let ticking = async {
        while to.send(Heard::Tick).await.is_ok() {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = ticking => {}
        _ = ending.wait_for(|ending| *ending) => {}
    }
}
