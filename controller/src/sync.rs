//! The stream between an agent and the controller.

mod chunks;
mod hello;
mod pods;
mod session;
mod telling;

use std::sync::Arc;

use bulkhead_proto::v1;
use bulkhead_proto::v1::agents_server::Agents;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::state::State;
use crate::status::Nodes;
use crate::trust::Attested;
use session::Session;

/// Answers that may wait for the network. Snapshot chunks are the largest, 1 MiB each.
const WAITING: usize = 3;

/// The service on the agents' port.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) state: Arc<State>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) outside: Arc<dyn Outside>,
    /// Becomes true when the controller ends.
    pub(crate) ending: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Agents for Sync {
    type SyncStream = ReceiverStream<Result<v1::SyncResponse, Status>>;

    /// Answers before Hello has come: a client may wait for that before it sends anything.
    async fn sync(
        &self,
        request: Request<Streaming<v1::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (answers, receiver) = mpsc::channel(WAITING);
        let attested = Attested::of(&request)?;
        let session = Session::new(self.clone(), attested, request.into_inner(), answers);
        tokio::spawn(session.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
