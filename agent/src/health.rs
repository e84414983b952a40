//! Answers to the kubelet's probes over HTTP: a probe that starts a command costs a node more
//! processor time than the agent itself.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_proto::v1::virtual_cluster_node_status::State;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no connection is accepted after that has failed: of file descriptors that are used
/// up, some may be free again by then.
const PAUSE: Duration = Duration::from_millis(100);

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error(
    "listen on {address} for probes; is the port another program's? Give --health-listen another, or leave it out"
)]
pub struct HealthError {
    address: SocketAddr,
    source: io::Error,
}

/// Whether everything that the controller said stands here: a generation is applied, and no
/// virtual cluster is pending or refused.
pub fn is_enforcing(status: &v1::NodeStatus) -> bool {
    let stands = |one: &v1::VirtualClusterNodeStatus| {
        matches!(State::try_from(one.state), Ok(State::Applied | State::Degraded))
    };
    status.applied_generation != 0 && status.virtual_clusters.iter().all(stands)
}

/// Serves `GET /healthz` (the agent runs) and `GET /readyz` (it enforces; else 503) until `stop`
/// completes.
///
/// # Errors
///
/// When the port cannot be opened.
pub async fn serve(
    address: SocketAddr,
    status: watch::Receiver<v1::NodeStatus>,
    stop: impl Future<Output = ()>,
) -> Result<(), HealthError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| HealthError { address, source })?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, status.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a probe is not answered");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// One connection, one answer.
async fn answer(stream: TcpStream, status: watch::Receiver<v1::NodeStatus>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (code, text) = told(request.method(), request.uri().path(), &status.borrow());
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = code;
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let served = http.serve_connection(TokioIo::new(stream), service);
    // A client that hangs up, or makes no sense, is no business of ours.
    if let Ok(Err(error)) = tokio::time::timeout(2 * PATIENCE, served).await {
        tracing::debug!(%error, "a probe came to nothing");
    }
}

fn told(method: &Method, path: &str, status: &v1::NodeStatus) -> (StatusCode, &'static str) {
    if *method != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    match path {
        "/healthz" => (StatusCode::OK, "running\n"),
        "/readyz" if is_enforcing(status) => (StatusCode::OK, "enforcing\n"),
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not everything stands that the controller said: ask `bulkhead-agent status`\n",
        ),
        _ => (StatusCode::NOT_FOUND, "/healthz or /readyz\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn status(generation: u64, state: State) -> v1::NodeStatus {
        let one = v1::VirtualClusterNodeStatus { state: state.into(), ..Default::default() };
        v1::NodeStatus {
            applied_generation: generation,
            virtual_clusters: vec![one],
            ..Default::default()
        }
    }

    #[test]
    fn it_enforces_when_all_that_was_said_stands() {
        assert!(!is_enforcing(&status(0, State::Applied)), "nothing was said yet");
        assert!(is_enforcing(&status(1, State::Applied)));
        assert!(is_enforcing(&status(1, State::Degraded)), "network stands without limits");
        assert!(!is_enforcing(&status(1, State::Pending)));
        assert!(!is_enforcing(&status(1, State::Refused)));
    }

    async fn asked(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("ask");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("an answer");
        said.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn probes_are_answered_by_what_stands() {
        // A port that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let (tell, stands) = watch::channel(status(0, State::Pending));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(address, stands, async move { drop(ended.await) }));
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let get = async |path: &str| {
            asked(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
        };
        assert_eq!(get("/healthz").await, "HTTP/1.1 200 OK");
        assert_eq!(get("/readyz").await, "HTTP/1.1 503 Service Unavailable");
        tell.send_replace(status(7, State::Applied));
        assert_eq!(get("/readyz").await, "HTTP/1.1 200 OK");
        assert_eq!(get("/metrics").await, "HTTP/1.1 404 Not Found");
        let posted =
            asked(address, "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(posted.await, "HTTP/1.1 405 Method Not Allowed");
        let error = serve(address, tell.subscribe(), async {}).await.expect_err("it is taken");
        assert!(error.to_string().contains("--health-listen"), "{error}");
        end.send(()).expect("it listens for its end");
        server.await.expect("no panic").expect("it ends well");
    }
}
