//! Refusals that programs can tell apart: gRPC statuses with `google.rpc.ErrorInfo`.

use std::error::Error;
use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::ledger::LedgerError;
use crate::query::{QueryError, QuestionError};

/// The domain of every reason.
pub const DOMAIN: &str = bulkhead_api::GROUP;

/// A status with a reason and what it is about.
pub(crate) fn refused<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    about: [(&str, &str); N],
) -> Status {
    let about = about.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let details = ErrorDetails::with_error_info(reason, DOMAIN, about);
    Status::with_error_details(code, message, details)
}

/// An error and all its sources, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // Writing to a text cannot fail.
        let _ = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}

/// There is no such virtual cluster.
pub(crate) fn unknown_virtual_cluster(name: &str) -> Status {
    let message = format!("there is no virtual cluster \"{name}\"");
    let about = [("virtual_cluster", name)];
    refused(Code::NotFound, "VIRTUAL_CLUSTER_UNKNOWN", message, about)
}

/// There is no such node.
pub(crate) fn unknown_node(name: &str) -> Status {
    let message = format!("no node \"{name}\" ever reported");
    refused(Code::NotFound, "NODE_UNKNOWN", message, [("node", name)])
}

/// The page token of a list is none.
pub(crate) fn no_token() -> Status {
    question(&QuestionError::PageToken)
}

/// A question has no answer.
pub(crate) fn question(error: &QuestionError) -> Status {
    let (reason, field) = match error {
        QuestionError::Range { field, .. } => ("RANGE_INVALID", *field),
        QuestionError::GroupBy { .. } => ("GROUP_BY_INVALID", "group_by"),
        QuestionError::Name { field, .. } => ("NAME_INVALID", *field),
        QuestionError::PageToken => ("PAGE_TOKEN_INVALID", "page_token"),
    };
    refused(Code::InvalidArgument, reason, error.to_string(), [("field", field)])
}

/// The ledger holds what has no sum.
pub(crate) fn query(error: &QueryError) -> Status {
    match error {
        QueryError::Overflow { meter, .. } => {
            let about = [("meter", meter.as_str())];
            refused(Code::OutOfRange, "USAGE_TOO_LARGE", error.to_string(), about)
        }
    }
}

/// The ledger did not do something. The agent's journal keeps what was not acknowledged.
pub(crate) fn ledger(error: &LedgerError) -> Status {
    let (code, reason) = match error {
        LedgerError::Full { .. } => (Code::ResourceExhausted, "LEDGER_FULL"),
        LedgerError::ReadOnly { .. } => (Code::Unavailable, "LEDGER_READ_ONLY"),
        LedgerError::Damaged { .. } => (Code::DataLoss, "LEDGER_DAMAGED"),
        LedgerError::Identity(_) => (Code::ResourceExhausted, "NUMBERS_EXHAUSTED"),
        _ => (Code::Unavailable, "LEDGER_FAILED"),
    };
    refused(code, reason, chain(error), [])
}
