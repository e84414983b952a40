//! Whatever happens to a demo, somebody is there who cleans up: the process that people start
//! only starts another one, waits for its end, and sweeps.

use std::env;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::leftovers;

/// Set for the process that does the work.
const WORKER: &str = "BULKHEAD_DEMO_WORKER";

/// Signals that end a demo early, orderly.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Runs `work` in a process of its own, as whose child this same program is started again, and
/// sweeps up after it, however it ended.
pub fn supervise(work: impl FnOnce() -> Result<bool>) -> Result<ExitCode> {
    if env::var_os(WORKER).is_some() {
        ending().thread_unblock().context("unblock signals")?;
        return Ok(if work()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    leftovers::sweep_dead()?;
    ending().thread_block().context("block signals")?;
    // What outlives its parent becomes our child, and is ended with the rest.
    prctl::set_child_subreaper(true).context("adopt orphans")?;
    let mut worker = Command::new(env::current_exe().context("find own program")?)
        .args(env::args_os().skip(1))
        .env(WORKER, "1")
        .spawn()
        .context("start the demo")?;
    let pid = worker.id();
    forward_signals(Pid::from_raw(i32::try_from(pid)?));
    let status = worker.wait().context("wait for the demo")?;
    let swept = leftovers::sweep(pid);
    reap();
    swept.context("sweep up")?;
    if status.code().is_none() {
        eprintln!("the demo was ended: {status}; everything of it is gone");
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ending() -> SigSet {
    ENDING.into_iter().collect()
}

/// Passes on what should end us, for as long as this process lives.
fn forward_signals(worker: Pid) {
    thread::spawn(move || {
        while let Ok(signal) = ending().wait() {
            if kill(worker, signal).is_err() {
                break;
            }
        }
    });
}

/// Takes leave of adopted processes; those of ours have been killed.
fn reap() {
    for _ in 0..100 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(20)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
