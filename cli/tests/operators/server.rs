//! A small controller: real gRPC on a unix socket, fixed knowledge, pages of two.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bulkhead_proto::listen::Listener;
use bulkhead_proto::v1::nodes_server::{Nodes, NodesServer};
use bulkhead_proto::v1::usage_server::{Usage, UsageServer};
use bulkhead_proto::v1::virtual_clusters_server::{VirtualClusters, VirtualClustersServer};
use bulkhead_proto::v1::watch_virtual_clusters_response::Change;
use bulkhead_proto::{Endpoint, time, v1};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fixture;

const PAGE: usize = 2;

/// A virtual cluster that every question about its usage fails for.
pub(crate) const BROKEN: &str = "broken";
/// A virtual cluster whose usage nobody ever hears.
pub(crate) const SLOW: &str = "slow";

/// A controller that runs until it is dropped.
pub(crate) struct Server {
    directory: TempDir,
    questions: Questions,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Questions = Arc<Mutex<Vec<v1::QueryUsageRequest>>>;

impl Server {
    /// Starts on a socket of its own.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"))
    }

    fn start_in(directory: TempDir) -> Self {
        let questions = Questions::default();
        let endpoint = Endpoint::Unix(socket(&directory));
        let controller = Controller { questions: questions.clone() };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = Listener::bind(&endpoint).await.expect("a socket");
                ready.send(()).expect("a test that waits");
                let serving = tonic::transport::Server::builder()
                    .add_service(VirtualClustersServer::new(controller.clone()))
                    .add_service(NodesServer::new(controller.clone()))
                    .add_service(UsageServer::new(controller))
                    .serve_with_incoming(listener);
                // Not gracefully: a watch would hold it up for ever.
                tokio::select! {
                    served = serving => served.expect("a server"),
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("a server that listens");
        Self { directory, questions, stop: Some(stop), thread: Some(thread) }
    }

    /// For `--server`.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", socket(&self.directory).display())
    }

    /// Every question about usage so far.
    pub(crate) fn questions(&self) -> Vec<v1::QueryUsageRequest> {
        self.questions.lock().expect("no panic").clone()
    }

    /// Goes away, connections and all.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a server that ends");
        }
    }

    /// Comes back on the same socket.
    pub(crate) fn restart(mut self) -> Self {
        self.stop();
        let empty = tempfile::tempdir().expect("a directory");
        Self::start_in(std::mem::replace(&mut self.directory, empty))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("operators.sock")
}

#[derive(Clone)]
struct Controller {
    questions: Questions,
}

/// A part of a list, and the token of the next.
fn page<T: Clone>(all: &[T], token: &str) -> Result<(Vec<T>, String), Status> {
    let from: usize = match token {
        "" => 0,
        token => token.parse().map_err(|_| Status::invalid_argument("what token is that?"))?,
    };
    let to = all.len().min(from + PAGE);
    let next = if to < all.len() { to.to_string() } else { String::new() };
    Ok((all[from.min(to)..to].to_vec(), next))
}

fn unknown(kind: &str, name: &str, reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "bulkhead.dev", std::collections::HashMap::new());
    let message = format!("{kind} \"{name}\" is not known");
    Status::with_error_details(Code::NotFound, message, details)
}

#[tonic::async_trait]
impl VirtualClusters for Controller {
    async fn get_virtual_cluster(
        &self,
        request: Request<v1::GetVirtualClusterRequest>,
    ) -> Result<Response<v1::GetVirtualClusterResponse>, Status> {
        let name = request.into_inner().name;
        let found = fixture::virtual_clusters().into_iter().find(|cluster| cluster.name == name);
        let found =
            found.ok_or_else(|| unknown("virtual cluster", &name, "VIRTUAL_CLUSTER_UNKNOWN"))?;
        Ok(Response::new(v1::GetVirtualClusterResponse { virtual_cluster: Some(found) }))
    }

