//! All parts put together.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::listen::{ListenError, Listener};
use bulkhead_proto::{Endpoint, v1};
use tokio::sync::watch;
use tokio::task;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

use crate::ledger::{Ledger, LedgerError};
use crate::services::nodes::NodesService;
use crate::services::usage::UsageService;
use crate::services::virtual_clusters::VirtualClustersService;
use crate::sources::files::Directory;
use crate::sources::{LoadError, Loader};
use crate::state::State;
use crate::status::Nodes;
use crate::sync::Sync;

/// How long open requests may take when the controller ends.
const GRACE: Duration = Duration::from_secs(5);

/// How often a peer that says nothing is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How soon a directory is looked for again that cannot be watched.
const AGAIN: Duration = Duration::from_secs(1);

/// The service name by which health tells whether the objects are valid as they are written.
const OBJECTS: &str = "bulkhead.v1.Objects";

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
    ledger: Arc<Ledger>,
    state: Arc<State>,
    nodes: Arc<Nodes>,
    loader: Arc<Loader>,
}

impl Controller {
    /// Opens the ledger, loads the objects, listens.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let (objects, data) = (config.objects, config.data);
        let prepared = task::spawn_blocking(move || {
            let ledger = Arc::new(Ledger::open(&data, config.ledger_page_limit)?);
            let nodes = Arc::new(Nodes::new(ledger.nodes()?));
            let state = Arc::new(State::new(Arc::clone(&ledger), nodes.addresses()));
            let directory = Directory::new(objects);
            let loader = Loader::new(directory, Arc::clone(&ledger), Arc::clone(&state));
            loader.start().map_err(|error| objects_error(&loader, &error))?;
            Ok::<_, ServeError>((ledger, nodes, state, Arc::new(loader)))
        });
        let (ledger, nodes, state, loader) = prepared.await??;
        let agents = Listener::bind(&config.agents).await?;
        let operators = Listener::bind(&config.operators).await?;
        Ok(Self { agents, operators, ledger, state, nodes, loader })
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
        let (end, ending) = watch::channel(false);
        let (health, health_service) = tonic_health::server::health_reporter();
        let reporting = task::spawn(report(health, Arc::clone(&self.state), ending.clone()));
        let watching = task::spawn(reload(Arc::clone(&self.loader), ending.clone()));
        let sync = Sync {
            ledger: Arc::clone(&self.ledger),
            state: Arc::clone(&self.state),
            nodes: Arc::clone(&self.nodes),
            ending: ending.clone(),
        };
        let for_agents = server()
            .add_service(v1::agents_server::AgentsServer::new(sync))
            .add_service(health_service.clone());
        let for_operators = self.operator_services(ending.clone())?.add_service(health_service);
        tracing::info!(agents = %self.agents(), operators = %self.operators(), "listening");
        let ports = async {
            tokio::try_join!(
                port(for_agents, self.agents, ending.clone()),
                port(for_operators, self.operators, ending.clone()),
            )
        };
        tokio::pin!(ports);
        let served = tokio::select! {
            served = &mut ports => served.map(drop),
            () = shutdown => {
                tracing::info!("ending");
                // Nobody is left to hear it where everything has ended already.
                let _ = end.send(true);
                // Who keeps a connection open longer is cut off.
                tokio::time::timeout(GRACE, &mut ports).await.map_or(Ok(()), |done| done.map(drop))
            }
        };
        let _ = end.send(true);
        watching.await?;
        reporting.await?;
        served
    }

    fn operator_services(&self, ending: watch::Receiver<bool>) -> Result<Router, ServeError> {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(bulkhead_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let clusters = VirtualClustersService {
            state: Arc::clone(&self.state),
            nodes: Arc::clone(&self.nodes),
            ending,
        };
        let nodes = NodesService { nodes: Arc::clone(&self.nodes) };
        let usage = UsageService::new(Arc::clone(&self.ledger));
        Ok(server()
            .add_service(v1::virtual_clusters_server::VirtualClustersServer::new(clusters))
            .add_service(v1::nodes_server::NodesServer::new(nodes))
            .add_service(v1::usage_server::UsageServer::new(usage))
            .add_service(reflection))
    }
}

fn objects_error(loader: &Loader, error: &LoadError) -> ServeError {
    ServeError::Objects {
        path: loader.directory().path().to_owned(),
        problems: crate::reason::chain(error),
    }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
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

/// Tells through the health service whether the objects are valid as they are written.
async fn report(health: HealthReporter, state: Arc<State>, mut ending: watch::Receiver<bool>) {
    let mut findings = state.findings();
    loop {
        let valid = findings.borrow_and_update().problems.is_empty();
        let status = if valid {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        health.set_service_status(OBJECTS, status).await;
        tokio::select! {
            changed = findings.changed() => if changed.is_err() { return },
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}
