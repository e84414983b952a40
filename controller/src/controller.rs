//! All parts put together.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::Endpoint;
use bulkhead_proto::listen::{ListenError, Listener};
use tokio::sync::watch;
use tokio::task;
use tonic::transport::server::Router;

use crate::ledger::LedgerError;
use crate::outside::World;
use crate::parts::Parts;
use crate::sources::Loader;

/// How long open requests may take when the controller ends.
const GRACE: Duration = Duration::from_secs(5);

/// How soon a directory is looked for again that cannot be watched.
const AGAIN: Duration = Duration::from_secs(1);

/// What a controller needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Directory of the objects.
    pub objects: PathBuf,
    /// Directory of the ledger.
    pub data: PathBuf,
    /// Where agents connect.
    pub agents: Endpoint,
    /// Where operators connect.
    pub operators: Endpoint,
    /// Most pages of 4,096 bytes that the ledger may have; `None`: as many as there is room for.
    pub ledger_page_limit: Option<u32>,
}

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger.
    #[error("open the ledger")]
    Ledger(#[from] LedgerError),
    /// The objects, and no earlier ones are remembered.
    #[error("load the objects of {path}:\n{problems}")]
    Objects {
        /// The directory.
        path: PathBuf,
        /// All that is wrong.
        problems: String,
    },
    /// A port.
    #[error("listen")]
    Listen(#[from] ListenError),
    /// Reflection.
    #[error("describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A port, later.
    #[error("serve {endpoint}")]
    Serve {
        /// Which.
        endpoint: Endpoint,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// One of our own tasks.
    #[error("a task of the controller ended early")]
    Task(#[from] task::JoinError),
}

/// Runs a controller until `shutdown` is done.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    Controller::start(config).await?.run(shutdown).await
}

/// A controller that listens, and answers once it runs.
#[derive(Debug)]
pub struct Controller {
    agents: Listener,
    operators: Listener,
    parts: Parts,
}

impl Controller {
    /// Opens the ledger, loads the objects, listens.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let at = (config.agents.clone(), config.operators.clone());
        let opened = task::spawn_blocking(move || Parts::open(&config, Arc::new(World)));
        let parts = opened.await??;
        let agents = Listener::bind(&at.0).await?;
        let operators = Listener::bind(&at.1).await?;
        Ok(Self { agents, operators, parts })
    }

    /// Where agents connect; with the port that the system chose where 0 was asked for.
    pub fn agents(&self) -> &Endpoint {
        self.agents.endpoint()
    }

    /// Where operators connect; with the port that the system chose where 0 was asked for.
    pub fn operators(&self) -> &Endpoint {
        self.operators.endpoint()
    }

    /// Answers until `shutdown` is done. Then streams are ended, and other requests have five
    /// seconds; what was acknowledged is durable in any case.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let parts = &self.parts;
        let (health, health_service) = tonic_health::server::health_reporter();
        let reporting = task::spawn(parts.report(health));
        let watching = task::spawn(reload(parts.loader(), parts.ending()));
        let for_agents = parts.for_agents().add_service(health_service.clone());
        let for_operators = parts.for_operators()?.add_service(health_service);
        tracing::info!(agents = %self.agents(), operators = %self.operators(), "listening");
        let serving = async {
            tokio::try_join!(
                port(for_agents, self.agents, parts.ending()),
                port(for_operators, self.operators, parts.ending()),
            )
        };
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served.map(drop),
            () = shutdown => {
                tracing::info!("ending");
                parts.end();
                // Who keeps a connection open longer is cut off.
                tokio::time::timeout(GRACE, &mut serving).await.map_or(Ok(()), |done| done.map(drop))
            }
        };
        parts.end();
        watching.await?;
        reporting.await?;
        served
    }
}

async fn port(
    router: Router,
    listener: Listener,
    mut ending: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let endpoint = listener.endpoint().clone();
    let ended = async move {
        // An error means that whoever would tell has gone, which is an end too.
        let _ = ending.wait_for(|ending| *ending).await;
    };
    router
        .serve_with_incoming_shutdown(listener, ended)
        .await
        .map_err(|source| ServeError::Serve { endpoint, source })
}

/// Loads the objects again after each change. The directory is watched afresh each time: it may
/// be another by now.
async fn reload(loader: Arc<Loader>, mut ending: watch::Receiver<bool>) {
    while !*ending.borrow() {
        let changes = loader.directory().watch();
        let again = Arc::clone(&loader);
        if task::spawn_blocking(move || again.reload()).await.is_err() {
            tracing::error!("loading the objects ended early; it is tried again");
        }
        let next = async {
            match changes {
                Ok(mut changes) => changes.next().await,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            () = next => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}
