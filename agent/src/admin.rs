//! What the agent says of its own node, on a unix socket in its run directory.

use std::path::Path;
use std::sync::mpsc::Sender;

use bulkhead_nri::State;
use bulkhead_proto::Endpoint;
use bulkhead_proto::listen::{ListenError, Listener};
use bulkhead_proto::v1;
use bulkhead_proto::v1::node_agent_server::{NodeAgent, NodeAgentServer};
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};

use crate::cycle::PodsReport;
use crate::owner::Event;
use crate::status;

/// Name of the socket in the run directory.
pub const SOCKET: &str = "agent.sock";

/// The service and what it answers from.
#[derive(Debug)]
pub struct Admin {
    /// This node's name.
    pub node: String,
    /// What the node is.
    pub facts: watch::Receiver<v1::NodeFacts>,
    /// What the node stands at.
    pub status: watch::Receiver<v1::NodeStatus>,
    /// Whether the controller is there.
    pub connected: watch::Receiver<bool>,
    /// How the node does by its pods, in Kubernetes.
    pub pods: Option<PodsStatus>,
    /// To the thread that owns the kernel.
    pub owner: Sender<Event>,
}

/// How the node does by its pods.
#[derive(Debug)]
pub struct PodsStatus {
    /// What stands.
    pub report: watch::Receiver<PodsReport>,
    /// How it is with the runtime.
    pub runtime: watch::Receiver<State>,
}

/// Where the socket of the agent with that run directory is.
pub fn endpoint(run_dir: &Path) -> Endpoint {
    Endpoint::Unix(run_dir.join(SOCKET))
}

/// Serves until `stop` completes.
pub async fn serve(
    admin: Admin,
    run_dir: &Path,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = Listener::bind(&endpoint(run_dir)).await?;
    tonic::transport::Server::builder()
        .add_service(NodeAgentServer::new(admin))
        .serve_with_incoming_shutdown(listener, stop)
        .await?;
    Ok(())
}

/// Why the socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It could not be opened.
    #[error("the agent's socket cannot be opened")]
    Listen(#[from] ListenError),
    /// Serving ended.
    #[error("the agent's socket cannot be served")]
    Serve(#[from] tonic::transport::Error),
}

impl PodsStatus {
    fn message(&self) -> v1::NodePods {
        let report = self.report.borrow();
        let late = status::late_pods(&self.runtime.borrow(), &report);
        let (state, runtime) = match &*self.runtime.borrow() {
            State::Connected { runtime, .. } => {
                (String::new(), format!("{} {}", runtime.name, runtime.version))
            }
            other => (other.to_string(), String::new()),
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let registered = report.registered.iter().map(|(name, pods)| v1::RegisteredPods {
            virtual_cluster: name.to_string(),
            pods: count(*pods),
            ended_uncounted: report.ended_unseen.get(name).copied().unwrap_or(0),
        });
        v1::NodePods {
            runtime,
            runtime_away: state,
            registered: registered.collect(),
            exempt: count(report.exempt),
            of_nobody: count(report.of_nobody),
            unknown: count(report.unknown_count),
            late,
        }
    }
}

#[tonic::async_trait]
impl NodeAgent for Admin {
    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse {
            node: self.node.clone(),
            facts: Some(self.facts.borrow().clone()),
            status: Some(self.status.borrow().clone()),
            controller_connected: *self.connected.borrow(),
            pods: self.pods.as_ref().map(PodsStatus::message),
        }))
    }

    async fn get_plan(
        &self,
        _request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        let gone = || Status::unavailable("the agent is ending; ask again when it is back");
        self.owner.send(Event::Plan(reply)).map_err(|_| gone())?;
        let plan = answer.await.map_err(|_| gone())?;
        let steps = plan.map_err(Status::failed_precondition)?;
        Ok(Response::new(v1::GetPlanResponse { steps }))
    }
}
