//! Addresses that a port may have: a unix socket, loopback, or anything over TLS.
//!
//! Who reaches a unix socket or a port on loopback is trusted; so a port that another machine
//! could reach is refused without TLS, when listening and when connecting.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_rustls::rustls::pki_types::ServerName;

/// Where a program listens, or whom it connects to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// An address of the loopback interface.
    Loopback(SocketAddr),
    /// TLS.
    Tls(TlsAddress),
}

/// A host and a port that are talked with over TLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TlsAddress {
    /// A valid name of a server: of the DNS, or an IP address.
    host: String,
    port: u16,
}

impl TlsAddress {
    /// From a DNS name or an IP address, and a port; `None`: it is neither.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        ServerName::try_from(host).ok()?;
        Some(Self { host: host.to_owned(), port })
    }

    /// A DNS name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address to listen on; `None`: the host is a name.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// `HOST:PORT`, IPv6 in brackets.
impl fmt::Display for TlsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Longest path of a unix socket in bytes (`sun_path` without its final zero).
const MAX_PATH: usize = 107;

/// Why a text is no address that a port may have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is none of the forms.
    #[error(
        "\"{address}\" is no address; write unix:/path/to.sock, https://HOST:PORT, \
         http://127.0.0.1:PORT or [::1]:PORT"
    )]
    Form {
        /// The text.
        address: String,
    },
    /// Other machines could reach it.
    #[error(
        "\"{address}\" is not on loopback, and without TLS every port is a unix socket or \
         loopback; write https://HOST:PORT, unix:/path/to.sock, http://127.0.0.1:PORT or [::1]:PORT"
    )]
    NotLoopback {
        /// The text.
        address: String,
    },
    /// The kernel takes no such path for a socket.
    #[error(
        "\"{address}\" cannot be a unix socket: its path must have 1 to 107 bytes and no zero byte"
    )]
    Path {
        /// The text.
        address: String,
    },
}

impl Endpoint {
    /// From `unix:PATH`, `https://HOST:PORT`, `http://ADDRESS:PORT` or `ADDRESS:PORT`. Without TLS
    /// the name `localhost` stands for 127.0.0.1, and no resolver is asked.
    pub fn parse(address: &str) -> Result<Self, EndpointError> {
        let named = || address.to_owned();
        if let Some(path) = address.strip_prefix("unix:") {
            // gRPC's own form has an empty authority: unix:///path.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
                return Err(EndpointError::Path { address: named() });
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (tls, plain) = match address.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, address.strip_prefix("http://").unwrap_or(address)),
        };
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        let (host, port) =
            plain.rsplit_once(':').ok_or_else(|| EndpointError::Form { address: named() })?;
        let port: u16 = port.parse().map_err(|_| EndpointError::Form { address: named() })?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if tls {
            // Only IPv6 has brackets, and it always has them.
            let host = bracketed.unwrap_or(host);
            let tls =
                TlsAddress::new(host, port).filter(|_| bracketed.is_some() == host.contains(':'));
            return tls.map(Self::Tls).ok_or_else(|| EndpointError::Form { address: named() });
        }
        let ip = match host {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match bracketed {
                Some(v6) => v6.parse().map(IpAddr::V6),
                None => host.parse().map(IpAddr::V4),
            }
            .map_err(|_| not_an_address(host, address))?,
        };
        if !ip.to_canonical().is_loopback() {
            return Err(EndpointError::NotLoopback { address: named() });
        }
        Ok(Self::Loopback(SocketAddr::new(ip, port)))
    }

    /// The path of a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Loopback(_) | Self::Tls(_) => None,
        }
    }

    /// Whether others than this machine's own programs can reach it: whoever comes must prove who
    /// they are.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// A host name is refused for what it is: it may resolve to anything, today or tomorrow.
fn not_an_address(host: &str, address: &str) -> EndpointError {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let address = address.to_owned();
    if !host.is_empty() && host.chars().all(name) {
        EndpointError::NotLoopback { address }
    } else {
        EndpointError::Form { address }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(address: &str) -> Result<Self, EndpointError> {
        Self::parse(address)
    }
}

/// In the form that [`Endpoint::parse`] reads back.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_may_have_is_taken_and_read_back() {
        for (text, shown) in [
            ("unix:/run/bulkhead/agents.sock", "unix:/run/bulkhead/agents.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:relative.sock", "unix:relative.sock"),
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
            ("http://127.0.0.1:7400/", "http://127.0.0.1:7400"),
            ("127.8.9.1:1", "http://127.8.9.1:1"),
            ("[::1]:7400", "http://[::1]:7400"),
            ("localhost:7400", "http://127.0.0.1:7400"),
            ("https://0.0.0.0:7443", "https://0.0.0.0:7443"),
            ("https://[::]:7443/", "https://[::]:7443"),
            ("https://controller.bulkhead.svc:7443", "https://controller.bulkhead.svc:7443"),
            ("https://127.0.0.1:1", "https://127.0.0.1:1"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(shown), Ok(endpoint));
        }
    }

    #[test]
    fn what_others_could_reach_is_refused_without_tls_and_named() {
        for text in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "http://192.0.2.7:80",
            "[fe80::1]:1",
            "[::ffff:10.0.0.1]:1",
            "controller.example:7400",
            "localhost.example:7400",
        ] {
            let refused = Endpoint::parse(text);
            assert_eq!(refused, Err(EndpointError::NotLoopback { address: text.to_owned() }));
        }
        let message = Endpoint::parse("0.0.0.0:1").unwrap_err().to_string();
        assert!(message.contains("0.0.0.0:1") && message.contains("without TLS"), "{message}");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "::1:1",
            "http://127.0.0.1:1/x",
            "https://127.0.0.1",
            "https://:1",
            "https://a b:1",
            "https://::1:1",
            "https://[controller]:1",
            "https://user@controller:1",
        ] {
            let refused = Endpoint::parse(text);
            assert_eq!(refused, Err(EndpointError::Form { address: text.to_owned() }), "{text}");
        }
        assert!(matches!(Endpoint::parse("unix:"), Err(EndpointError::Path { .. })));
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(matches!(Endpoint::parse(&long), Err(EndpointError::Path { .. })));
    }

    #[test]
    fn only_an_address_can_be_listened_on() {
        let address = |text: &str| match Endpoint::parse(text).unwrap() {
            Endpoint::Tls(tls) => tls.socket_address(),
            other => panic!("{other}"),
        };
        assert_eq!(address("https://[::]:7443"), Some("[::]:7443".parse().unwrap()));
        assert_eq!(address("https://controller:7443"), None);
    }
}
