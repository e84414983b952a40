//! Connections over TLS: each has to show within a few seconds that it speaks HTTP/2 over TLS,
//! and soon after that whose it is. Until then it holds a place that is counted, and nothing else.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// What every client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many connections there may be, and how long each may take to say who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Of these, from one address; IPv6: from one /64.
    pub connections_per_address: usize,
    /// Time for the TLS handshake and the first bytes of HTTP/2.
    pub handshake: Duration,
    /// Time from then until [`Proof::give`]; who has not proven who it is by then is cut off.
    pub proof: Duration,
}

impl Default for Limits {
    /// 16,384 connections, 64 from one address, 5 s for a handshake, 15 s for a proof.
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_address: 64,
            handshake: Duration::from_secs(5),
            proof: Duration::from_secs(15),
        }
    }
}

/// How a port speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates, versions; the protocol must be "h2".
    pub config: Arc<ServerConfig>,
    /// How much of it.
    pub limits: Limits,
}

/// Whether a connection's peer has proven who it is; one for each connection.
#[derive(Clone, Debug, Default)]
pub struct Proof(Arc<AtomicBool>);

impl Proof {
    /// The peer has proven who it is: its connection may stay.
    pub fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts who is connected.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Places {
    /// A place for a connection from `address`; `None`: there are too many.
    pub(super) fn take(&self, address: IpAddr, limits: &Limits) -> Option<Place> {
        let peer = peer(address);
        let mut taken = self.lock();
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if taken.all >= limits.connections || of_peer >= limits.connections_per_address {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, of_peer + 1);
        Some(Place { places: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Each change is a few assignments: none can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is counted as one: whoever has an IPv6 address has its whole /64.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        match taken.by_peer.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

/// Makes a connection of what was accepted; `None`: it did not speak HTTP/2 over TLS in time.
pub(super) async fn open(
    stream: TcpStream,
    address: SocketAddr,
    tls: Tls,
    place: Place,
) -> Option<TlsConnection> {
    let opening = async {
        let mut stream = TlsAcceptor::from(tls.config).accept(stream).await.ok()?;
        let mut first = [0; PREFACE.len()];
        stream.read_exact(&mut first).await.ok()?;
        (first == PREFACE).then_some(stream)
    };
    let stream = tokio::time::timeout(tls.limits.handshake, opening).await.ok()??;
    let deadline = Some(Box::pin(tokio::time::sleep(tls.limits.proof)));
    Some(TlsConnection {
        stream,
        told: 0,
        address,
        proof: Proof::default(),
        deadline,
        _place: place,
    })
}

/// A connection over TLS.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    /// How much of the preface, which was read already, was passed on.
    told: usize,
    address: SocketAddr,
    proof: Proof,
    /// Until then the peer must have proven who it is; `None`: it has.
    deadline: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

/// Who is at the far end of a connection over TLS.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// From where.
    pub address: SocketAddr,
    /// Whether it has proven who it is.
    pub proof: Proof,
}

impl TlsConnection {
    pub(super) fn peer(&self) -> TlsPeer {
        TlsPeer { address: self.address, proof: self.proof.clone() }
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.proof.given() {
            self.deadline = None;
        }
        let late = self.deadline.as_mut().is_some_and(|it| it.as_mut().poll(context).is_ready());
        if late {
            let problem = "the peer has not said in time who it is";
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        Ok(())
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Err(late) = this.poll_deadline(context) {
            return Poll::Ready(Err(late));
        }
        if let Some(rest @ [_, ..]) = PREFACE.get(this.told..) {
            let now = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..now]);
            this.told += now;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_peer_and_given_back() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let places = Places::default();
        let take = |address: &str| places.take(address.parse().unwrap(), &limits);
        let first = take("192.0.2.1");
        // The same address, as IPv6 sees it.
        let second = take("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(take("192.0.2.1").is_none(), "two of one address");
        let third = take("2001:db8::1");
        assert!(third.is_some());
        assert!(take("192.0.2.2").is_none(), "three in all");
        drop((first, second));
        let fourth = take("2001:db8::2");
        assert!(fourth.is_some());
        assert!(take("2001:db8::3").is_none(), "two of one /64");
        drop((third, fourth));
        let taken = places.lock();
        assert!(taken.all == 0 && taken.by_peer.is_empty(), "{taken:?}");
    }
}
