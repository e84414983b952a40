//! Everything that a controller is but its ports and what watches its files.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_core::Snapshot;
use bulkhead_proto::v1;
use tokio::sync::watch;
use tonic::service::LayerExt as _;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

use crate::controller::{Config, ServeError, Source};
use crate::ledger::{Ledger, LedgerError};
use crate::outside::Outside;
use crate::services::nodes::NodesService;
use crate::services::usage::UsageService;
use crate::services::virtual_clusters::VirtualClustersService;
use crate::sources::files::Directory;
use crate::sources::{LoadError, Loader};
use crate::state::State;
use crate::state::cluster::ClusterChange;
use crate::state::view::View;
use crate::status::Nodes;
use crate::sync::Sync;
use crate::trust::{Guard, Judge, Whom};

/// How often a peer that says nothing is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Longest message of an agent, bytes.
const AGENTS_MESSAGE: usize = 4 << 20;
/// Longest question of an operator, bytes.
const QUESTION: usize = 256 << 10;
/// Longest headers of a request, bytes; a token has 16 KiB at most.
const HEADERS: u32 = 24 << 10;
/// Requests of one connection at one time.
const STREAMS: u32 = 64;
/// How long a request may take to be asked, and answered or begun to be answered.
const ANSWER: Duration = Duration::from_mins(1);

/// The service name by which health tells whether the objects are valid as they are written.
const OBJECTS: &str = "bulkhead.v1.Objects";

/// The ledger, the objects, and the services that answer from them.
#[derive(Debug)]
pub struct Parts {
    outside: Arc<dyn Outside>,
    ledger: Arc<Ledger>,
    state: Arc<State>,
    nodes: Arc<Nodes>,
    /// Where the objects are files.
    loader: Option<Arc<Loader>>,
    end: watch::Sender<bool>,
    /// Who must say who they are.
    judges: Judges,
}

/// Who decides whose a token is, on each port; `None`: everybody is trusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judges {
    pub(crate) agents: Option<Arc<Judge>>,
    pub(crate) operators: Option<Arc<Judge>>,
}

impl Parts {
    /// Opens the ledger and loads the objects. Blocks.
    pub fn open(config: &Config, outside: Arc<dyn Outside>) -> Result<Self, ServeError> {
        let ledger = Arc::new(Ledger::open(&config.data, config.ledger_page_limit)?);
        let nodes = Arc::new(Nodes::new(ledger.nodes()?));
        let instance = outside.random();
        let state = Arc::new(State::new(Arc::clone(&ledger), nodes.addresses(), instance));
        let loader = match &config.objects {
            Source::Files(directory) => {
                let directory = Directory::new(directory.clone());
                let loader = Loader::new(directory, Arc::clone(&ledger), Arc::clone(&state));
                loader.start().map_err(|error| objects_error(&loader, &error))?;
                Some(Arc::new(loader))
            }
            Source::Kubernetes(_) => None,
        };
        let end = watch::Sender::new(false);
        Ok(Self { outside, ledger, state, nodes, loader, end, judges: Judges::default() })
    }

    /// Asks those for tokens who come to ports that have a judge.
    pub(crate) fn judged_by(self, judges: Judges) -> Self {
        Self { judges, ..self }
    }

    /// Loads the objects again if they changed. What is wrong is logged and shown to operators,
    /// and nothing else changes. Blocks.
    pub fn reload(&self) {
        self.loader.iter().for_each(|loader| loader.reload());
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
        let guard = Guard::new(Whom::Agents, self.judges.agents.clone());
        let sync = v1::agents_server::AgentsServer::new(sync);
        let sync = sync.max_decoding_message_size(AGENTS_MESSAGE);
        server(self.judges.agents.is_some()).add_service(guard.named_layer(sync))
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
        let clusters = v1::virtual_clusters_server::VirtualClustersServer::new(clusters);
        let nodes = v1::nodes_server::NodesServer::new(nodes);
        let usage = v1::usage_server::UsageServer::new(usage);
        let guard = Guard::new(Whom::Operators, self.judges.operators.clone());
        Ok(server(self.judges.operators.is_some())
            .add_service(guard.named_layer(clusters.max_decoding_message_size(QUESTION)))
            .add_service(guard.named_layer(nodes.max_decoding_message_size(QUESTION)))
            .add_service(guard.named_layer(usage.max_decoding_message_size(QUESTION)))
            .add_service(guard.named_layer(reflection)))
    }

    /// Ends every stream.
    pub fn end(&self) {
        self.end.send_replace(true);
    }

    /// Becomes true with [`Parts::end`].
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.end.subscribe()
    }

    /// Takes in what changed in the cluster, as what watches it does. Blocks.
    pub fn change_cluster(&self, change: ClusterChange) -> Result<(), LedgerError> {
        self.state.change_cluster(change)
    }

    /// What a node is told now, as the newest generation.
    pub fn told(&self, node: &str) -> Snapshot {
        let world = self.state.current();
        View::new(&world, node).snapshot(world.generation)
    }

    pub(crate) fn loader(&self) -> Option<Arc<Loader>> {
        self.loader.clone()
    }

    /// What those work on who watch the cluster.
    pub(crate) fn of_cluster(&self) -> (Arc<Ledger>, Arc<State>, Arc<Nodes>) {
        (Arc::clone(&self.ledger), Arc::clone(&self.state), Arc::clone(&self.nodes))
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

/// `judged`: others than this machine's own can reach it.
fn server(judged: bool) -> Server {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS);
    if judged { server.timeout(ANSWER) } else { server }
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
