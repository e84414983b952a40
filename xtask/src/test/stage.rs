//! Running one program of a stage: bounded in time, its words kept in files, its newest line
//! shown.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::progress::{self, Step};

/// How often we look whether it has ended.
const POLL: Duration = Duration::from_millis(100);

/// How long it has after SIGTERM.
const GRACE_SECONDS: u64 = 20;

/// How many last lines an error shows.
const TAIL_LINES: usize = 30;

/// Where what it prints goes.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    /// Standard output.
    pub(crate) stdout: &'a Path,
    /// Standard error.
    pub(crate) stderr: &'a Path,
}

impl<'a> Output<'a> {
    /// Both into one file, in the order in which they come.
    pub(crate) fn together(log: &'a Path) -> Self {
        Self { stdout: log, stderr: log }
    }
}

/// How it ended.
pub(crate) struct Finished {
    status: ExitStatus,
    why: String,
    tail: String,
}

impl Finished {
    /// Whether it ended well.
    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// An error unless it ended well, with its last lines.
    pub(crate) fn success(self) -> Result<()> {
        if self.is_success() { Ok(()) } else { bail!("{}\n{}", self.why, self.tail) }
    }

    /// How it ended, in words.
    pub(crate) fn told(&self) -> &str {
        &self.why
    }
}

/// Runs it as a shown step, at most for `limit`.
pub(crate) fn run(what: &str, cmd: Cmd, limit: Duration, output: Output<'_>) -> Result<Finished> {
    let text = cmd.text();
    let mut command = bounded(&cmd.into_command(), limit);
    let stderr = create(output.stderr)?;
    let stdout = if output.stdout == output.stderr {
        stderr.try_clone().context("share a log file")?
    } else {
        create(output.stdout)?
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let status = progress::during(what, |step| watch(&mut command, output.stderr, step))
        .with_context(|| format!("run `{text}`"))?;
    let log = output.stderr.display();
    let why = match status.code() {
        // What `timeout` says of one that it had to end.
        Some(124 | 137) => format!("`{text}` was ended after {limit:?}; all of it: {log}"),
        _ => format!("`{text}` ended with {status}; all of it: {log}"),
    };
    Ok(Finished { status, why, tail: tail(output.stderr) })
}

/// Through `timeout`, which ends it although we might have been ended before. In the foreground,
/// so that a person's Ctrl-C reaches it.
fn bounded(command: &Command, limit: Duration) -> Command {
    let mut timeout = Command::new("timeout");
    timeout.args(["--foreground", &format!("--kill-after={GRACE_SECONDS}")]);
    timeout.arg(limit.as_secs().to_string());
    timeout.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => timeout.env(key, value),
            None => timeout.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        timeout.current_dir(dir);
    }
    timeout
}

fn watch(command: &mut Command, log: &Path, step: &Step) -> Result<ExitStatus> {
    let mut child = command.spawn().context("start `timeout` (Debian: coreutils)")?;
    let mut shown = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for it")? {
            return Ok(status);
        }
        if shown.elapsed() > 5 * POLL {
            shown = Instant::now();
            step.note(last_line(log).as_deref().unwrap_or_default());
        }
        thread::sleep(POLL);
    }
}

fn create(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let options = File::options().create(true).write(true).truncate(true).clone();
    options.open(path).with_context(|| format!("create {}", path.display()))
}

/// The last line of a file that may be long.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1024))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    String::from_utf8_lossy(&end).lines().next_back().map(str::to_owned)
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Finished, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("sub/log");
        let cmd = Cmd::new("sh", "try it").args(["-c", script]);
        let finished = run("trying", cmd, limit, Output::together(&log)).expect("sh runs");
        (finished, fs::read_to_string(&log).expect("a log"))
    }

    #[test]
    fn words_are_kept_and_the_status_is_told() {
        let (finished, log) = shell("echo out; echo err >&2; exit 3", Duration::from_mins(1));
        assert_eq!(log, "out\nerr\n");
        let error = finished.success().expect_err("3 is no success").to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("out\nerr"), "{error}");
    }

    #[test]
    fn what_hangs_is_ended() {
        let (finished, _) = shell("sleep 60", Duration::from_secs(1));
        assert!(!finished.is_success());
        assert!(finished.told().contains("was ended after 1s"), "{}", finished.told());
    }
}
