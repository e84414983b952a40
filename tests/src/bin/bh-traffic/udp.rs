//! UDP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Errors, input_closed, name, say};

/// Silence after which nothing more is on its way.
const SILENCE: Duration = Duration::from_millis(200);

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Send {
    /// Where to send; an IPv4-mapped address makes an IPv6 socket.
    #[arg(long)]
    to: SocketAddr,
    /// How many datagrams.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Payload of each.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Connects the socket first, so that no address goes with each datagram.
    #[arg(long)]
    connected: bool,
    /// Pause after each.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
}

pub(crate) fn send(args: &Send) -> Result<Value> {
    let any = match args.to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).context("make a UDP socket")?;
    let payload = vec![0x55; args.bytes];
    let (mut sent, mut bytes, mut errors) = (0_u64, 0_u64, Errors::default());
    if args.connected
        && let Err(error) = socket.connect(args.to)
    {
        errors.note(&error);
        return Ok(json!({ "sent": 0, "bytes": 0, "errors": errors.0 }));
    }
    for _ in 0..args.count {
        let done =
            if args.connected { socket.send(&payload) } else { socket.send_to(&payload, args.to) };
        match done {
            Ok(length) => {
                sent += 1;
                bytes += length as u64;
            }
            Err(error) => errors.note(&error),
        }
        if args.pause_us > 0 {
            thread::sleep(Duration::from_micros(args.pause_us));
        }
    }
    Ok(json!({ "sent": sent, "bytes": bytes, "errors": errors.0 }))
}

#[derive(clap::Args)]
pub(crate) struct Each {
    /// Where to, one after the other.
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Waits for a datagram before the first is sent.
    #[arg(long)]
    after: Option<SocketAddr>,
}

/// Says of each what came of it.
pub(crate) fn each(args: &Each) -> Result<Value> {
    let any = match args.to[0] {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(args.after.unwrap_or(any)).context("make a UDP socket")?;
    if args.after.is_some() {
        say(&json!({ "ready": socket.local_addr()?.to_string() }));
        socket.set_read_timeout(Some(PATIENCE))?;
        let (_, from) = socket.recv_from(&mut [0; 2_048]).context("wait for a datagram")?;
        say(&json!({ "from": from.to_string() }));
    }
    let one = |to: &SocketAddr| match socket.send_to(&[0x55; 64], to) {
        Ok(_) => "sent".to_owned(),
        Err(error) => name(&error),
    };
    Ok(json!({ "each": args.to.iter().map(one).collect::<Vec<_>>() }))
}

pub(crate) fn receive(bind: SocketAddr) -> Result<Value> {
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    socket.set_read_timeout(Some(SILENCE))?;
    let closed = input_closed();
    say(&json!({ "ready": socket.local_addr()?.to_string() }));
    let mut buffer = vec![0; 65_536];
    let (mut received, mut bytes, mut errors) = (0_u64, 0_u64, Errors::default());
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                received += 1;
                bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if closed.load(Ordering::Relaxed) {
                    return Ok(json!({
                        "received": received, "bytes": bytes, "errors": errors.0
                    }));
                }
            }
            Err(error) => errors.note(&error),
        }
    }
}
