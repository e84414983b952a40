//! A process that joins a cgroup and burns a little CPU time again and again, until its input is
//! closed.

use std::fs;
use std::hint::black_box;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cgroup.
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf,
    /// A processor to stay off, if there is another.
    #[arg(long)]
    off: Option<usize>,
    /// CPU time of one turn, microseconds.
    #[arg(long, default_value_t = 100)]
    burn: u64,
    /// Pause between turns, milliseconds.
    #[arg(long, default_value_t = 100)]
    pause: u64,
    /// Small packets that it sends to this host each turn.
    #[arg(long, default_value_t = 0)]
    send: u32,
}

/// Burns until it is killed; it dies with its parent.
pub(crate) fn run(args: &Args) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("die with the parent")?;
    let procs = args.cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("join {}", args.cgroup.display()))?;
    if let Some(off) = args.off {
        stay_off(off)?;
    }
    // Nobody listens there, and nobody has to.
    let socket = UdpSocket::bind("127.0.0.1:0").context("make a socket")?;
    loop {
        for _ in 0..args.send {
            // What comes back is an error of the packet before.
            let _ = socket.send_to(b"0123456789abcdef", ("127.0.0.1", 9));
        }
        let end = Instant::now() + Duration::from_micros(args.burn);
        let mut spun = 0_u64;
        while Instant::now() < end {
            spun = black_box(spun.wrapping_add(1));
        }
        thread::sleep(Duration::from_millis(args.pause));
    }
}

/// The parent may be kept on one processor, which its children inherit.
fn stay_off(processor: usize) -> Result<()> {
    let mut others = CpuSet::new();
    for one in (0..processors()?).filter(|one| *one != processor) {
        others.set(one).context("choose processors")?;
    }
    sched_setaffinity(Pid::from_raw(0), &others).context("stay off a processor")
}

/// How many processors this machine has.
pub(super) fn processors() -> Result<usize> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).context("ask for processors")?;
    Ok(usize::try_from(online.context("nobody knows how many processors there are")?)?)
}
