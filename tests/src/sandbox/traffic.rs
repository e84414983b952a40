//! `bh-traffic` in a cgroup and a network namespace of choice.

use std::env;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::network::Host;

/// A way to send and receive from one place.
#[derive(Clone, Debug)]
pub struct Traffic {
    cgroup: Option<PathBuf>,
    namespace: PathBuf,
}

impl Traffic {
    pub(super) fn new(cgroup: Option<PathBuf>, host: &Host) -> Self {
        Self { cgroup, namespace: host.namespace() }
    }

    /// Runs `bh-traffic` to its end, and returns what it saw.
    pub fn run(&self, line: &str) -> Result<Value> {
        self.start(line)?.finish()
    }

    /// Starts `bh-traffic`; it ends by itself, or with [`Running::finish`].
    pub fn start(&self, line: &str) -> Result<Running> {
        let mut command = Command::new(program()?);
        command.arg("--netns").arg(&self.namespace);
        if let Some(cgroup) = &self.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let mut child = command
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start bh-traffic {line}"))?;
        let lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
        Ok(Running { child, lines, line: line.to_owned() })
    }
}

/// A running `bh-traffic`; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    line: String,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line that it prints.
    pub fn wait_for_line(&mut self) -> Result<Value> {
        let Some(line) = self.lines.next() else {
            bail!("bh-traffic {} ended without a word: {}", self.line, self.child.wait()?);
        };
        let line = line?;
        serde_json::from_str(&line).with_context(|| format!("bh-traffic said {line:?}"))
    }

    /// Closes its input, which ends what goes on until then, and returns its last line.
    pub fn finish(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut last = self.wait_for_line()?;
        while let Some(line) = self.lines.next().transpose()? {
            last = serde_json::from_str(&line)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "bh-traffic {} ended with {status}", self.line);
        Ok(last)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program beside the test that runs, as cargo places it.
fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("find the running test")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir: &Path| dir.join("bh-traffic"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("bh-traffic is not beside {}: `cargo build -p bulkhead-tests`", own.display())
        })
}
