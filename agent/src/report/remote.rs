//! A controller over TLS: who it is, and who we are.

use std::path::PathBuf;
use std::pin::Pin;

use bulkhead_proto::Endpoint;
use bulkhead_proto::bearer::{self, BearerError};
use bulkhead_proto::connect::{Authorities, connect_with};
use tokio::task::JoinHandle;
use tonic::metadata::{Ascii, MetadataValue};

use super::outside::{Connecting, Outside, Reading, World};
use crate::journal::{Chunk, JournalError};

/// A token that is being read.
pub type Introducing =
    Pin<Box<dyn Future<Output = Result<Option<MetadataValue<Ascii>>, BearerError>> + Send>>;

/// The world, with a controller that may be on another machine. Files are read again for each
/// stream: they are replaced while we run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// Who may say who the controller is.
    pub authorities: Option<PathBuf>,
    /// The token that says who we are; sent over TLS only.
    pub token: Option<PathBuf>,
}

impl Outside for Remote {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let endpoint = endpoint.clone();
        let authorities = self.authorities.clone().map(Authorities::File);
        Box::pin(async move { connect_with(&endpoint, authorities.as_ref()).await })
    }

    fn introduce(&self, endpoint: &Endpoint) -> Introducing {
        let token = self.token.clone().filter(|_| endpoint.is_tls());
        Box::pin(async move {
            match token {
                Some(path) => bearer::read(&path).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn random(&self) -> u64 {
        World.random()
    }

    fn read(&self, reading: Reading) -> JoinHandle<Result<Chunk, JournalError>> {
        World.read(reading)
    }
}
