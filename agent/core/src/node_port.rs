//! Node ports: ports that every address of every node has, and behind which a Service is.

use std::fmt;

use bulkhead_abi::Address;

/// A port of all nodes, and of which protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodePort {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Its number; never 0 where [`NodePort::new`] made it.
    pub port: u16,
}

/// Protocols that Services have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl NodePort {
    /// `None` where the port is 0, which is none.
    pub const fn new(protocol: Protocol, port: u16) -> Option<Self> {
        if port == 0 { None } else { Some(Self { protocol, port }) }
    }

    /// Under which the kernel's table of addresses has it.
    pub const fn to_abi(self) -> Address {
        Address::of_node_port(self.protocol.number(), self.port)
    }

    /// The node port that an entry of the table of addresses is about; `None`: it is about an
    /// address.
    pub fn from_abi(address: Address) -> Option<Self> {
        let (protocol, port) = address.node_port()?;
        Self::new(Protocol::from_number(protocol.into())?, port)
    }
}

impl Protocol {
    /// As IP headers have it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `None` for one that no Service has.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As Kubernetes writes it; it takes nothing for TCP.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// As `kubectl get services` shows it.
impl fmt::Display for NodePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{from_abi, to_abi};

    #[test]
    fn a_node_port_is_found_again_under_its_address_and_no_address_is_one() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let port = NodePort::new(protocol, 30_080).unwrap();
            assert_eq!(NodePort::from_abi(port.to_abi()), Some(port));
            assert_eq!(Protocol::from_name(&protocol.to_string()), Some(protocol));
            assert_eq!(Protocol::from_number(protocol.number().into()), Some(protocol));
        }
        assert_eq!(NodePort::new(Protocol::Tcp, 0), None);
        assert_eq!(NodePort::from_abi(Address::of_node_port(6, 0)), None);
        assert_eq!(NodePort::from_abi(Address::of_node_port(1, 30_080)), None);
        for text in ["10.0.0.1", "fd00::1", "100::1", "::1"] {
            let address = to_abi(text.parse().unwrap());
            assert_eq!(NodePort::from_abi(address), None, "{text}");
            assert_eq!(to_abi(from_abi(address)), address);
        }
        let shown = NodePort { protocol: Protocol::Udp, port: 30_053 };
        assert_eq!(shown.to_string(), "30053/UDP");
    }
}
