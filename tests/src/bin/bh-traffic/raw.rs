//! Raw sockets: what has no ports, and what brings its own IP header.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    socket,
};
use serde_json::{Value, json};

use crate::{Errors, name};

/// RFC 3692: for experiments.
const PROTOCOL: u8 = 253;

#[derive(clap::Args)]
pub(crate) struct Send {
    /// Where to.
    #[arg(long)]
    to: IpAddr,
    /// How many packets.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Payload of each, after its IP header.
    #[arg(long, default_value_t = 64)]
    bytes: u16,
}

pub(crate) fn send(args: &Send) -> Result<Value> {
    let socket = open(args.to, SockProtocol::Raw)?;
    let mut packet = header(args.to, args.bytes);
    packet.resize(packet.len() + usize::from(args.bytes), 0x55);
    let (mut sent, mut errors) = (0_u64, Errors::default());
    for _ in 0..args.count {
        match send_one(&socket, args.to, &packet) {
            Ok(()) => sent += 1,
            Err(errno) => errors.note(&errno.into()),
        }
    }
    Ok(json!({ "sent": sent, "errors": errors.0 }))
}

#[derive(clap::Args)]
pub(crate) struct Ports {
    /// Where to.
    #[arg(long)]
    to: IpAddr,
    /// The protocol of which there are ports.
    #[arg(long, default_value_t = 17)]
    protocol: u8,
    /// To which, one after the other.
    #[arg(long, required = true)]
    port: Vec<u16>,
    /// Says that the packet is a fragment which begins at so many bytes, a multiple of 8.
    #[arg(long)]
    fragment: Option<u16>,
    /// Extension headers of IPv6, or words of options of IPv4, before the protocol's own.
    #[arg(long, default_value_t = 0)]
    headers: u8,
    /// Ends the packet after so many bytes.
    #[arg(long)]
    cut: Option<usize>,
}

/// Says of each what came of it.
pub(crate) fn ports(args: &Ports) -> Result<Value> {
    let socket = open(args.to, SockProtocol::Raw)?;
    let one = |port: &u16| match send_one(&socket, args.to, &packet(args, *port)) {
        Ok(()) => "sent".to_owned(),
        Err(errno) => name(&errno.into()),
    };
    Ok(json!({ "each": args.port.iter().map(one).collect::<Vec<_>>() }))
}

fn packet(args: &Ports, port: u16) -> Vec<u8> {
    // Source port and destination port, and what may follow: of TCP a segment that is no first.
    let mut payload = vec![0x12, 0x34];
    payload.extend(port.to_be_bytes());
    payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0]);
    let mut packet = match args.to {
        IpAddr::V4(_) => {
            let mut packet = header(args.to, 0);
            packet[0] += args.headers;
            if let Some(offset) = args.fragment {
                let more = if offset == 0 { 0x2000 } else { 0 };
                packet[6..8].copy_from_slice(&((offset / 8) | more).to_be_bytes());
            }
            packet[9] = args.protocol;
            packet.extend(vec![1; 4 * usize::from(args.headers)]);
            packet
        }
        IpAddr::V6(_) => {
            let extensions = extensions(args);
            let length = u16::try_from(extensions.len() + payload.len()).unwrap_or(u16::MAX);
            let mut packet = header(args.to, length);
            packet[6] = match (args.headers, args.fragment) {
                (0, None) => args.protocol,
                (0, Some(_)) => FRAGMENT,
                _ => DESTINATION_OPTIONS,
            };
            packet.extend(extensions);
            packet
        }
    };
    packet.extend(payload);
    packet.truncate(args.cut.unwrap_or(usize::MAX));
    packet
}

const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Headers of options, then one of a fragment.
fn extensions(args: &Ports) -> Vec<u8> {
    let mut bytes = Vec::new();
    for left in (0..args.headers).rev() {
        let next = match (left, args.fragment) {
            (0, None) => args.protocol,
            (0, Some(_)) => FRAGMENT,
            _ => DESTINATION_OPTIONS,
        };
        // Eight bytes: one option that is padding.
        bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    if let Some(offset) = args.fragment {
        let more = u16::from(offset == 0);
        let [high, low] = (offset & 0xfff8 | more).to_be_bytes();
        bytes.extend([args.protocol, 0, high, low, 0, 0, 0, 7]);
    }
    bytes
}

/// An IP header; the kernel fills in IPv4's source, length and checksum.
fn header(to: IpAddr, payload: u16) -> Vec<u8> {
    match to {
        IpAddr::V4(to) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, PROTOCOL, 0, 0, 0, 0, 0, 0];
            header.extend(to.octets());
            header
        }
        IpAddr::V6(to) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(payload.to_be_bytes());
            header.extend([PROTOCOL, 64]);
            // The source stays unspecified: nobody answers this protocol.
            header.extend([0; 16]);
            header.extend(to.octets());
            header
        }
    }
}

pub(crate) fn ping(to: IpAddr, count: u16, timeout_ms: u16) -> Result<Value> {
    let (protocol, request, reply) = match to {
        IpAddr::V4(_) => (SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (SockProtocol::IcmpV6, 128, 129),
    };
    let socket = open(to, protocol)?;
    let id = u16::try_from(std::process::id() & 0xffff)?;
    let (mut sent, mut answers, mut errors) = (0_u64, 0_u64, Errors::default());
    for sequence in 0..count {
        let packet = echo(request, id, sequence);
        match send_one(&socket, to, &packet) {
            Ok(()) => sent += 1,
            Err(errno) => {
                errors.note(&errno.into());
                continue;
            }
        }
        if answered(&socket, to, echo(reply, id, sequence), timeout_ms)? {
            answers += 1;
        }
    }
    Ok(json!({ "sent": sent, "answers": answers, "errors": errors.0 }))
}

/// Waits for a packet that is `wanted` but for its checksum.
fn answered(socket: &OwnedFd, to: IpAddr, wanted: [u8; 8], timeout_ms: u16) -> Result<bool> {
    // IPv4 hands over the IP header too; ours has no options.
    let skip = if to.is_ipv4() { 20 } else { 0 };
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(socket), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(left)?)? == 0 {
            return Ok(false);
        }
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let message = buffer.get(skip..length).unwrap_or_default();
        if message.len() >= 8 && message[..2] == wanted[..2] && message[4..8] == wanted[4..] {
            return Ok(true);
        }
    }
}

/// An ICMP echo message; for IPv6, the kernel computes the checksum anew.
fn echo(kind: u8, id: u16, sequence: u16) -> [u8; 8] {
    let [id_high, id_low] = id.to_be_bytes();
    let [sequence_high, sequence_low] = sequence.to_be_bytes();
    let mut message = [kind, 0, 0, 0, id_high, id_low, sequence_high, sequence_low];
    let mut sum: u32 =
        message.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let [high, low] = (!sum).to_be_bytes().last_chunk().copied().unwrap_or([0; 2]);
    message[2] = high;
    message[3] = low;
    message
}

fn open(to: IpAddr, protocol: SockProtocol) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).context("make a raw socket")
}

fn send_one(socket: &OwnedFd, to: IpAddr, packet: &[u8]) -> Result<(), Errno> {
    let address = SockaddrStorage::from(SocketAddr::new(to, 0));
    sendto(socket.as_raw_fd(), packet, &address, MsgFlags::empty()).map(drop)
}
