//! Sends and receives, and says in JSON what came of it: the ground truth of tests and demo.
//!
//! Commands that go on for a while print `{"ready": …}` when they are set up, and end when
//! their standard input is closed. The last line is the result; errors of the network are
//! results too, by their `errno` names.

mod flow;
mod raw;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

/// Sends and receives, and says in JSON what came of it.
#[derive(Parser)]
struct Cli {
    /// Joins this cgroup first.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Joins the network namespace of this file first.
    #[arg(long)]
    netns: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends UDP datagrams.
    UdpSend(udp::Send),
    /// Sends one UDP datagram to each place, from one socket.
    UdpEach(udp::Each),
    /// Receives UDP datagrams until the input is closed.
    UdpRecv {
        /// Where to receive.
        #[arg(long)]
        bind: SocketAddr,
    },
    /// Accepts TCP connections and reads them to their end, until the input is closed.
    TcpServe(tcp::Serve),
    /// Connects, sends, and waits until the other side has read it all.
    TcpConnect(tcp::Connect),
    /// Connects and waits for what ends the connection.
    TcpHold(tcp::Hold),
    /// Sends IP packets with headers of its own making.
    RawSend(raw::Send),
    /// Sends one packet of its own making to each port, from one raw socket.
    RawPorts(raw::Ports),
    /// Sends ICMP echo requests and waits for the answers.
    Ping {
        /// Whom to ask.
        #[arg(long)]
        to: IpAddr,
        /// How many requests.
        #[arg(long, default_value_t = 1)]
        count: u16,
        /// How long to wait for each answer.
        #[arg(long, default_value_t = 500)]
        timeout_ms: u16,
    },
    /// Sends UDP datagrams until the input is closed.
    UdpFlow(flow::UdpFlow),
    /// Counts UDP datagrams by who sent them, until the input is closed.
    UdpCount {
        /// Where to receive.
        #[arg(long)]
        bind: SocketAddr,
    },
    /// Connects and sends, again and again, until the input is closed.
    TcpFlow(flow::TcpFlow),
    /// Tries what must be refused, until the input is closed.
    Probe(flow::Probe),
    /// Runs commands that end by themselves, one a line of the input, each with one line of
    /// result: all of them from one process that lives on.
    Session,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(cgroup) = cli.cgroup {
        let procs = cgroup.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("join {}", procs.display()))?;
    }
    if let Some(netns) = cli.netns {
        let file = File::open(&netns).with_context(|| format!("open {}", netns.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("join {}", netns.display()))?;
    }
    match cli.command {
        Command::Session => session(),
        command => {
            say(&run(command)?);
            Ok(())
        }
    }
}

fn run(command: Command) -> Result<Value> {
    match command {
        Command::UdpSend(args) => udp::send(&args),
        Command::UdpEach(args) => udp::each(&args),
        Command::UdpRecv { bind } => udp::receive(bind),
        Command::TcpServe(args) => tcp::serve(&args),
        Command::TcpConnect(args) => tcp::connect(&args),
        Command::TcpHold(args) => tcp::hold(&args),
        Command::RawSend(args) => raw::send(&args),
        Command::RawPorts(args) => raw::ports(&args),
        Command::Ping { to, count, timeout_ms } => raw::ping(to, count, timeout_ms),
        Command::UdpFlow(args) => flow::udp(&args),
        Command::UdpCount { bind } => flow::count(bind),
        Command::TcpFlow(args) => flow::tcp(&args),
        Command::Probe(args) => flow::probe(&args),
        Command::Session => bail!("a session has no session inside"),
    }
}

/// Commands that wait for the end of the input would take the next command for it, so only
/// those that end by themselves are run here.
fn session() -> Result<()> {
    for line in io::stdin().lines() {
        let line = line.context("read a command")?;
        let words = std::iter::once("bh-traffic").chain(line.split_whitespace());
        let done =
            Cli::try_parse_from(words).map_err(anyhow::Error::from).and_then(|cli| {
                match cli.command {
                    Command::UdpRecv { .. }
                    | Command::TcpServe(_)
                    | Command::TcpHold(_)
                    | Command::UdpFlow(_)
                    | Command::UdpCount { .. }
                    | Command::TcpFlow(_)
                    | Command::Probe(_) => {
                        bail!("it waits for the end of the input")
                    }
                    command => run(command),
                }
            });
        say(&done.unwrap_or_else(|error| json!({ "failed": format!("{line}: {error:#}") })));
    }
    Ok(())
}

/// One line of JSON.
fn say(value: &Value) {
    println!("{value}");
}

/// The name of an error, such as `EPERM`.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        // `connect_timeout` has its own.
        None if error.kind() == io::ErrorKind::TimedOut => "ETIMEDOUT".to_owned(),
        None => error.to_string(),
    }
}

/// How often each error came.
#[derive(Default)]
struct Errors(BTreeMap<String, u64>);

impl Errors {
    fn note(&mut self, error: &io::Error) {
        *self.0.entry(name(error)).or_default() += 1;
    }
}

/// Becomes true when the standard input is closed.
fn input_closed() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&closed);
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
        seen.store(true, Ordering::Relaxed);
    });
    closed
}
