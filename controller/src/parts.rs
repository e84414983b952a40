//! Everything that a controller is but its ports and what watches its files.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::v1;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

use crate::controller::{Config, ServeError};
use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::services::nodes::NodesService;
use crate::services::usage::UsageService;
use crate::services::virtual_clusters::VirtualClustersService;
use crate::sources::files::Directory;
use crate::sources::{LoadError, Loader};
use crate::state::State;
use crate::status::Nodes;
use crate::sync::Sync;

/// How often a peer that says nothing is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The service name by which health tells whether the objects are valid as they are written.
const OBJECTS: &str = "bulkhead.v1.Objects";

/// The ledger, the objects, and the services that answer from them.
#[derive(Debug)]
pub struct Parts {
    outside: Arc<dyn Outside>,
    ledger: Arc<Ledger>,
    state: Arc<State>,
    nodes: Arc<Nodes>,
    loader: Arc<Loader>,
    end: watch::Sender<bool>,
}

impl Parts {
    /// Opens the ledger and loads the objects. Blocks.
    pub fn open(config: &Config, outside: Arc<dyn Outside>) -> Result<Self, ServeError> {
        let ledger = Arc::new(Ledger::open(&config.data, config.ledger_page_limit)?);
        let nodes = Arc::new(Nodes::new(ledger.nodes()?));
        let state = Arc::new(State::new(Arc::clone(&ledger), nodes.addresses()));
        let directory = Directory::new(config.objects.clone());
        let loader = Loader::new(directory, Arc::clone(&ledger), Arc::clone(&state));
        loader.start().map_err(|error| objects_error(&loader, &error))?;
        let end = watch::Sender::new(false);
        Ok(Self { outside, ledger, state, nodes, loader: Arc::new(loader), end })
    }

    /// Loads the objects again if they changed. What is wrong is logged and shown to operators,
    /// and nothing else changes. Blocks.
    pub fn reload(&self) {
        self.loader.reload();
    }

    /// What agents talk with.
    pub fn for_agents(&self) -> Router {
        let sync = Sync {
            ledger: Arc::clone(&self.ledger),
            state: Arc::clone(&self.state),
            nodes: Arc::clone(&self.nodes),
            outside: Arc::clone(&self.outside),
            ending: self.ending(),
        };
        server().add_service(v1::agents_server::AgentsServer::new(sync))
    }

    /// What operators talk with.
    pub fn for_operators(&self) -> Result<Router, ServeError> {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(bulkhead_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let clusters = VirtualClustersService {
            state: Arc::clone(&self.state),
            nodes: Arc::clone(&self.nodes),
            ending: self.ending(),
        };
        let nodes = NodesService { nodes: Arc::clone(&self.nodes) };
        let usage = UsageService::new(Arc::clone(&self.ledger), Arc::clone(&self.outside));
        Ok(server()
            .add_service(v1::virtual_clusters_server::VirtualClustersServer::new(clusters))
            .add_service(v1::nodes_server::NodesServer::new(nodes))
            .add_service(v1::usage_server::UsageServer::new(usage))
            .add_service(reflection))
    }

    /// Ends every stream.
    pub fn end(&self) {
        self.end.send_replace(true);
    }

    /// Becomes true with [`Parts::end`].
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.end.subscribe()
    }

    pub(crate) fn loader(&self) -> Arc<Loader> {
        Arc::clone(&self.loader)
    }

    /// Tells through the health service whether the objects are valid as they are written.
    pub(crate) fn report(&self, health: HealthReporter) -> impl Future<Output = ()> + use<> {
        report(health, Arc::clone(&self.state), self.ending())
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
