//! The two ends of the wire, each a process in its own network namespace and cgroup: the socket's
//! cgroup is that of the process that makes it.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bulkhead_tests::bench::machine;
use bulkhead_tests::bench::node::peer;
use bulkhead_tests::bench::statistics::{Random, median};
use clap::Subcommand;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect,
    sendmsg, setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

/// How many peers are hot.
const HOT: u32 = 64;

/// How far they are apart: all are among the first 1,000 addresses, which are always known.
const APART: u32 = 15;

/// What a datagram carries: with its headers it is 60 bytes long.
const PAYLOAD: [u8; 32] = [0x42; 32];

/// Packets that are sent without a pause.
const BURST: u32 = 20_000;
/// How long others may run then.
const PAUSE: Duration = Duration::from_millis(2);

/// Where the sender's connected sockets are.
const SENDER_PORT: u16 = 8000;
/// Where the one is that is not connected.
const FREE_PORT: u16 = 8001;

/// The interface at both ends.
pub(super) const WIRE: &str = "wire0";

/// Who talks with whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Pattern {
    /// 64 connected sockets in turn, each with its own peer and a connected socket there.
    Established,
    /// One socket that is not connected, to and from 64 addresses at random.
    Hot,
    /// One socket that is not connected, to and from any of the addresses at random.
    Random,
}

impl Pattern {
    pub(crate) const ALL: [Self; 3] = [Self::Established, Self::Hot, Self::Random];

    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::Established => "64 connected sockets",
            Self::Hot => "one socket, 64 hot peers",
            Self::Random => "one socket, uniformly random peers",
        }
    }

    /// What a processor's caches make of it.
    pub(crate) const fn caches(self) -> &'static str {
        match self {
            Self::Established | Self::Hot => "tables of both are cache-hot",
            Self::Random => "tables of both miss the caches",
        }
    }

    /// Where a receiver that begins at `first` receives it.
    fn port(self, first: u16) -> u16 {
        match self {
            Self::Established => first,
            Self::Hot | Self::Random => first + 1,
        }
    }
}

/// What the sender is told, a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) pattern: Pattern,
    /// The receiver's first port.
    pub(super) port: u16,
    pub(super) packets: u32,
    /// How many addresses the virtual cluster owns.
    pub(super) addresses: u32,
}

/// What an end says, a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Ready,
    /// All packets were sent, each in that time.
    Took {
        nanoseconds: f64,
    },
}

/// Options of an end.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cgroup to join.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The network namespace to join.
    #[arg(long)]
    netns: PathBuf,
    #[command(subcommand)]
    side: Side,
}

/// Which end.
#[derive(Subcommand)]
enum Side {
    /// Sends what it is told.
    Send {
        /// First ports of the receivers.
        #[arg(long)]
        port: Vec<u16>,
    },
    /// Receives, at this port and the next.
    Receive {
        /// The first port.
        #[arg(long)]
        port: u16,
    },
}

/// Is an end until its input is closed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(cgroup) = &args.cgroup {
        let procs = cgroup.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("join {}", procs.display()))?;
    }
    let file = File::open(&args.netns).with_context(|| format!("open {}", args.netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("join {}", args.netns.display()))?;
    match &args.side {
        Side::Send { port } => send(port),
        Side::Receive { port } => receive(*port),
    }
}

