//! The programs that are shown, and the two of them that go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::child::wait;

/// How many of a program's last lines an error shows.
const TAIL_LINES: usize = 12;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    const ALL: [&str; 6] = [
        "bulkhead-agent",
        "bulkhead-controller",
        "bulkheadctl",
        "bh-traffic",
        "bh-load",
        "bulkhead.bpf.o",
    ];

    /// In `dir`, all of them.
    pub(crate) fn find(dir: &Path) -> Result<Self> {
        for name in Self::ALL {
            let path = dir.join(name);
            ensure!(
                path.is_file(),
                "{} is missing; `cargo xtask demo` puts everything in place",
                path.display()
            );
        }
        Ok(Self(std::path::absolute(dir)?))
    }

    /// The path of one of them.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A program that goes on until it is ended; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it prints is added to a log in `dir`.
    pub(crate) fn start(name: &'static str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Whether it still runs; the error of one that ended by itself shows its last lines.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(
            ended.is_none(),
            "{} ended by itself ({}):\n{}",
            self.name,
            ended.map(|status| status.to_string()).unwrap_or_default(),
            self.tail()
        );
        Ok(())
    }

    /// How it ended, if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines of what it has printed.
    pub(crate) fn last_words(&self) -> String {
        self.tail()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Kills it, and returns when it is dead.
    pub(crate) fn kill(mut self, patience: Duration) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = wait(&mut self.child, patience);
        status.with_context(|| format!("wait for the killed {}", self.name)).map(drop)
    }

    /// Asks it to end, and returns how it did.
    pub(crate) fn end(mut self, patience: Duration) -> Result<ExitStatus> {
        self.check()?;
        self.signal(Signal::SIGTERM)?;
        let status = wait(&mut self.child, patience);
        status.with_context(|| format!("wait for the end of {}:\n{}", self.name, self.tail()))
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
