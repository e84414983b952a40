//! A child that speaks JSON, one line at a time, and that nobody waits for in vain.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A running child; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Speaker {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    patience: Duration,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The last line that it said.
    pub(crate) last: Value,
    /// Its exit status.
    pub(crate) status: ExitStatus,
}

impl Ended {
    /// The signal that killed it; `bulkhead-agent exec` passes it on as 128 and its number.
    pub(crate) fn signal(&self) -> Option<i32> {
        let passed_on = self.status.code().and_then(|code| code.checked_sub(128));
        self.status.signal().or(passed_on.filter(|signal| *signal > 0))
    }
}

impl Speaker {
    /// Starts it; no answer may take longer than `patience`.
    pub(crate) fn start(
        mut command: Command,
        what: impl Into<String>,
        patience: Duration,
    ) -> Result<Self> {
        let what = what.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {what}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { what, child, input, lines, patience })
    }

    /// Waits for its next line.
    pub(crate) fn next(&mut self) -> Result<Value> {
        if let Some(line) = self.line()? {
            return self.parse(&line);
        }
        let status = self.wait()?;
        bail!("{} ended without a word: {status}", self.what)
    }

    /// Waits so long for its next line; `None` if there is none.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Result<Option<Value>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => self.parse(&line).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended without a word", self.what),
        }
    }

    /// Says a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Value> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}").with_context(|| format!("say \"{line}\" to {}", self.what))?;
        let answer = self.next()?;
        if let Some(failed) = answer["failed"].as_str() {
            bail!("{}: {failed}", self.what);
        }
        Ok(answer)
    }

    /// Closes its input, which ends what goes on until then, and gives its last line; it must
    /// end well.
    pub(crate) fn finish(self) -> Result<Value> {
        let what = self.what.clone();
        let ended = self.end()?;
        ensure!(ended.status.success(), "{what} ended with {}", ended.status);
        Ok(ended.last)
    }

    /// As [`Self::finish`], however it ends.
    pub(crate) fn end(mut self) -> Result<Ended> {
        drop(self.input.take());
        let mut last = Value::Null;
        while let Some(line) = self.line()? {
            last = self.parse(&line)?;
        }
        Ok(Ended { last, status: self.wait()? })
    }

    fn line(&self) -> Result<Option<String>> {
        match self.lines.recv_timeout(self.patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} said nothing for {} s", self.what, self.patience.as_secs())
            }
        }
    }

    fn parse(&self, line: &str) -> Result<Value> {
        serde_json::from_str(line).with_context(|| format!("{} said {line:?}", self.what))
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        wait(&mut self.child, self.patience).with_context(|| format!("wait for {}", self.what))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // The process itself may be a child of this one, in a cgroup: it ends when its input
        // does, or with its cgroup.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child to end.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "it has not ended within {} s", patience.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Speaker {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Speaker::start(command, "a shell", Duration::from_secs(10)).expect("sh starts")
    }

    #[test]
    fn it_answers_and_ends_when_its_input_does() {
        let mut echo = shell("while read line; do echo \"$line\"; done; echo '{\"end\": 1}'");
        assert_eq!(echo.ask("{\"a\": 1}").expect("an answer")["a"], 1);
        assert!(echo.ask("{\"failed\": \"on purpose\"}").is_err());
        assert_eq!(echo.finish().expect("ends well")["end"], 1);
    }

    #[test]
    fn a_signal_is_seen_directly_and_passed_on() {
        assert_eq!(shell("kill -9 $$").end().expect("ends").signal(), Some(9));
        assert_eq!(shell("exit 137").end().expect("ends").signal(), Some(9));
        assert_eq!(shell("exit 1").end().expect("ends").signal(), None);
        assert_eq!(shell("exit 0").end().expect("ends").signal(), None);
    }
}
