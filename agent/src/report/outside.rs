//! What reporting takes from outside: a connection, chance, and a place for work that blocks.
//! Passed in, so that a simulation of the whole protocol can be replayed.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;

use bulkhead_proto::Endpoint;
use bulkhead_proto::connect::{ConnectError, connect};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::remote::Introducing;
use crate::journal::{Chunk, JournalError};

/// A channel that is being connected.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, ConnectError>> + Send>>;

/// Reading from the journal, which blocks.
pub type Reading = Box<dyn FnOnce() -> Result<Chunk, JournalError> + Send>;

/// What reporting takes from outside.
pub trait Outside: fmt::Debug + Send + Sync {
    /// Connects to the controller.
    fn connect(&self, endpoint: &Endpoint) -> Connecting;

    /// What the stream's first headers say of who we are; nothing where that needs no proof.
    fn introduce(&self, _: &Endpoint) -> Introducing {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Any number, another each time.
    fn random(&self) -> u64;

    /// Begins to read, where that holds nothing else up.
    fn read(&self, reading: Reading) -> JoinHandle<Result<Chunk, JournalError>>;
}

/// The world as it is.
#[derive(Clone, Copy, Debug)]
pub struct World;

impl Outside for World {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let endpoint = endpoint.clone();
        Box::pin(async move { connect(&endpoint).await })
    }

    fn random(&self) -> u64 {
        // The hasher's keys are random; more is not needed to spread some waits.
        RandomState::new().build_hasher().finish()
    }

    fn read(&self, reading: Reading) -> JoinHandle<Result<Chunk, JournalError>> {
        tokio::task::spawn_blocking(reading)
    }
}
