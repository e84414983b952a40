//! How streams end.

use bulkhead_proto::bearer::BearerError;
use bulkhead_proto::connect::ConnectError;

use super::assemble::Disorder;
use crate::journal::JournalError;

/// Why a stream ended and is to be tried again later.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("say who we are")]
    Bearer(#[from] BearerError),
    #[error("the stream to the controller broke")]
    Stream(#[source] Box<tonic::Status>),
    #[error("the controller ended the stream")]
    Ended,
    #[error("the controller gave no answer to {to} for {seconds} s")]
    Silence { to: String, seconds: u64 },
    #[error("the controller talks wrongly: it said {found} where a Welcome has to come")]
    NoWelcome { found: &'static str },
    #[error("the controller talks wrongly: it said Welcome twice")]
    SecondWelcome,
    #[error("the controller talks wrongly: it acknowledged batch {sequence}, which was never sent")]
    NeverSent { sequence: u64 },
    #[error("the controller talks wrongly")]
    Disorder(#[from] Disorder),
    #[error("read what is to be reported")]
    Journal(#[from] JournalError),
    #[error("the reader of the journal ended")]
    Reader(#[from] tokio::task::JoinError),
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

/// Why a stream ended and another begins at once.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody takes events any more.
    Closed,
    /// Hello would be another now.
    FactsChanged,
    /// What is to be sent next was counted in another boot.
    OtherBoot(String),
}
