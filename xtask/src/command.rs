//! The one way in which xtask runs other programs.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::progress::{self, Step};

/// How many of a failed command's last lines its error shows.
const TAIL_LINES: usize = 30;

/// A command to run, and why we run it.
pub(crate) struct Cmd {
    command: Command,
    why: String,
}

impl Cmd {
    /// A command; `why` completes "this is run to …".
    pub(crate) fn new(program: impl AsRef<OsStr>, why: impl Into<String>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(paths::root());
        Self { command, why: why.into() }
    }

    /// A command that changes the machine: through `sudo` where we are not root.
    pub(crate) fn privileged(program: &str, why: impl Into<String>) -> Result<Self> {
        let why = why.into();
        if is_root() {
            return Ok(Self::new(program, why));
        }
        if find("sudo").is_none() {
            bail!("{program} needs root to {why}: run this as root, or install sudo");
        }
        Ok(Self::new("sudo", why).arg(program))
    }

    /// A tool of this project's own cache, else of the machine.
    pub(crate) fn tool(name: &str, why: impl Into<String>) -> Result<Self> {
        let path = find(name).with_context(|| {
            format!("{name} is missing; `cargo xtask setup` gets it (`--check` says what and why)")
        })?;
        Ok(Self::new(path, why))
    }

    /// Adds one argument.
    #[must_use]
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub(crate) fn env_remove(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Runs it in `dir` instead of the root of the work tree.
    #[must_use]
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Ends it after so many seconds.
    pub(crate) fn within(self, seconds: &str) -> Result<Self> {
        let why = self.why.clone();
        let mut timed = Self::tool("timeout", why)?.arg(seconds);
        timed.command.arg(self.command.get_program()).args(self.command.get_args());
        Ok(timed)
    }

    /// Runs it with this process's own input and output; an error status is an error.
    pub(crate) fn show(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| self.cannot_start())?;
        if status.success() { Ok(()) } else { Err(self.failure(status, "")) }
    }

    /// Runs it and returns its standard output; an error status is an error.
    pub(crate) fn read(mut self) -> Result<String> {
        let output =
            self.command.stdin(Stdio::null()).output().with_context(|| self.cannot_start())?;
        if !output.status.success() {
            return Err(self.failure(output.status, &String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it as one step with progress; what it prints is shown only when it fails.
    pub(crate) fn step(self, what: impl Into<String>) -> Result<()> {
        progress::during(what, |step| self.quietly(step))
    }

    /// Runs it inside a step that is already shown.
    pub(crate) fn quietly(mut self, step: &Step) -> Result<()> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.cannot_start())?;
        let lines = lines_of([
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]);
        let mut tail = VecDeque::new();
        for line in lines {
            step.note(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait().with_context(|| format!("wait for {}", self.text()))?;
        let tail = Vec::from(tail).join("\n");
        if status.success() { Ok(()) } else { Err(self.failure(status, &tail)) }
    }

    /// The bare command, for a caller that watches it by itself.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// The command as a person would type it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.command.get_envs() {
            if let Some(value) = value {
                let _ = write!(text, "{}={} ", key.display(), quoted(&value.to_string_lossy()));
            }
        }
        text.push_str(&self.command.get_program().to_string_lossy());
        for arg in self.command.get_args() {
            text.push(' ');
            text.push_str(&quoted(&arg.to_string_lossy()));
        }
        text
    }

    fn cannot_start(&self) -> String {
        format!("cannot start `{}`, run to {}", self.text(), self.why)
    }

    fn failure(&self, status: ExitStatus, output: &str) -> anyhow::Error {
        let mut text = format!("`{}`, run to {}, ended with {status}", self.text(), self.why);
        let lines: Vec<&str> = output.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            let _ = write!(text, "\n    {line}");
        }
        anyhow::Error::msg(text)
    }
}

/// The lines of several pipes, in the order in which they come.
fn lines_of<const N: usize>(pipes: [Option<Box<dyn Read + Send>>; N]) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    for pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Where `program` is: the project's own tools first, then the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let own = paths::tools().ok().map(|tools| tools.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps administrators' programs out of a plain user's search path.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    own.into_iter()
        .chain(env::split_paths(&path))
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Whether this process may change the machine by itself.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// `word` as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_command_reason_and_last_lines() {
        let error = Cmd::new("sh", "show a failure")
            .args(["-c", "echo first; echo last >&2; exit 3"])
            .quietly(&Step::begin("fail"))
            .expect_err("exit 3 is a failure");
        let text = error.to_string();
        assert!(text.starts_with("`sh -c 'echo first; echo last >&2; exit 3'`"), "{text}");
        assert!(text.contains("run to show a failure, ended with exit status: 3"), "{text}");
        assert!(text.contains("    first") && text.contains("    last"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("no-such-program", "see it fail").read().expect_err("is missing");
        assert_eq!(error.to_string(), "cannot start `no-such-program`, run to see it fail");
    }

    #[test]
    fn quoting_round_trips_through_a_shell() {
        let word = "a 'b' \"c\" $d";
        let said = Cmd::new("sh", "quote").arg("-c").arg(format!("printf %s {}", quoted(word)));
        assert_eq!(said.read().expect("printf works"), word);
    }
}
