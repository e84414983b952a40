//! Listening on an [`Endpoint`].

mod tls;

use std::fmt::Display;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo, UdsConnectInfo};

pub use tls::{Limits, Proof, Tls, TlsConnection, TlsPeer};

use crate::endpoint::{Endpoint, TlsAddress};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// How long nothing is accepted after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an endpoint cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program answers there.
    #[error("{endpoint}: another program answers there; stop it, or listen elsewhere")]
    Taken {
        /// Where.
        endpoint: Endpoint,
    },
    /// A file is in the way.
    #[error("{path} is in the way: it is no socket; move it, or listen elsewhere")]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// Others could put another socket in our socket's place.
    #[error("{path}: others can write to this directory; `chmod 0700` it, or listen elsewhere")]
    OpenDirectory {
        /// The socket's directory.
        path: PathBuf,
    },
    /// A port over TLS needs to know how.
    #[error("{endpoint}: there is no certificate to listen with; name its files")]
    NoCertificate {
        /// Where.
        endpoint: Endpoint,
    },
    /// A name may stand for any address.
    #[error("{endpoint}: listen on an address, as in https://0.0.0.0:PORT")]
    Name {
        /// Where.
        endpoint: Endpoint,
    },
    /// The system refused.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// A port that listens; a stream of connections for a tonic server. A unix socket's file goes
/// away with it.
#[derive(Debug)]
pub struct Listener {
    port: Port,
    endpoint: Endpoint,
    /// After an error of accept: not before this.
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Port {
    Unix { listener: UnixListener, _file: SocketFile },
    Tcp(TcpListener),
    Tls(Box<TlsPort>),
}

#[derive(Debug)]
struct TlsPort {
    listener: TcpListener,
    tls: Tls,
    places: tls::Places,
    /// Connections that have not yet shown that they speak HTTP/2 over TLS.
    opening: JoinSet<Option<TlsConnection>>,
}

impl Listener {
    /// Listens where no TLS is spoken. A missing directory of a unix socket is made (0700); the
    /// socket is 0600 from its first moment; one that is left over from a dead program is
    /// replaced.
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, ListenError> {
        Self::bind_with(endpoint, None).await
    }

    /// Listens; `tls`: how, where the endpoint is one of TLS.
    pub async fn bind_with(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Self, ListenError> {
        match endpoint {
            Endpoint::Unix(path) => {
                prepare_directory(path)?;
                remove_stale(path, endpoint).await?;
                let port = bind_unix(path)?;
                Ok(Self { port, endpoint: endpoint.clone(), pause: None })
            }
            Endpoint::Loopback(address) => {
                let (listener, address) = bind_tcp(*address, endpoint).await?;
                let endpoint = Endpoint::Loopback(address);
                Ok(Self { port: Port::Tcp(listener), endpoint, pause: None })
            }
            Endpoint::Tls(address) => {
                let endpoint = || endpoint.clone();
                let tls = tls.ok_or_else(|| ListenError::NoCertificate { endpoint: endpoint() })?;
                let wanted = address.socket_address();
                let wanted = wanted.ok_or_else(|| ListenError::Name { endpoint: endpoint() })?;
                let (listener, found) = bind_tcp(wanted, &endpoint()).await?;
                let told = TlsAddress::new(address.host(), found.port());
                let (places, opening) = (tls::Places::default(), JoinSet::new());
                let port = TlsPort { listener, tls: tls.clone(), places, opening };
                Ok(Self {
                    port: Port::Tls(Box::new(port)),
                    endpoint: told.map_or_else(endpoint, Endpoint::Tls),
                    pause: None,
                })
            }
        }
    }

    /// Where it listens; with the port that the system chose where 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// An error of accept (no file descriptor is free, say) passes by and ends nothing; but it may
/// come again at once, so there is a pause after it.
impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let accepted = std::task::ready!(match &mut self.port {
            Port::Unix { listener, .. } => {
                listener.poll_accept(context).map_ok(|(stream, _)| Connection::Unix(stream))
            }
            Port::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, _)| {
                // Without it answers would only be later.
                let _ = stream.set_nodelay(true);
                Connection::Tcp(stream)
            }),
            Port::Tls(port) => port.poll_accept(context),
        });
        if accepted.is_err() {
            self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        Poll::Ready(Some(accepted))
    }
}

impl TlsPort {
    /// The next connection that speaks HTTP/2 over TLS. Others take nobody's turn.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        loop {
            // An error is a panic of one handshake.
            match self.opening.poll_join_next(context) {
                Poll::Ready(Some(Ok(Some(connection)))) => {
                    return Poll::Ready(Ok(Connection::Tls(Box::new(connection))));
                }
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            let (stream, address) = std::task::ready!(self.listener.poll_accept(context))?;
            // Who finds no place is cut off at once.
            if let Some(place) = self.places.take(address.ip(), &self.tls.limits) {
                let _ = stream.set_nodelay(true);
                self.opening.spawn(tls::open(stream, address, self.tls.clone(), place));
            }
        }
    }
}

/// The file of a unix socket that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another program may have put its own socket there since.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.device_and_inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn system(operation: &'static str, path: impl Display, source: io::Error) -> ListenError {
    ListenError::System { operation, path: path.to_string(), source }
}

fn prepare_directory(socket: &Path) -> Result<(), ListenError> {
    let directory = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| system("make directory", directory.display(), source))?;
    let found =
        fs::metadata(directory).map_err(|source| system("look at", directory.display(), source))?;
    if found.mode() & 0o022 != 0 {
        return Err(ListenError::OpenDirectory { path: directory.to_owned() });
    }
    Ok(())
}

async fn remove_stale(path: &Path, endpoint: &Endpoint) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(system("look at", path.display(), source)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(dead) if dead.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| system("remove the left-over socket", path.display(), source)),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog also means that somebody is there.
        Ok(_) | Err(_) => Err(ListenError::Taken { endpoint: endpoint.clone() }),
    }
}

/// Listens; with the address that the system gave.
async fn bind_tcp(
    address: SocketAddr,
    endpoint: &Endpoint,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { endpoint: endpoint.clone() },
        _ => system("listen on", address, source),
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let found = listener.local_addr().map_err(refused)?;
    Ok((listener, found))
}

fn bind_unix(path: &Path) -> Result<Port, ListenError> {
    let refused = |source| system("listen on", path.display(), source);
    let socket = UnixSocket::new_stream().map_err(refused)?;
    socket.bind(path).map_err(refused)?;
    // Nobody can connect before `listen`, so there is no moment with other permissions.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
    let made = fs::symlink_metadata(path).map_err(refused)?;
    let file = SocketFile { path: path.to_owned(), device_and_inode: (made.dev(), made.ino()) };
    let listener = socket.listen(BACKLOG).map_err(refused)?;
    Ok(Port::Unix { listener, _file: file })
}

/// One accepted connection.
#[derive(Debug)]
pub enum Connection {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over loopback.
    Tcp(TcpStream),
    /// Over TLS.
    Tls(Box<TlsConnection>),
}

/// Who is at the far end of a [`Connection`].
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over a unix socket.
    Unix(UdsConnectInfo),
    /// Over loopback.
    Tcp(TcpConnectInfo),
    /// Over TLS.
    Tls(TlsPeer),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Unix(stream) => Peer::Unix(stream.connect_info()),
            Self::Tcp(stream) => Peer::Tcp(stream.connect_info()),
            Self::Tls(stream) => Peer::Tls(stream.peer()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
