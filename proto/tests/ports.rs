//! Listening and connecting over a unix socket and loopback, with a real service between.

#![expect(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bulkhead_proto::connect::connect;
use bulkhead_proto::listen::{ListenError, Listener};
use bulkhead_proto::v1::node_agent_client::NodeAgentClient;
use bulkhead_proto::v1::node_agent_server::{NodeAgent, NodeAgentServer};
use bulkhead_proto::{Endpoint, v1};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

struct Agent;

#[tonic::async_trait]
impl NodeAgent for Agent {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse { node: "here".to_owned(), ..Default::default() }))
    }

    async fn get_plan(
        &self,
        _: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        Ok(Response::new(v1::GetPlanResponse { steps: vec!["one".to_owned()] }))
    }
}

fn serve(listener: Listener) -> JoinHandle<()> {
    let server = tonic::transport::Server::builder().add_service(NodeAgentServer::new(Agent));
    tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() })
}

async fn ask(endpoint: &Endpoint) -> String {
    let mut client = NodeAgentClient::new(connect(endpoint).await.unwrap());
    client.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner().node
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_private_answers_and_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/agent.sock");
    let endpoint = Endpoint::Unix(path.clone());
    let listener = Listener::bind(&endpoint).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let server = serve(listener);
    assert_eq!(ask(&endpoint).await, "here");
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    assert!(!path.exists());
}

#[tokio::test]
async fn loopback_answers_on_the_port_that_the_system_chose() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = Listener::bind(&Endpoint::parse(address).unwrap()).await.unwrap();
        let endpoint = listener.endpoint().clone();
        let taken = Listener::bind(&endpoint).await;
        assert!(matches!(taken, Err(ListenError::Taken { .. })), "{taken:?}");
        let server = serve(listener);
        assert_eq!(ask(&endpoint).await, "here");
        server.abort();
    }
}

#[tokio::test]
async fn a_dead_program_s_socket_is_replaced_a_living_one_s_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let endpoint = Endpoint::Unix(path.clone());
    // std's listener leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = serve(Listener::bind(&endpoint).await.unwrap());
    let second = Listener::bind(&endpoint).await;
    assert!(matches!(second, Err(ListenError::Taken { .. })), "{second:?}");
    assert_eq!(ask(&endpoint).await, "here");
    server.abort();
}

#[tokio::test]
async fn a_file_in_the_way_is_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    fs::write(&path, "mine").unwrap();
    let refused = Listener::bind(&Endpoint::Unix(path.clone())).await.unwrap_err();
    assert!(refused.to_string().contains("notes.txt"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Listener::bind(&Endpoint::Unix(dir.path().join("a.sock"))).await;
    assert!(matches!(refused, Err(ListenError::OpenDirectory { .. })), "{refused:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(dir.path().join("absent.sock"));
    let error = connect(&endpoint).await.unwrap_err();
    assert!(error.to_string().contains("absent.sock"), "{error}");
}