fn say(said: Said) -> Result<()> {
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

/// The hot addresses, all different: of the sender, and of the receiver.
fn hot() -> Vec<(Ipv4Addr, Ipv4Addr)> {
    (0..HOT).map(|index| (peer(index * APART), peer(index * APART + 1))).collect()
}

fn any(random: &mut Random, addresses: u32) -> Ipv4Addr {
    // Below a number of 32 bits.
    peer(u32::try_from(random.below(addresses as usize)).unwrap_or(0))
}

/// Sockets that nobody reads: after the first packets their buffers are full, and what comes then
/// is thrown away behind every hook that is measured.
fn receive(first: u16) -> Result<()> {
    // The sender's addresses are this side's own as well.
    for conf in ["all", WIRE] {
        let dir = Path::new("/proc/sys/net/ipv4/conf").join(conf);
        for (name, value) in [("accept_local", "1"), ("rp_filter", "0")] {
            let path = dir.join(name);
            fs::write(&path, value).with_context(|| format!("write {}", path.display()))?;
        }
    }
    let port = Pattern::Established.port(first);
    let mut sockets = hot()
        .into_iter()
        .map(|(sender, receiver)| {
            let socket = UdpSocket::bind((receiver, port)).context("bind to a peer's address")?;
            socket.connect((sender, SENDER_PORT)).context("connect back")?;
            Ok(socket)
        })
        .collect::<Result<Vec<_>>>()?;
    let port = Pattern::Random.port(first);
    sockets.push(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("bind to any address")?);
    for socket in &sockets {
        setsockopt(socket, sockopt::RcvBuf, &1).context("make the buffer small")?;
    }
    say(Said::Ready)?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("wait for the end")?;
    Ok(())
}

/// The sender's sockets.
struct Sockets {
    /// By receiver, in the order of the hot addresses.
    connected: Vec<(u16, Vec<UdpSocket>)>,
    free: OwnedFd,
    hot: Vec<(Ipv4Addr, Ipv4Addr)>,
    random: Random,
}

fn send(ports: &[u16]) -> Result<()> {
    let processor = machine::pin()?;
    eprintln!("network: the sender stays on processor {processor}");
    let hot = hot();
    let connected = ports
        .iter()
        .map(|port| {
            let to = Pattern::Established.port(*port);
            let pair = |(from, peer): &(Ipv4Addr, Ipv4Addr)| {
                let socket = transparent(SocketAddrV4::new(*from, SENDER_PORT))?;
                let there = SockaddrIn::from(SocketAddrV4::new(*peer, to));
                connect(socket.as_raw_fd(), &there).with_context(|| format!("connect {there}"))?;
                Ok(UdpSocket::from(socket))
            };
            Ok((*port, hot.iter().map(pair).collect::<Result<Vec<_>>>()?))
        })
        .collect::<Result<Vec<_>>>()?;
    let free = transparent(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, FREE_PORT))?;
    let mut sockets = Sockets { connected, free, hot, random: Random::new(100_000) };
    say(Said::Ready)?;
    for line in io::stdin().lines() {
        let order: Order = serde_json::from_str(&line.context("read an order")?)?;
        say(Said::Took { nanoseconds: bursts(&mut sockets, order)? })?;
    }
    Ok(())
}

/// Sends in bursts, which are short enough that a real-time process may make them, and lets
/// others run in between. The median burst counts: what disturbs one of them is not ours.
#[expect(clippy::float_arithmetic, reason = "statistics of measurements")]
fn bursts(sockets: &mut Sockets, order: Order) -> Result<f64> {
    let mut times = Vec::new();
    let mut left = order.packets;
    while left > 0 {
        let packets = left.min(BURST);
        let began = Instant::now();
        sockets.send(Order { packets, ..order })?;
        times.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(packets));
        left -= packets;
        thread::sleep(PAUSE);
    }
    Ok(median(&times))
}

/// A socket that may send from addresses that this side does not have.
fn transparent(from: SocketAddrV4) -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("make a socket")?;
    setsockopt(&socket, sockopt::IpTransparent, &true).context("set IP_TRANSPARENT")?;
    // Two receivers have the same peer.
    setsockopt(&socket, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).with_context(|| format!("bind to {from}"))?;
    Ok(socket)
}

impl Sockets {
    fn send(&mut self, order: Order) -> Result<()> {
        let Order { pattern, port, packets, addresses } = order;
        match pattern {
            Pattern::Established => self.send_in_turn(port, packets),
            Pattern::Hot => {
                let hot = std::mem::take(&mut self.hot);
                let sent = self
                    .send_free(pattern.port(port), packets, |random| hot[random.below(hot.len())]);
                self.hot = hot;
                sent
            }
            Pattern::Random => self.send_free(pattern.port(port), packets, |random| {
                (any(random, addresses), any(random, addresses))
            }),
        }
    }

    fn send_in_turn(&self, port: u16, packets: u32) -> Result<()> {
        let found = self.connected.iter().find(|(to, _)| *to == port);
        let (_, sockets) = found.with_context(|| format!("no socket for port {port}"))?;
        for (socket, _) in sockets.iter().cycle().zip(0..packets) {
            socket.send(&PAYLOAD).context("send")?;
        }
        Ok(())
    }

    fn send_free(
        &mut self,
        port: u16,
        packets: u32,
        mut next: impl FnMut(&mut Random) -> (Ipv4Addr, Ipv4Addr),
    ) -> Result<()> {
        let payload = [IoSlice::new(&PAYLOAD)];
        let socket = self.free.as_raw_fd();
        for _ in 0..packets {
            let (from, to) = next(&mut self.random);
            let source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let to = SockaddrIn::from(SocketAddrV4::new(to, port));
            let source = [ControlMessage::Ipv4PacketInfo(&source)];
            sendmsg(socket, &payload, &source, MsgFlags::empty(), Some(&to))
                .with_context(|| format!("send to {to}"))?;
        }
        Ok(())
    }
}
