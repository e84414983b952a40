//! The process that tries all the time, in a virtual cluster's cgroup and in a network namespace
//! of its own. It says each change of the verdict, as JSON.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_pdeathsig, set_timerslack};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Between two datagrams.
const SPACING: Duration = Duration::from_micros(40);

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    cgroup: PathBuf,
    #[arg(long)]
    netns: PathBuf,
    #[arg(long)]
    to: SocketAddr,
}

/// A new verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Whether datagrams are denied now.
    pub(super) denied: bool,
    /// When the first was sent, and the last with another verdict: nanoseconds of the monotonic
    /// clock.
    pub(super) at: u64,
    pub(super) before: u64,
}

/// The monotonic clock, which all processes share.
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Sends until it is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("end with our parent")?;
    set_timerslack(1).context("sleep as long as we say")?;
    let procs = args.cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("enter {}", procs.display()))?;
    let namespace = File::open(&args.netns).context("open a network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context("make a socket")?;
    let mut known = None;
    let mut before = 0;
    loop {
        let denied = match socket.send_to(b"?", args.to) {
            Ok(_) => false,
            Err(denied) if denied.kind() == io::ErrorKind::PermissionDenied => true,
            Err(error) => return Err(error).context("send"),
        };
        let at = u64::try_from(now().as_nanos())?;
        if known != Some(denied) {
            let line = serde_json::to_string(&Verdict { denied, at, before })?;
            writeln!(io::stdout().lock(), "{line}").context("say a verdict")?;
            known = Some(denied);
        }
        before = at;
        thread::sleep(SPACING);
    }
}