    async fn list_virtual_clusters(
        &self,
        request: Request<v1::ListVirtualClustersRequest>,
    ) -> Result<Response<v1::ListVirtualClustersResponse>, Status> {
        let token = request.into_inner().page_token;
        let (virtual_clusters, next_page_token) = page(&fixture::virtual_clusters(), &token)?;
        Ok(Response::new(v1::ListVirtualClustersResponse {
            virtual_clusters,
            next_page_token,
            problems: fixture::problems(),
            warnings: fixture::warnings(),
        }))
    }

    type WatchVirtualClustersStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchVirtualClustersResponse, Status>> + Send>>;

    async fn watch_virtual_clusters(
        &self,
        _: Request<v1::WatchVirtualClustersRequest>,
    ) -> Result<Response<Self::WatchVirtualClustersStream>, Status> {
        let event = |change: Change, virtual_cluster: Option<v1::VirtualCluster>| {
            Ok(v1::WatchVirtualClustersResponse { change: change.into(), virtual_cluster })
        };
        let all = fixture::virtual_clusters();
        let mut events: Vec<_> =
            all.iter().map(|cluster| event(Change::Initial, Some(cluster.clone()))).collect();
        events.push(event(Change::InitialComplete, None));
        events.push(event(Change::Upserted, all.first().cloned()));
        events.push(event(Change::Deleted, all.last().cloned()));
        // Then nothing more happens, and the watch goes on.
        let events = tokio_stream::iter(events).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(events)))
    }
}

#[tonic::async_trait]
impl Nodes for Controller {
    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let name = request.into_inner().name;
        let found = fixture::nodes().into_iter().find(|node| node.name == name);
        let found = found.ok_or_else(|| unknown("node", &name, "NODE_UNKNOWN"))?;
        Ok(Response::new(v1::GetNodeResponse { node: Some(found) }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let (nodes, next_page_token) = page(&fixture::nodes(), &request.into_inner().page_token)?;
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token }))
    }
}

#[tonic::async_trait]
impl Usage for Controller {
    async fn query_usage(
        &self,
        request: Request<v1::QueryUsageRequest>,
    ) -> Result<Response<v1::QueryUsageResponse>, Status> {
        let question = request.into_inner();
        self.questions.lock().expect("no panic").push(question.clone());
        if question.virtual_clusters.iter().any(|name| name == SLOW) {
            std::future::pending::<()>().await;
        }
        if question.virtual_clusters.iter().any(|name| name == BROKEN) {
            let mut details = ErrorDetails::new();
            details.set_error_info(
                "RANGE_TOO_LONG",
                "bulkhead.dev",
                std::collections::HashMap::new(),
            );
            details
                .add_bad_request_violation("step", "more than 1,000,000 rows; use a longer step");
            let message = "the answer would be too long";
            return Err(Status::with_error_details(Code::InvalidArgument, message, details));
        }
        let (rows, next_page_token) = page(&rows(&question)?, &question.page_token)?;
        Ok(Response::new(v1::QueryUsageResponse { rows, next_page_token }))
    }
}

/// Rows as the question wants them; only worker-1 ever reported usage.
fn rows(question: &v1::QueryUsageRequest) -> Result<Vec<v1::UsageRow>, Status> {
    use v1::query_usage_request::GroupBy;
    let moment = |at: Option<prost_types::Timestamp>| {
        let at = at.ok_or_else(|| Status::invalid_argument("the range has no end"))?;
        time::unix_nanoseconds(&at).ok_or_else(|| Status::invalid_argument("no moment"))
    };
    let (start, end) = (moment(question.start)?, moment(question.end)?);
    let step = question.step.as_ref().and_then(time::nanoseconds).unwrap_or(end - start);
    let by = |group: GroupBy| question.group_by.contains(&group.into());
    let wanted = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|wanted| wanted == name)
    };
    let mut rows = Vec::new();
    let mut from = start;
    while from < end && wanted(&question.nodes, "worker-1") {
        let to = end.min(from + step);
        for name in ["team-a", "team-b"] {
            if wanted(&question.virtual_clusters, name) {
                let mut row = fixture::usage_row(from, to, name, "worker-1");
                if !by(GroupBy::VirtualCluster) {
                    row.virtual_cluster.clear();
                }
                if !by(GroupBy::Node) {
                    row.node.clear();
                }
                rows.push(row);
            }
        }
        from = to;
    }
    Ok(rows)
}
