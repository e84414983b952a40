//! Client channels to an [`Endpoint`].

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::Channel;

use crate::endpoint::Endpoint;

/// How long a connection may take to come about. Peers are on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("connect to {endpoint}; is the program that serves it running?")]
pub struct ConnectError {
    /// Whom.
    pub endpoint: Endpoint,
    /// Why.
    pub source: tonic::transport::Error,
}

/// A channel that is connected; it connects again by itself when the connection breaks.
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, ConnectError> {
    if let Some(path) = endpoint.path() {
        let path = path.to_owned();
        return connect_over(endpoint, move || UnixStream::connect(path.clone())).await;
    }
    let refused = |source| ConnectError { endpoint: endpoint.clone(), source };
    transport(endpoint).map_err(refused)?.connect().await.map_err(refused)
}

/// The same over byte streams that `open` makes, for who brings a network of its own. `endpoint`
/// is what it is called.
pub async fn connect_over<S, F>(
    endpoint: &Endpoint,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Channel, ConnectError>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let refused = |source| ConnectError { endpoint: endpoint.clone(), source };
    let open = tower::service_fn(move |_| {
        let opening = open();
        async move { opening.await.map(TokioIo::new) }
    });
    transport(endpoint).map_err(refused)?.connect_with_connector(open).await.map_err(refused)
}

/// What HTTP/2 needs to know; a unix socket has no authority, so it gets a fixed one.
fn transport(endpoint: &Endpoint) -> Result<tonic::transport::Endpoint, tonic::transport::Error> {
    let uri = match endpoint {
        Endpoint::Unix(_) => "http://localhost".to_owned(),
        Endpoint::Loopback(address) => format!("http://{address}"),
    };
    Ok(tonic::transport::Endpoint::from_shared(uri)?
        .connect_timeout(TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
