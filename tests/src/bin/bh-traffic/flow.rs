//! What goes on until the input is closed: steady flows, probes of what must be refused, and
//! receivers that tell senders apart. Everything is counted where it happens.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::{Errors, input_closed, say};

/// Silence after which nothing more is on its way.
const SILENCE: Duration = Duration::from_millis(300);

/// Room for datagrams whose receiver is not scheduled for a while: none may be lost there.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// A write of a TCP flow.
const CHUNK_BYTES: usize = 8 << 10;

/// Writes of a TCP flow before it connects anew.
const CHUNKS_A_CONNECTION: u32 = 100;

/// How long connecting may take where it is allowed.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct UdpFlow {
    /// Where to send, one after the other.
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// The address to send from, one for each of those; none: what the system chooses.
    #[arg(long)]
    from: Vec<IpAddr>,
    /// Payload of each datagram.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Pause after each.
    #[arg(long, default_value_t = 2_000)]
    pause_us: u64,
}

/// Notes how far apart two beats ever were.
struct Beats {
    began: Instant,
    last: Instant,
    longest: Duration,
    /// When the next is due, where somebody waits for it.
    next: Instant,
}

impl Beats {
    fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, longest: Duration::ZERO, next: now }
    }

    fn beat(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    /// Waits until the next one is due, `pause` after the one before was: on a busy machine late
    /// ones are made up for.
    fn wait(&mut self, pause: Duration) {
        self.next += pause;
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
    }
}

pub(crate) fn udp(args: &UdpFlow) -> Result<Value> {
    let froms = args.from.iter().copied().map(Some).chain(std::iter::repeat(None));
    let sockets = args.to.iter().zip(froms).map(|(to, from)| match from {
        Some(from) => UdpSocket::bind((from, 0)).with_context(|| format!("bind {from}")),
        None => udp_socket(*to),
    });
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    let payload = vec![0x55; args.bytes];
    let mut flows: Vec<(u64, Errors)> = args.to.iter().map(|_| Default::default()).collect();
    let closed = input_closed();
    say(&json!({ "ready": args.to }));
    let mut beats = Beats::begin();
    while !closed.load(Ordering::Relaxed) {
        for ((socket, to), (sent, errors)) in sockets.iter().zip(&args.to).zip(&mut flows) {
            match socket.send_to(&payload, to) {
                Ok(_) => *sent += 1,
                Err(error) => errors.note(&error),
            }
            beats.beat();
            thread::sleep(Duration::from_micros(args.pause_us));
        }
    }
    let flows = args.to.iter().zip(&flows).map(
        |(to, (sent, errors))| json!({ "to": to.to_string(), "sent": sent, "errors": errors.0 }),
    );
    Ok(json!({
        "flows": flows.collect::<Vec<_>>(), "payload": args.bytes,
        "longest_gap_ms": milliseconds(beats.longest), "cpu_us": cpu_us()?,
    }))
}

fn udp_socket(to: SocketAddr) -> Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    UdpSocket::bind(any).context("make a UDP socket")
}

/// Counts datagrams by who sent them.
pub(crate) fn count(bind: SocketAddr) -> Result<Value> {
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
        .context("ask for a large receive buffer")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let (all, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    tell_when_asked(Arc::clone(&all), Arc::clone(&closed));
    say(&json!({ "ready": socket.local_addr()?.to_string() }));
    let mut buffer = vec![0; 65_536];
    let mut from: BTreeMap<IpAddr, [u64; 2]> = BTreeMap::new();
    let mut errors = Errors::default();
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, sender)) => {
                let [datagrams, bytes] = from.entry(sender.ip().to_canonical()).or_default();
                *datagrams += 1;
                all.fetch_add(1, Ordering::Relaxed);
                *bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if closed.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) => errors.note(&error),
        }
    }
    let from: BTreeMap<String, Value> = from
        .into_iter()
        .map(|(ip, [datagrams, bytes])| {
            (ip.to_string(), json!({ "received": datagrams, "bytes": bytes }))
        })
        .collect();
    Ok(json!({ "from": from, "errors": errors.0, "cpu_us": cpu_us()? }))
}

/// Says how many came at each line of the input, until that is closed.
fn tell_when_asked(all: Arc<AtomicU64>, closed: Arc<AtomicBool>) {
    thread::spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            say(&json!({ "received": all.load(Ordering::Relaxed) }));
        }
        closed.store(true, Ordering::Relaxed);
    });
}

#[derive(clap::Args)]
pub(crate) struct TcpFlow {
    /// Where to, one connection each at the same time.
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Pause after each write.
    #[arg(long, default_value_t = 20_000)]
    pause_us: u64,
}

/// What a TCP flow did.
#[derive(Default)]
struct Done {
    connections: u64,
    sent: u64,
    errors: Errors,
}

