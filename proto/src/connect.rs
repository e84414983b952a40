//! Client channels to an [`Endpoint`].

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, version};
use tonic::transport::Channel;

use crate::endpoint::{Endpoint, TlsAddress};

/// How long a connection may take to come about.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of certificates that are read.
const MAX_PEM: usize = 1 << 20;

/// Who may say who a server is: certificates in PEM. They are looked at again for each
/// connection, so that a file may be replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorities {
    /// In a file.
    File(PathBuf),
    /// As they are.
    Pem(Arc<[u8]>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("connect to {endpoint}; {}", self.mend())]
pub struct ConnectError {
    /// Whom.
    pub endpoint: Endpoint,
    /// Why.
    pub source: tonic::transport::Error,
}

impl ConnectError {
    /// What would mend it.
    pub fn mend(&self) -> &'static str {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&self.source);
        while let Some(error) = cause {
            if let Some(open) = error.downcast_ref::<OpenError>() {
                return open.mend();
            }
            cause = error.source();
        }
        "is the program that serves it running?"
    }
}

/// Why there is no connection over TLS.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("no file of certificates is named that could tell who {host} is")]
    NoAuthorities { host: String },
    #[error("read {file}")]
    Read { file: String, source: io::Error },
    #[error("{file} holds no certificate in PEM that can be used: {problem}")]
    Unusable { file: String, problem: String },
    #[error("reach {address}")]
    Reach { address: String, source: io::Error },
    #[error("{address} is not who it should be")]
    Certificate { address: String, source: rustls::Error },
    #[error("speak TLS with {address}")]
    Handshake { address: String, source: io::Error },
}

impl OpenError {
    fn mend(&self) -> &'static str {
        match self {
            Self::NoAuthorities { .. } => "name the file of its CA (--ca-file)",
            Self::Read { .. } | Self::Unusable { .. } => "the file of the CA must be readable PEM",
            Self::Reach { .. } => "is the program that serves it running, and may it be reached?",
            Self::Certificate { .. } => {
                "is the address one of its certificate's names, and the file of the CA the right one?"
            }
            Self::Handshake { .. } => "does it speak TLS there?",
        }
    }
}

/// A channel that is connected; it connects again by itself when the connection breaks. For an
/// endpoint of TLS see [`connect_with`].
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, ConnectError> {
    connect_with(endpoint, None).await
}

/// The same; over TLS where the endpoint says so, with a server that `authorities` vouch for under
/// the endpoint's host.
pub async fn connect_with(
    endpoint: &Endpoint,
    authorities: Option<&Authorities>,
) -> Result<Channel, ConnectError> {
    match endpoint {
        Endpoint::Unix(path) => {
            let path = path.clone();
            connect_over(endpoint, move || UnixStream::connect(path.clone())).await
        }
        Endpoint::Loopback(_) => {
            let refused = |source| ConnectError { endpoint: endpoint.clone(), source };
            transport(endpoint).map_err(refused)?.connect().await.map_err(refused)
        }
        Endpoint::Tls(address) => {
            let to = address.clone();
            let open = move || {
                let to = to.clone();
                async move {
                    let stream = TcpStream::connect((to.host(), to.port())).await?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                }
            };
            connect_tls_over(address, authorities, open).await
        }
    }
}

/// The same over byte streams that `open` makes, for who brings a network of its own: TLS is
/// spoken over them, with the server that `address` names.
pub async fn connect_tls_over<S, F>(
    address: &TlsAddress,
    authorities: Option<&Authorities>,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Channel, ConnectError>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let endpoint = Endpoint::Tls(address.clone());
    let (address, authorities) = (address.clone(), authorities.cloned());
    connect_by(&endpoint, move || {
        let (address, authorities, opening) = (address.clone(), authorities.clone(), open());
        async move {
            // Before anything is sent: a file that cannot be read needs no connection.
            let config = client_config(&address, authorities.as_ref()).await?;
            let stream = opening.await.map_err(|source| {
                let address = address.to_string();
                OpenError::Reach { address, source }
            })?;
            handshake(&address, config, stream).await
        }
    })
    .await
}

/// The same over byte streams that `open` makes, without TLS. `endpoint` is what it is called.
pub async fn connect_over<S, F>(
    endpoint: &Endpoint,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Channel, ConnectError>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connect_by(endpoint, open).await
}

async fn connect_by<S, F, E>(
    endpoint: &Endpoint,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Channel, ConnectError>
where
    F: Future<Output = Result<S, E>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Error + Send + Sync + 'static,
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
    // TLS is spoken below tonic, which must not want to speak it itself.
    let uri = match endpoint {
        Endpoint::Unix(_) => "http://localhost".to_owned(),
        Endpoint::Loopback(address) => format!("http://{address}"),
        Endpoint::Tls(address) => format!("http://{address}"),
    };
    let mut transport = tonic::transport::Endpoint::from_shared(uri)?;
    if endpoint.is_tls()
        && let Ok(origin) = endpoint.to_string().parse()
    {
        transport = transport.origin(origin);
    }
    Ok(transport
        .connect_timeout(TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

async fn client_config(
    address: &TlsAddress,
    authorities: Option<&Authorities>,
) -> Result<Arc<ClientConfig>, OpenError> {
    let (file, pem) = match authorities {
        None => return Err(OpenError::NoAuthorities { host: address.host().to_owned() }),
        Some(Authorities::Pem(pem)) => ("the CA's certificate".to_owned(), Arc::clone(pem)),
        Some(Authorities::File(path)) => {
            let file = path.display().to_string();
            match tokio::fs::read(path).await {
                Ok(bytes) => (file, bytes.into()),
                Err(source) => return Err(OpenError::Read { file, source }),
            }
        }
    };
    let roots = roots(&pem).map_err(|problem| OpenError::Unusable { file, problem })?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|source| OpenError::Certificate { address: address.to_string(), source })?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Every certificate counts, and one that cannot be used is an error: half a bundle would be
/// missed only when the other half is due.
fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    if pem.len() > MAX_PEM {
        return Err(format!("it is longer than {MAX_PEM} bytes"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is none in it".to_owned()) } else { Ok(roots) }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    address: &TlsAddress,
    config: Arc<ClientConfig>,
    stream: S,
) -> Result<TlsStream<S>, OpenError> {
    let told = || address.to_string();
    let name = ServerName::try_from(address.host().to_owned()).map_err(|_| {
        let source = io::ErrorKind::InvalidInput.into();
        OpenError::Handshake { address: told(), source }
    })?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|source| {
        let known = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match known {
            Some(certificate @ rustls::Error::InvalidCertificate(_)) => {
                OpenError::Certificate { address: told(), source: certificate.clone() }
            }
            _ => OpenError::Handshake { address: told(), source },
        }
    })
}
