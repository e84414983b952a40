//! Which port of the far end a packet or call is for. It matters where the far end is a host:
//! behind some of a host's ports are Services of virtual clusters, whatever the host's address.
//!
//! Only what can reach a Service by itself names a port here. The segments that follow the first
//! of a TCP socket's connection do not: where the connection was accepted, the far end's port is
//! any that was free there, a node port's number among them. So an answer always goes. UDP does
//! not tell an answer from a question: what is sent to a node port's number is sent to it.

use aya_ebpf::{
    bindings::__sk_buff,
    programs::{SkBuffContext, SockAddrContext},
};
use bulkhead_abi::Address;

use crate::{error::Unjudged, farewell::is_of_a_tcp_socket, packet::IPV4};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Not a protocol of packets: of sockets whose packets are TCP.
const MPTCP: u32 = 262;

const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;
/// Where the flags are in a TCP header.
const FLAGS: usize = 13;

const IPV6_HEADER_BYTES: usize = 40;
/// Headers between that of IPv6 and the protocol's own that are passed over; who makes more does
/// it to hide something.
const MOST_EXTENSIONS: usize = 6;

/// A port of a host, and of which protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(u32);

impl Port {
    /// It does not matter: the far end is no host, or is this one.
    pub(crate) const ANY: Self = Self(0);
    /// No port is named: another protocol, or a fragment that is not the first. Without the first
    /// nobody can put the others together.
    pub(crate) const NONE: Self = Self(1 << 31);
    /// That of the connection, whichever it is.
    pub(crate) const GOES_ON: Self = Self(1 << 30);
    /// There is one, and it cannot be read.
    pub(crate) const UNREADABLE: Self = Self(1 << 29);

    #[inline(always)]
    const fn new(protocol: u8, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// Under which it is known, if it is a node port.
    #[inline(always)]
    pub(crate) const fn key(self) -> Option<Address> {
        if self.0 == 0 || self.0 >= Self::UNREADABLE.0 {
            return None;
        }
        Some(Address::of_node_port((self.0 >> 16) as u8, self.0 as u16))
    }

    /// That of a packet that is sent.
    #[inline(always)]
    pub(crate) fn of_packet(ctx: &SkBuffContext) -> Self {
        Self(of_packet(ctx.skb.skb))
    }
}

/// Who knows which port of the far end something is for, if that is asked.
pub(crate) trait ForPort {
    /// Which one.
    fn port(&self) -> Port;
}

/// A call: that to which it connects or sends.
impl ForPort for SockAddrContext {
    #[inline(always)]
    fn port(&self) -> Port {
        // SAFETY: fields of the program's own context.
        let (protocol, port) = unsafe { ((*self.sock_addr).protocol, (*self.sock_addr).user_port) };
        let port = u16::from_be(port as u16);
        match protocol {
            MPTCP => Port::new(TCP, port),
            _ if protocol == u32::from(TCP) => Port::new(TCP, port),
            _ if protocol == u32::from(UDP) => Port::new(UDP, port),
            _ if protocol == u32::from(SCTP) => Port::new(SCTP, port),
            _ => Port::NONE,
        }
    }
}

/// A function of its own, so that what asks for no port, which is nearly everything, carries none
/// of it along.
#[inline(never)]
fn of_packet(skb: *mut __sk_buff) -> u32 {
    read(&SkBuffContext::new(skb)).unwrap_or(Port::UNREADABLE).0
}

#[inline(always)]
fn read(ctx: &SkBuffContext) -> Result<Port, Unjudged> {
    let Some((protocol, at)) = protocol(ctx)? else {
        return Ok(Port::NONE);
    };
    if protocol != TCP && protocol != UDP && protocol != SCTP {
        return Ok(Port::NONE);
    }
    if protocol == TCP && is_of_a_tcp_socket(ctx) {
        let [flags] = load(ctx, at + FLAGS)?;
        if flags & (SYN | ACK) != SYN {
            return Ok(Port::GOES_ON);
        }
    }
    Ok(Port::new(protocol, u16::from_be_bytes(load(ctx, at + 2)?)))
}

/// The protocol, and where its header begins; `None`: a fragment that is not the first.
#[inline(always)]
fn protocol(ctx: &SkBuffContext) -> Result<Option<(u8, usize)>, Unjudged> {
    if ctx.skb.protocol() == IPV4 {
        let [length] = load(ctx, 0)?;
        let fragment = u16::from_be_bytes(load(ctx, 6)?);
        let [protocol] = load(ctx, 9)?;
        let first = fragment & 0x1fff == 0;
        return Ok(first.then_some((protocol, usize::from(length & 0x0f) * 4)));
    }
    let [mut header] = load(ctx, 6)?;
    let mut at = IPV6_HEADER_BYTES;
    for _ in 0..MOST_EXTENSIONS {
        let [next, length, high, low] = match header {
            0 | 43 | 44 | 51 | 60 => load(ctx, at)?,
            _ => return Ok(Some((header, at))),
        };
        at += match header {
            44 if u16::from_be_bytes([high, low]) & 0xfff8 != 0 => return Ok(None),
            44 => 8,
            // The authentication header counts in words of 4 bytes, the others in those of 8.
            51 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        header = next;
    }
    Err(Unjudged::TooShort)
}

/// Bytes at an offset that the packet itself says.
#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: usize) -> Result<[u8; N], Unjudged> {
    ctx.load(offset).map_err(|_| Unjudged::TooShort)
}