pub(crate) fn tcp(args: &TcpFlow) -> Result<Value> {
    let closed = input_closed();
    say(&json!({ "ready": args.to }));
    let pause = Duration::from_micros(args.pause_us);
    let mut done = Vec::new();
    thread::scope(|scope| {
        let flows: Vec<_> = args
            .to
            .iter()
            .map(|to| {
                let closed = &*closed;
                scope.spawn(move || tcp_one(*to, pause, closed))
            })
            .collect();
        done.extend(flows.into_iter().map(|flow| flow.join().unwrap_or_default()));
    });
    let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
    let errors: Vec<_> = done.iter().map(|done| &done.errors.0).filter(|e| !e.is_empty()).collect();
    Ok(json!({
        "connections": sum(|done| done.connections), "sent": sum(|done| done.sent),
        "errors": errors, "cpu_us": cpu_us()?,
    }))
}

fn tcp_one(to: SocketAddr, pause: Duration, closed: &AtomicBool) -> Done {
    let mut done = Done::default();
    while !closed.load(Ordering::Relaxed) {
        if let Err(error) = tcp_connection(to, pause, closed, &mut done) {
            done.errors.note(&error);
            thread::sleep(pause);
        }
    }
    done
}

fn tcp_connection(
    to: SocketAddr,
    pause: Duration,
    closed: &AtomicBool,
    done: &mut Done,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(CONNECT_WITHIN))?;
    done.connections += 1;
    let chunk = [0x55; CHUNK_BYTES];
    for _ in 0..CHUNKS_A_CONNECTION {
        stream.write_all(&chunk)?;
        done.sent += CHUNK_BYTES as u64;
        if closed.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(pause);
    }
    stream.shutdown(Shutdown::Write)?;
    // The other side closes when it has read our end.
    stream.read(&mut [0; 64]).map(drop)
}

#[derive(clap::Args)]
pub(crate) struct Probe {
    /// Connects to these by TCP.
    #[arg(long)]
    tcp: Vec<SocketAddr>,
    /// Sends datagrams to these.
    #[arg(long)]
    udp: Vec<SocketAddr>,
    /// Payload of each datagram.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Pause after each probe.
    #[arg(long, default_value_t = 2_000)]
    pause_us: u64,
    /// How long connecting may take.
    #[arg(long, default_value_t = 20)]
    timeout_ms: u64,
}

/// A connection attempt that took longer may have been repeated by the kernel.
const REPEATED_AFTER: Duration = Duration::from_millis(900);

/// What probes of one kind came to.
#[derive(Default)]
struct Probed {
    attempts: u64,
    /// Connected, or given to the network.
    done: u64,
    errors: Errors,
    slow: u64,
}

impl Probed {
    fn json(&self) -> Value {
        json!({
            "attempts": self.attempts, "done": self.done, "errors": self.errors.0,
            "slow": self.slow,
        })
    }
}

/// Tries what must be refused, again and again.
pub(crate) fn probe(args: &Probe) -> Result<Value> {
    let sockets = args.udp.iter().map(|to| udp_socket(*to)).collect::<Result<Vec<_>>>()?;
    let payload = vec![0x55; args.bytes];
    let timeout = Duration::from_millis(args.timeout_ms);
    let mut connects = Probed::default();
    let mut sends: Vec<Probed> = args.udp.iter().map(|_| Probed::default()).collect();
    let closed = input_closed();
    say(&json!({ "ready": true }));
    let mut beats = Beats::begin();
    while !closed.load(Ordering::Relaxed) {
        for to in &args.tcp {
            let began = Instant::now();
            connects.attempts += 1;
            match TcpStream::connect_timeout(to, timeout) {
                Ok(_) => connects.done += 1,
                Err(error) => connects.errors.note(&error),
            }
            connects.slow += u64::from(began.elapsed() > REPEATED_AFTER);
            beats.beat();
            beats.wait(Duration::from_micros(args.pause_us));
        }
        for ((socket, to), sends) in sockets.iter().zip(&args.udp).zip(&mut sends) {
            sends.attempts += 1;
            match socket.send_to(&payload, to) {
                Ok(_) => sends.done += 1,
                Err(error) => sends.errors.note(&error),
            }
            beats.beat();
            beats.wait(Duration::from_micros(args.pause_us));
        }
    }
    let sends: Vec<Value> = args
        .udp
        .iter()
        .zip(&sends)
        .map(|(to, sends)| json!({ "to": to.to_string(), "probes": sends.json() }))
        .collect();
    Ok(json!({
        "connects": connects.json(), "sends": sends, "payload": args.bytes,
        "longest_gap_ms": milliseconds(beats.longest),
        "elapsed_ms": milliseconds(beats.began.elapsed()), "cpu_us": cpu_us()?,
    }))
}

/// CPU time of this process from its first instruction on.
pub(crate) fn cpu_us() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let both = micros(usage.user_time()) + micros(usage.system_time());
    Ok(u64::try_from(both).unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
