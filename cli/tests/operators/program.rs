//! The compiled program, run against a server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// What a run left.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it answered.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    /// The answer of a run that did what it should, and complained of nothing.
    pub(crate) fn answer(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// The one line of a run that failed with this code.
    pub(crate) fn complaint(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.stderr.strip_prefix("bulkheadctl: ").expect("the program's name");
        let line = line.strip_suffix('\n').expect("a line");
        assert!(!line.contains('\n'), "more than a line: {line}");
        line
    }
}

/// The program with a server, in universal time, in no terminal.
pub(crate) fn program(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkheadctl"));
    command.env("BULKHEAD_SERVER", server).env("TZ", "UTC").env("COLUMNS", "100");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(server: &str, arguments: &[&str]) -> Run {
    program(server, arguments).output().expect("the program runs").into()
}

/// A run that goes on by itself; ended with this value.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    complaints: BufReader<ChildStderr>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(server: &str, arguments: &[&str]) -> Self {
        let mut command = program(server, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("its output");
        let stderr = child.stderr.take().expect("its complaints");
        Self { child, lines: BufReader::new(stdout), complaints: BufReader::new(stderr) }
    }

    /// The next line; waits for it.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }

    /// The next line of its complaints; waits for it.
    pub(crate) fn complaint(&mut self) -> String {
        let mut line = String::new();
        self.complaints.read_line(&mut line).expect("a line");
        line
    }

    /// Sends it a signal by its name, as a shell does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status();
        assert!(sent.expect("a shell").success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Run {
        // The rest of its output first, or it could wait for a reader.
        let mut rest = String::new();
        while self.lines.read_line(&mut rest).expect("a line") > 0 {}
        let status = self.child.wait().expect("an end");
        let mut stderr = String::new();
        while self.complaints.read_line(&mut stderr).expect("a line") > 0 {}
        Run { code: status.code(), stdout: rest, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only one that a failed test left is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
