//! TCP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use serde_json::{Value, json};

use crate::{flow, input_closed, name, say};

/// How often a wait looks whether the input was closed.
const TICK: Duration = Duration::from_millis(20);

/// How long connections may go on after the input was closed.
const GRACE: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Prints a line for each connection that was accepted, and one when it ends.
    #[arg(long)]
    events: bool,
}

#[derive(Default)]
struct Totals {
    connections: AtomicU64,
    bytes: AtomicU64,
    /// Connections by who made them.
    from: Mutex<BTreeMap<IpAddr, u64>>,
}

pub(crate) fn serve(args: &Serve) -> Result<Value> {
    let listener =
        TcpListener::bind(args.bind).with_context(|| format!("listen at {}", args.bind))?;
    say(&json!({ "ready": listener.local_addr()?.to_string() }));
    let totals = Arc::new(Totals::default());
    let (seen, events) = (Arc::clone(&totals), args.events);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            seen.connections.fetch_add(1, Ordering::Relaxed);
            if let Ok(peer) = stream.peer_addr() {
                let mut from = seen.from.lock().unwrap_or_else(PoisonError::into_inner);
                *from.entry(peer.ip().to_canonical()).or_default() += 1;
            }
            let seen = Arc::clone(&seen);
            thread::spawn(move || read_to_end(stream, &seen, events));
        }
    });
    let closed = input_closed();
    while !closed.load(Ordering::Relaxed) {
        thread::sleep(TICK);
    }
    thread::sleep(GRACE);
    Ok(json!({
        "connections": totals.connections.load(Ordering::Relaxed),
        "bytes": totals.bytes.load(Ordering::Relaxed),
        "from": *totals.from.lock().unwrap_or_else(PoisonError::into_inner),
        "cpu_us": flow::cpu_us()?,
    }))
}

fn read_to_end(mut stream: TcpStream, totals: &Totals, events: bool) {
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    if events {
        say(&json!({ "accepted": peer }));
    }
    let mut buffer = vec![0; 65_536];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Value::Null,
            Ok(length) => {
                totals.bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) => break name(&error).into(),
        }
    };
    if events {
        say(&json!({ "ended": peer, "error": end }));
    }
}

#[derive(clap::Args)]
pub(crate) struct Connect {
    /// Where to; an IPv4-mapped address makes an IPv6 socket.
    #[arg(long)]
    to: SocketAddr,
    /// How much to send.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// How long connecting may take.
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
    /// The address and port to connect from; then connecting takes as long as it takes.
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Waits between connecting and sending.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&made, socket::sockopt::ReuseAddr, &true)?;
    socket::bind(made.as_raw_fd(), &SockaddrStorage::from(from))?;
    socket::connect(made.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(made))
}

pub(crate) fn connect(args: &Connect) -> Result<Value> {
    let began = Instant::now();
    let connected = match args.from {
        Some(from) => connect_from(from, args.to),
        None => TcpStream::connect_timeout(&args.to, Duration::from_millis(args.timeout_ms)),
    };
    let connect_us = micros(began);
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            let error = name(&error);
            return Ok(json!({ "connected": false, "error": error, "connect_us": connect_us }));
        }
    };
    thread::sleep(Duration::from_millis(args.pause_ms));
    let chunk = vec![0x55; args.bytes.min(65_536)];
    let mut sent = 0;
    let mut error = Value::Null;
    while sent < args.bytes && error.is_null() {
        match stream.write(&chunk[..chunk.len().min(args.bytes - sent)]) {
            Ok(length) => sent += length,
            Err(failed) => error = name(&failed).into(),
        }
    }
    // The other side closes when it has read our end.
    stream.shutdown(Shutdown::Write).or_else(|failed| match failed.kind() {
        io::ErrorKind::NotConnected => Ok(()),
        _ => Err(failed),
    })?;
    if let Err(failed) = stream.read(&mut [0; 64])
        && error.is_null()
    {
        error = name(&failed).into();
    }
    Ok(json!({
        "connected": true, "connect_us": connect_us, "sent": sent, "error": error,
        "elapsed_us": micros(began), "cpu_us": flow::cpu_us()?,
    }))
}

#[derive(Clone, Copy, ValueEnum)]
enum Wait {
    /// In a blocking read.
    Read,
    /// In `epoll_wait`.
    Epoll,
}

#[derive(clap::Args)]
pub(crate) struct Hold {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// How to wait.
    #[arg(long, default_value = "read")]
    wait: Wait,
}

pub(crate) fn hold(args: &Hold) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&args.to, Duration::from_secs(5))
        .with_context(|| format!("connect to {}", args.to))?;
    // Something under way, so that both sides are fully established.
    stream.write_all(b"hold")?;
    say(&json!({ "ready": stream.local_addr()?.to_string() }));
    let closed = input_closed();
    thread::spawn(move || {
        while !closed.load(Ordering::Relaxed) {
            thread::sleep(TICK);
        }
        say(&json!({ "woke": false }));
        std::process::exit(0);
    });
    let began = Instant::now();
    let mut events = EpollFlags::empty();
    if matches!(args.wait, Wait::Epoll) {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        epoll.add(&stream, EpollEvent::new(wanted, 0))?;
        let mut ready = [EpollEvent::empty()];
        epoll.wait(&mut ready, EpollTimeout::NONE)?;
        events = ready[0].events();
    }
    let woke_us = micros(began);
    let read = match stream.read(&mut [0; 64]) {
        Ok(0) => "EOF".to_owned(),
        Ok(length) => format!("{length} bytes"),
        Err(error) => name(&error),
    };
    let write = stream.write(b"more").map_or_else(|error| name(&error), |_| "written".to_owned());
    Ok(json!({
        "woke": true, "read": read, "write": write, "waited_us": woke_us.max(micros(began)),
        "epoll": format!("{events:?}"),
    }))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
