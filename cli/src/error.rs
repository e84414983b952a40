//! What can go wrong, as one line for people and one number for scripts.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use bulkhead_proto::Endpoint;
use bulkhead_proto::connect::ConnectError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::units;

/// What kind of failure it is: the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server answered with an error, or what it sent cannot be used.
    Server,
    /// What was asked for makes no sense.
    Usage,
    /// The object does not exist.
    NotFound,
    /// Nobody answers, or no longer.
    Away,
    /// The answer cannot be written out.
    Output,
    /// Whoever read the answer has read enough.
    ReaderGone,
}

impl Kind {
    /// The exit codes of the help text.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => 0,
            Self::Server | Self::Output => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Away => 4,
        })
    }
}

/// One failure: what was done, on which object, what went wrong, and what mends it.
#[derive(Debug)]
pub(crate) struct CliError {
    /// For the exit code.
    pub(crate) kind: Kind,
    operation: String,
    problem: String,
    mend: Option<String>,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, problem, .. } = self;
        write!(f, "{}: {}", units::plain(operation), units::plain(problem))?;
        match &self.mend {
            Some(mend) => write!(f, "; {}", units::plain(mend)),
            None => Ok(()),
        }
    }
}

impl Error for CliError {}

impl CliError {
    /// A failure that only the caller can name.
    pub(crate) fn new(
        kind: Kind,
        operation: impl Into<String>,
        problem: impl fmt::Display,
    ) -> Self {
        Self { kind, operation: operation.into(), problem: problem.to_string(), mend: None }
    }

    /// The same with what mends it.
    pub(crate) fn mended_by(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// The same, where the object does not exist, with where to find those that do.
    pub(crate) fn listed_by(self, command: &str) -> Self {
        if self.kind != Kind::NotFound || self.mend.is_some() {
            return self;
        }
        self.mended_by(format!("see `{command}` for those that are there"))
    }

    /// No connection came about.
    pub(crate) fn connect(server: &Endpoint, error: &ConnectError) -> Self {
        let mend = match server {
            Endpoint::Unix(_) => {
                "is the controller running, and may you open its socket? \
                 (--server or BULKHEAD_SERVER names another)"
            }
            Endpoint::Loopback(_) => {
                "is the controller running? (--server or BULKHEAD_SERVER names another)"
            }
            Endpoint::Tls(_) => error.mend(),
        };
        Self::new(Kind::Away, format!("connect to {server}"), root_cause(error)).mended_by(mend)
    }

    /// No answer within the time that `--timeout` gives.
    pub(crate) fn timeout(operation: impl Into<String>, server: &Endpoint) -> Self {
        Self::new(Kind::Away, operation, format!("{server} did not answer in time"))
            .mended_by("give it longer with --timeout, or ask for less at once")
    }

    /// The server's answer, or what the connection made of it.
    pub(crate) fn from_status(operation: impl Into<String>, status: &Status) -> Self {
        // Only what was made on this side has a source: the connection broke.
        if let Some(cause) = status.source() {
            return Self::new(Kind::Away, operation, root_cause(cause))
                .mended_by("the controller went away; run the same command again");
        }
        let kind = match status.code() {
            Code::NotFound => Kind::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Kind::Away,
            _ => Kind::Server,
        };
        let details = status.get_error_details();
        let error = Self::new(kind, operation, problem(status, &details));
        match mend(status, &details) {
            Some(mend) => error.mended_by(mend),
            None => error,
        }
    }
}

/// The server's message, the fields that it names, and its reason in brackets.
fn problem(status: &Status, details: &ErrorDetails) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let violations = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    for violation in
        violations.filter(|violation| !status.message().contains(&violation.description))
    {
        text.push_str("; ");
        text.push_str(&violation.field);
        text.push_str(": ");
        text.push_str(&violation.description);
    }
    if let Some(info) = details.error_info()
        && !info.reason.is_empty()
    {
        text.push_str(" (");
        text.push_str(&info.reason);
        text.push(')');
    }
    text
}

/// What the server says would mend it, or what the code says by itself.
fn mend(status: &Status, details: &ErrorDetails) -> Option<String> {
    let said = details.error_info().and_then(|info| info.metadata.get("mend"));
    if let Some(mend) = said {
        return (!status.message().contains(mend.as_str())).then(|| mend.clone());
    }
    match status.code() {
        Code::Unimplemented => {
            Some("this controller is older than this command; use one of its version".to_owned())
        }
        Code::Unauthenticated => {
            Some("name a token for this server with --token-file, or use --kubernetes".to_owned())
        }
        Code::Unavailable => Some("run the same command again in a moment".to_owned()),
        _ => None,
    }
}

/// The innermost cause: the outer ones say "transport error" and nothing else.
fn root_cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn rich(code: Code, message: &str, details: ErrorDetails) -> String {
        let status = Status::with_error_details(code, message, details);
        CliError::from_status("query usage", &status).to_string()
    }

    #[test]
    fn reasons_and_fields_are_unwrapped() {
        let mut details =
            ErrorDetails::with_error_info("STEP_TOO_SHORT", "bulkhead.dev", HashMap::new());
        details.add_bad_request_violation("step", "must be 10s at least");
        assert_eq!(
            rich(Code::InvalidArgument, "bad request", details),
            "query usage: bad request; step: must be 10s at least (STEP_TOO_SHORT)"
        );
    }

    #[test]
    fn the_servers_mend_is_said_once() {
        let mend = HashMap::from([("mend".to_owned(), "start the query again".to_owned())]);
        let details = ErrorDetails::with_error_info("PAGE_TOKEN_STALE", "bulkhead.dev", mend);
        assert_eq!(
            rich(Code::FailedPrecondition, "the page token is stale", details.clone()),
            "query usage: the page token is stale (PAGE_TOKEN_STALE); start the query again"
        );
        assert_eq!(
            rich(Code::FailedPrecondition, "stale; start the query again", details),
            "query usage: stale; start the query again (PAGE_TOKEN_STALE)"
        );
    }

    #[test]
    fn errors_stay_on_one_line() {
        let text = rich(Code::Internal, "first\nsecond\x1b[31m", ErrorDetails::new());
        assert_eq!(text, "query usage: first second\u{fffd}[31m");
    }

    #[test]
    fn codes_become_kinds() {
        let kind = |code| CliError::from_status("x", &Status::new(code, "y")).kind;
        assert_eq!(kind(Code::NotFound), Kind::NotFound);
        assert_eq!(kind(Code::Unavailable), Kind::Away);
        assert_eq!(kind(Code::Internal), Kind::Server);
        assert_eq!(kind(Code::InvalidArgument), Kind::Server);
    }
}
