//! One agent's stream, from Hello to its end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_core::usage::UsageRecord;
use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status, Streaming};

use super::hello::{Introduced, introduced};
use super::telling::{News, Telling};
use super::{Sync, chunks, pods};
use crate::faults::{self, Point};
use crate::ledger::{Batch, KnownNode, Ledger, LedgerError, StreamKey};
use crate::outside::blocking;
use crate::reason;
use crate::state::World;
use crate::status::{self, Stream};
use crate::trust::Attested;

/// How long an agent may take to say Hello.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most characters of what is told of a record that cannot be booked: its name may be anything.
const MAX_TOLD: usize = 500;

/// Most records of one batch that are logged because they cannot be booked.
const MOST_LOGGED: usize = 10;

/// Why a stream ends.
enum End {
    /// The agent has gone, or cannot be written to.
    Gone,
    /// We end it.
    Refused(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// What came from the agent.
enum Received {
    Message(Box<FromAgent>),
    /// A message of a kind that only a later version knows: it is skipped.
    Unknown,
    /// The agent has ended the stream.
    End,
}

/// An agent that is connected.
pub(super) struct Session {
    service: Sync,
    attested: Attested,
    requests: Streaming<v1::SyncRequest>,
    answers: mpsc::Sender<Result<v1::SyncResponse, Status>>,
}

impl Session {
    pub(super) fn new(
        service: Sync,
        attested: Attested,
        requests: Streaming<v1::SyncRequest>,
        answers: mpsc::Sender<Result<v1::SyncResponse, Status>>,
    ) -> Self {
        Self { service, attested, requests, answers }
    }

    /// Runs until the stream ends. What was not acknowledged stays in the agent's journal.
    pub(super) async fn run(mut self) {
        let mut node = String::new();
        match self.talk(&mut node).await {
            End::Gone => tracing::info!(node, "agent has gone"),
            End::Refused(status) => {
                tracing::warn!(node, code = ?status.code(), "stream ended: {}", status.message());
                // Nobody may be there to hear it, or nobody who listens.
                let _ = tokio::time::timeout(PATIENCE, self.answers.send(Err(status))).await;
            }
        }
        pods::forget_later(&self.service, &node);
    }

    async fn talk(&mut self, node: &mut String) -> End {
        let agent = match self.introduction().await {
            Ok(agent) => agent,
            Err(end) => return end,
        };
        node.clone_from(&agent.stream.node);
        match self.converse(agent).await {
            Ok(()) => End::Gone,
            Err(end) => end,
        }
    }

    async fn introduction(&mut self) -> Result<Introduced, End> {
        let mut ending = self.service.ending.clone();
        let first = tokio::select! {
            biased;
            first = tokio::time::timeout(PATIENCE, self.requests.message()) => first,
            () = ended(&mut ending) => return Err(going_away().into()),
        };
        let first = first.map_err(|_| no_hello("there was none within 10 seconds"))?;
        let message = match self.received(first)? {
            Received::End => return Err(End::Gone),
            Received::Message(message) => Some(*message),
            Received::Unknown => None,
        };
        match message {
            Some(FromAgent::Hello(hello)) => {
                let introduced = introduced(hello)?;
                // Whose node it is, the session knows; the message must agree.
                self.attested.must_be(&introduced.stream.node)?;
                Ok(introduced)
            }
            _ => Err(no_hello("another message came first").into()),
        }
    }

    async fn converse(&mut self, agent: Introduced) -> Result<(), End> {
        self.check_name(&agent.stream).await?;
        let (stream, mut replaced) = self.register(&agent).await?;
        let key = agent.stream.clone();
        let acknowledged = self.blocking(move |ledger| ledger.acknowledged(&key)).await?;
        let state = Arc::clone(&self.service.state);
        let telling = Telling::new(&state.resumable, &agent);
        let held = telling.generation();
        tracing::info!(node = stream.node(), acknowledged, held, "agent is connected");
        if held != 0 {
            stream.sent(held);
        }
        self.answer(ToAgent::Welcome(v1::Welcome {
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            acknowledged_sequence: acknowledged,
            instance: state.resumable.instance,
        }))
        .await?;
        let mut worlds = state.subscribe();
        let mut ending = self.service.ending.clone();
        let mut review = self.attested.watch();
        worlds.mark_changed();
        loop {
            // An agent that takes nothing any more keeps nobody from ending its stream.
            tokio::select! {
                biased;
                () = ended(&mut ending) => return Err(going_away().into()),
                _ = &mut replaced => return Err(was_replaced(stream.node()).into()),
                status = review.lost() => return Err(status.into()),
                next = self.next(&mut worlds, &stream, &agent.stream, &telling) => {
                    if next?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Tells the agent what changed, or hears it, once.
    async fn next(
        &mut self,
        worlds: &mut watch::Receiver<Arc<World>>,
        stream: &Stream,
        key: &StreamKey,
        telling: &Telling<'_>,
    ) -> Result<ControlFlow<()>, End> {
        tokio::select! {
            biased;
            changed = worlds.changed() => {
                if changed.is_err() {
                    return Err(going_away().into());
                }
                let world = worlds.borrow_and_update().clone();
                self.tell(stream, &world, telling).await?;
            }
            message = self.requests.message() => match self.received(message)? {
                Received::End => return Ok(ControlFlow::Break(())),
                Received::Message(message) => {
                    if let FromAgent::Status(status) = &*message {
                        telling.acknowledged(status.applied_generation);
                    }
                    self.take(stream, key, *message).await?;
                }
                Received::Unknown => {
                    tracing::debug!(node = stream.node(), "a message of a later version");
                }
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Refuses a journal that another node's usage came from: the same counters would be booked
    /// again, as those of a second node.
    async fn check_name(&self, stream: &StreamKey) -> Result<(), End> {
        let key = stream.clone();
        let Some(before) = self.blocking(move |ledger| ledger.other_node(&key)).await? else {
            return Ok(());
        };
        let StreamKey { node, journal, .. } = stream;
        let message = format!(
            "node \"{node}\" reports from journal \"{journal}\", which is of node \"{before}\": its \
             usage would be booked twice; start its agent with --node {before}, or, where it is \
             another machine or was booted since, remove its --state-dir"
        );
        let about = [("node", node.as_str()), ("known_as", before.as_str())];
        Err(reason::refused(Code::FailedPrecondition, "NODE_RENAMED", message, about).into())
    }

    /// Makes the node known, and its stream this one. Where the ledger cannot store who it is,
    /// the node is told what it must know all the same: it comes again with its usage, which
    /// cannot be stored then either.
    async fn register(&self, agent: &Introduced) -> Result<(Stream, oneshot::Receiver<()>), End> {
        let Introduced { stream: StreamKey { node, .. }, facts, started, .. } = agent;
        let nodes = &self.service.nodes;
        let registered = nodes.connect(node, facts.clone(), *started, self.now()).map_err(|older| {
            let younger = older.younger_started.to_string();
            let message = format!(
                "a younger agent process of node \"{node}\" (began {younger}) is connected; stop \
                 this one"
            );
            let about = [("node", node.as_str()), ("younger_started", younger.as_str())];
            reason::refused(Code::FailedPrecondition, "AGENT_OLDER", message, about)
        })?;
        let known = KnownNode { name: node.clone(), last_seen: self.now(), facts: facts.clone() };
        let state = Arc::clone(&self.service.state);
        self.blocking(move |ledger| {
            let remembered = ledger.remember_node(&known);
            let told = state.set_node_addresses(&known.name, status::addresses(&known.facts));
            for error in [remembered, told].into_iter().filter_map(Result::err) {
                tracing::error!(node = known.name, "{}", reason::chain(&error));
            }
            Ok(())
        })
        .await?;
        Ok(registered)
    }

    async fn take(&self, stream: &Stream, key: &StreamKey, message: FromAgent) -> Result<(), End> {
        match message {
            FromAgent::Hello(_) => Err(no_hello("it came twice").into()),
            FromAgent::Status(status) => {
                stream.stands(status, self.now());
                Ok(())
            }
            FromAgent::Pods(said) => {
                stream.seen(self.now());
                let Some(pods) = pods::take(stream, &said) else { return Ok(()) };
                let (state, node) = (Arc::clone(&self.service.state), stream.node().to_owned());
                self.blocking(move |_| state.set_local_pods(&node, &pods)).await
            }
            FromAgent::Usage(batch) => {
                stream.seen(self.now());
                let (batch, left_out) = checked(&batch)?;
                let (key, now) = (key.clone(), self.now());
                let merged = self.blocking(move |ledger| ledger.merge(&key, &batch, now)).await?;
                if !merged.duplicate && !left_out.is_empty() {
                    let (node, records) = (stream.node(), left_out.len());
                    for record in left_out.iter().take(MOST_LOGGED) {
                        tracing::error!(node, records, "not booked: {record}");
                    }
                    stream.left_out(&left_out);
                }
                faults::pass(Point::UsageAcknowledge);
                let sequence = merged.acknowledged;
                self.answer(ToAgent::UsageAck(v1::UsageAck { sequence })).await?;
                faults::pass(Point::UsageAcknowledged);
                Ok(())
            }
        }
    }

    async fn tell(
        &self,
        stream: &Stream,
        world: &Arc<World>,
        telling: &Telling<'_>,
    ) -> Result<(), End> {
        let most = self.service.outside.chunk_bytes();
        let (view, news) = telling.news(world, most);
        match news {
            News::None => return Ok(()),
            News::Delta(delta) => {
                faults::pass(Point::SnapshotTell);
                self.answer(ToAgent::Delta(*delta)).await?;
            }
            News::Whole => {
                for chunk in chunks::chunks(&view, most) {
                    faults::pass(Point::SnapshotTell);
                    self.answer(ToAgent::Snapshot(chunk)).await?;
                }
            }
        }
        stream.sent(view.world.generation);
        telling.was_sent(view);
        Ok(())
    }

    fn received(&self, message: Result<Option<v1::SyncRequest>, Status>) -> Result<Received, End> {
        match message {
            Ok(None) => Ok(Received::End),
            Ok(Some(v1::SyncRequest { message: Some(message) })) => {
                Ok(Received::Message(Box::new(message)))
            }
            Ok(Some(v1::SyncRequest { message: None })) => Ok(Received::Unknown),
            // The connection broke, or what came is no message; tonic's status says which.
            Err(_) if self.answers.is_closed() => Err(End::Gone),
            Err(status) => Err(status.into()),
        }
    }

    async fn answer(&self, message: ToAgent) -> Result<(), End> {
        let response = v1::SyncResponse { message: Some(message) };
        self.answers.send(Ok(response)).await.map_err(|_| End::Gone)
    }

    fn now(&self) -> u64 {
        self.service.outside.now()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, End> {
        let ledger = Arc::clone(&self.service.ledger);
        match blocking(&self.service.outside, move || work(&ledger)).await {
            Ok(done) => done.map_err(|error| reason::ledger(&error).into()),
            Err(_) => Err(Status::internal("the ledger's task ended early").into()),
        }
    }
}

/// The records of a batch that can be booked, and why others cannot be: they would be no better
/// when they are sent again, so what comes after them in the journal must not wait for them. A
/// batch that cannot be acknowledged is garbage.
fn checked(batch: &v1::UsageBatch) -> Result<(Batch, Vec<String>), Status> {
    let sequence = batch.sequence;
    if sequence == 0 || i64::try_from(sequence).is_err() {
        let message = format!("usage batch: sequence {sequence} is not between 1 and 2^63-1");
        let about = [("sequence", &*sequence.to_string())];
        return Err(reason::refused(Code::InvalidArgument, "USAGE_INVALID", message, about));
    }
    let (mut records, mut left_out) = (Vec::new(), Vec::new());
    for (index, record) in batch.records.iter().enumerate() {
        match UsageRecord::try_from(record) {
            Ok(record) => records.push(record),
            Err(mut error) => {
                error.object = error.object.chars().take(MAX_TOLD / 2).collect();
                let told = format!("usage batch {sequence}: record {index}: {error}");
                left_out.push(told.chars().take(MAX_TOLD).collect());
            }
        }
    }
    Ok((Batch { sequence, records }, left_out))
}

/// Waits until the controller ends.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error means that whoever would tell has gone, which is an end too.
    let _ = ending.wait_for(|ending| *ending).await;
}

fn no_hello(problem: &str) -> Status {
    let message = format!("hello: {problem}; a stream begins with one Hello");
    reason::refused(Code::FailedPrecondition, "HELLO_MISSING", message, [])
}

fn going_away() -> Status {
    let message = "the controller ends; connect again";
    reason::refused(Code::Unavailable, "CONTROLLER_ENDING", message, [])
}

fn was_replaced(node: &str) -> Status {
    let message = format!("another stream of node \"{node}\" has taken over");
    reason::refused(Code::Aborted, "AGENT_REPLACED", message, [("node", node)])
}
