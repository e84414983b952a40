//! One stream, from Hello to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bulkhead_core::Snapshot;
use bulkhead_proto::bearer;
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::{self, sync_request, sync_response};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::assemble::{Assembler, Disorder, Progress};
use super::ending::{End, SessionError};
use super::pods::Pods;
use super::window::Window;
use super::{ReportEvent, ReportOptions, chain};
use crate::journal::{Chunk, JournalError, Sequence};

/// Messages that wait for the transport.
const OUTBOUND: usize = 4;
/// Events that wait for their owner before no more messages are read.
const OUTBOX: usize = 8;
/// What is read from the journal at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// What outlives streams and belongs into each status.
#[derive(Debug, Default)]
pub(super) struct Standing {
    refused: Option<v1::Reason>,
    ahead: Option<v1::Reason>,
    /// What was carried on last, and by what its generation is counted.
    held: Option<(u64, Arc<Snapshot>)>,
}

/// One stream.
pub(super) struct Session<'a> {
    options: &'a ReportOptions,
    events: &'a mpsc::Sender<ReportEvent>,
    standing: &'a mut Standing,
    outbound: mpsc::Sender<v1::SyncRequest>,
    inbound: Streaming<v1::SyncResponse>,
    /// The boot that Hello named.
    boot: String,
    appended: watch::Receiver<Sequence>,
    status: watch::Receiver<v1::NodeStatus>,
    facts: watch::Receiver<v1::NodeFacts>,
    heartbeat: Interval,
    window: Window,
    /// Everything up to here was read.
    position: Sequence,
    reading: Option<JoinHandle<Result<Chunk, JournalError>>>,
    /// The journal's last batch when reading began.
    reading_to: Sequence,
    queue: VecDeque<v1::UsageBatch>,
    assembler: Assembler,
    /// By what this stream's generations are counted.
    instance: u64,
    /// The last snapshot that was carried on: what else came goes with the stream.
    carried: Option<Arc<Snapshot>>,
    pods: Pods,
    outbox: VecDeque<ReportEvent>,
    status_due: bool,
}

impl<'a> Session<'a> {
    /// Connects and reports until something ends it. `boot`: of the batches that are to be sent
    /// first; `None`: there are none, so it is that of now.
    pub(super) async fn run(
        options: &'a ReportOptions,
        events: &'a mpsc::Sender<ReportEvent>,
        standing: &'a mut Standing,
        welcomed: &mut Option<Instant>,
        boot: Option<String>,
    ) -> Result<End, SessionError> {
        let mut session = Self::open(options, events, standing, boot).await?;
        let welcome = session.welcome().await?;
        *welcomed = Some(Instant::now());
        session.begin(welcome);
        let end = session.work().await;
        session.keep(&end);
        end
    }

    /// Keeps what is held for the next stream. Where that was taken for something else, the next
    /// one says that nothing is, and is told everything.
    fn keep(&mut self, end: &Result<End, SessionError>) {
        let misfits = matches!(end, Err(SessionError::Disorder(Disorder::Misfit { .. })));
        // Without a number nobody could say what it was counted by.
        if self.instance != 0 && !misfits {
            self.standing.held = self.carried.take().map(|held| (self.instance, held));
        }
    }

    async fn open(
        options: &'a ReportOptions,
        events: &'a mpsc::Sender<ReportEvent>,
        standing: &'a mut Standing,
        boot: Option<String>,
    ) -> Result<Self, SessionError> {
        let channel = options.outside.connect(&options.endpoint).await?;
        let mut facts = options.facts.clone();
        let mut hello_facts = facts.borrow_and_update().clone();
        let boot = boot.unwrap_or_else(|| hello_facts.boot_id.clone());
        hello_facts.boot_id.clone_from(&boot);
        let hello = v1::Hello {
            node: options.node.clone(),
            facts: Some(hello_facts),
            journal_id: options.journal.journal_id().to_string(),
            started_unix_nanoseconds: options.started_unix_nanoseconds,
            takes_deltas: true,
            held_generation: standing.held.as_ref().map_or(0, |(_, held)| held.generation),
            held_instance: standing.held.as_ref().map_or(0, |(instance, _)| *instance),
        };
        let (outbound, requests) = mpsc::channel(OUTBOUND);
        // It is empty, so this does not wait.
        let _ = outbound.send(request(sync_request::Message::Hello(hello))).await;
        let mut client = AgentsClient::new(channel);
        let mut requests = Request::new(ReceiverStream::new(requests));
        if let Some(token) = options.outside.introduce(&options.endpoint).await? {
            requests.metadata_mut().insert(bearer::KEY, token);
        }
        let stream = client.sync(requests);
        let inbound = patiently(options, "Hello", stream).await??.into_inner();
        let mut heartbeat = interval(options.pace.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pace = options.pace;
        Ok(Self {
            appended: options.journal.appended(),
            status: options.status.clone(),
            window: Window::new(pace.window_batches, pace.window_bytes, 0),
            position: Sequence(0),
            reading: None,
            reading_to: Sequence(0),
            queue: VecDeque::new(),
            assembler: Assembler::default(),
            instance: 0,
            carried: None,
            pods: Pods::new(options.pods.clone()),
            outbox: VecDeque::new(),
            status_due: true,
            options,
            events,
            standing,
            outbound,
            inbound,
            boot,
            facts,
            heartbeat,
        })
    }

    async fn welcome(&mut self) -> Result<v1::Welcome, SessionError> {
        let answer = async {
            loop {
                // A message without content is of a kind that we do not know yet.
                if let Some(message) =
                    self.inbound.message().await?.ok_or(SessionError::Ended)?.message
                {
                    return Ok::<_, SessionError>(message);
                }
            }
        };
        match patiently(self.options, "Hello", answer).await?? {
            sync_response::Message::Welcome(welcome) => Ok(welcome),
            sync_response::Message::Snapshot(_) => {
                Err(SessionError::NoWelcome { found: "a snapshot" })
            }
            sync_response::Message::Delta(_) => Err(SessionError::NoWelcome { found: "a change" }),
            sync_response::Message::UsageAck(_) => {
                Err(SessionError::NoWelcome { found: "an acknowledgement" })
            }
        }
    }

    fn begin(&mut self, welcome: v1::Welcome) {
        let pace = self.options.pace;
        self.instance = welcome.instance;
        self.assembler = match self.standing.held.take_if(|(by, _)| *by == welcome.instance) {
            Some((_, held)) => {
                self.carried = Some(Arc::clone(&held));
                Assembler::resuming(held)
            }
            None => Assembler::default(),
        };
        self.standing.held = None;
        let acknowledged = Sequence(welcome.acknowledged_sequence);
        self.position = acknowledged;
        self.window = Window::new(pace.window_batches, pace.window_bytes, acknowledged.0);
        self.outbox.push_back(ReportEvent::Connected {
            since: SystemTime::now(),
            controller_version: welcome.controller_version,
        });
        let last = self.options.journal.last();
        self.standing.ahead = None;
        if acknowledged > last {
            let message = format!(
                "the controller has batches of this journal up to {acknowledged}, but the journal \
                 ends at {last}: it was restored from an older copy; numbering goes on behind the \
                 controller's"
            );
            tracing::error!(message);
            self.standing.ahead = Some(v1::Reason { subject: "journal".to_owned(), message });
            self.outbox.push_back(ReportEvent::ControllerAhead { acknowledged, last });
        } else if acknowledged > Sequence(0) {
            self.outbox.push_back(ReportEvent::Acknowledged(acknowledged));
        }
    }

    async fn work(&mut self) -> Result<End, SessionError> {
        loop {
            if let Some(other) = self.other_boot() {
                return Ok(End::OtherBoot(other));
            }
            self.read();
            let patience = self.window.deadline(self.options.pace.patience);
            tokio::select! {
                // In this order none of them waits for ever: everything before the inbound
                // messages ends with time, or needs one of them to go on.
                biased;
                sequence = passed(patience) => {
                    let seconds = self.options.pace.patience.as_secs();
                    return Err(SessionError::Silence { to: format!("batch {sequence}"), seconds });
                }
                Ok(()) = self.facts.changed() => return Ok(End::FactsChanged),
                permit = self.events.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return Ok(End::Closed) };
                    if let Some(event) = self.outbox.pop_front() {
                        if let ReportEvent::Snapshot(snapshot) = &event {
                            self.carried = Some(Arc::clone(snapshot));
                        }
                        permit.send(event);
                    }
                }
                permit = self.outbound.clone().reserve_owned(), if self.may_send() => {
                    let Ok(permit) = permit else { return Err(SessionError::Ended) };
                    if let Some(message) = self.next() {
                        permit.send(request(message));
                    }
                }
                message = self.inbound.message(), if self.outbox.len() < OUTBOX => {
                    self.take(message?.ok_or(SessionError::Ended)?)?;
                }
                read = finished(&mut self.reading) => self.queue_read(read??),
                _ = self.appended.changed() => {}
                Ok(()) = self.status.changed() => self.status_due = true,
                () = self.pods.changed() => {}
                _ = self.heartbeat.tick() => self.status_due = true,
            }
        }
    }

    /// Whether this stream's Hello names another boot than what is to be sent next needs, and
    /// nothing is on its way any more.
    fn other_boot(&self) -> Option<String> {
        let idle = self.queue.is_empty() && self.reading.is_none() && self.window.is_empty();
        if !idle || !self.outbox.is_empty() {
            return None;
        }
        let next = self.options.journal.boot_after(self.position);
        let wanted = next.unwrap_or_else(|| self.facts.borrow().boot_id.clone());
        (wanted != self.boot).then_some(wanted)
    }

    /// Begins to read what follows, where that is of this stream's boot.
    fn read(&mut self) {
        let journal = &self.options.journal;
        let last = *self.appended.borrow_and_update();
        if self.reading.is_some() || !self.queue.is_empty() || self.position >= last {
            return;
        }
        if journal.boot_after(self.position).is_none_or(|boot| boot == self.boot) {
            self.reading_to = last;
            let (journal, after) = (journal.clone(), self.position);
            let read = move || journal.read_after(after, CHUNK_BYTES);
            self.reading = Some(self.options.outside.read(Box::new(read)));
        }
    }

    fn queue_read(&mut self, chunk: Chunk) {
        for sentence in chunk.unreadable {
            tracing::error!(sentence, "part of the journal cannot be sent");
            self.outbox.push_back(ReportEvent::Unreadable(sentence));
        }
        match chunk.batches.last() {
            // The journal may have changed since it was looked at.
            Some(_) if chunk.boot != self.boot => {}
            Some(batch) => {
                self.position = Sequence(batch.sequence);
                self.queue = chunk.batches.into();
            }
            None => self.position = self.reading_to,
        }
    }

    fn may_send(&self) -> bool {
        let batch = self.queue.front();
        self.pods.are_due()
            || self.status_due
            || batch.is_some_and(|batch| self.window.admits(batch.encoded_len()))
    }

    fn next(&mut self) -> Option<sync_request::Message> {
        if let Some(pods) = self.pods.news() {
            return Some(sync_request::Message::Pods(pods));
        }
        if self.status_due {
            self.status_due = false;
            return Some(sync_request::Message::Status(self.status()));
        }
        let batch = self.queue.pop_front()?;
        self.window.sent(batch.sequence, batch.encoded_len(), Instant::now());
        Some(sync_request::Message::Usage(batch))
    }

    fn status(&mut self) -> v1::NodeStatus {
        let mut status = self.status.borrow_and_update().clone();
        status.journal_backlog_records = self.options.journal.backlog_records();
        let standing = [&self.standing.refused, &self.standing.ahead];
        status.reasons.extend(standing.into_iter().flatten().cloned());
        status
    }

    fn take(&mut self, response: v1::SyncResponse) -> Result<(), SessionError> {
        match response.message {
            Some(sync_response::Message::Welcome(_)) => Err(SessionError::SecondWelcome),
            Some(sync_response::Message::UsageAck(ack)) => self.acknowledged(ack.sequence),
            Some(sync_response::Message::Snapshot(chunk)) => {
                let progress = self.assembler.push(chunk)?;
                self.progressed(progress);
                Ok(())
            }
            Some(sync_response::Message::Delta(delta)) => {
                let progress = self.assembler.change(&delta)?;
                self.progressed(progress);
                Ok(())
            }
            // Of a kind that we do not know yet.
            None => Ok(()),
        }
    }

    fn progressed(&mut self, progress: Progress) {
        match progress {
            Progress::Incomplete => {}
            Progress::Complete(snapshot) => {
                self.status_due |= self.standing.refused.take().is_some();
                self.outbox.push_back(ReportEvent::Snapshot(snapshot));
            }
            Progress::Refused(generation, refusal) => self.refused(generation, &refusal),
        }
    }

    fn acknowledged(&mut self, sequence: u64) -> Result<(), SessionError> {
        let news = self.window.acknowledge(sequence).ok_or(SessionError::NeverSent { sequence })?;
        if news {
            let event = ReportEvent::Acknowledged(Sequence(sequence));
            match self.outbox.back_mut() {
                Some(last @ ReportEvent::Acknowledged(_)) => *last = event,
                _ => self.outbox.push_back(event),
            }
        }
        Ok(())
    }

    fn refused(&mut self, generation: u64, refusal: &super::Refusal) {
        let reason = chain(refusal);
        tracing::error!(generation, reason, "the controller's snapshot is refused");
        let message =
            format!("generation {generation} is refused, the one before it stays: {reason}");
        self.standing.refused = Some(v1::Reason { subject: "snapshot".to_owned(), message });
        self.status_due = true;
        self.outbox.push_back(ReportEvent::SnapshotRefused { generation, reason });
    }
}

const fn request(message: sync_request::Message) -> v1::SyncRequest {
    v1::SyncRequest { message: Some(message) }
}

async fn patiently<F: Future>(
    options: &ReportOptions,
    to: &str,
    answer: F,
) -> Result<F::Output, SessionError> {
    let patience = options.pace.patience;
    let silence = |_| SessionError::Silence { to: to.to_owned(), seconds: patience.as_secs() };
    timeout(patience, answer).await.map_err(silence)
}

/// What was read; never, where nothing is being read.
async fn finished<T>(reading: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    let Some(handle) = reading else {
        return std::future::pending().await;
    };
    let read = handle.await;
    *reading = None;
    read
}

/// The batch whose deadline has passed; never, where there is none.
async fn passed(deadline: Option<(Instant, u64)>) -> u64 {
    let Some((at, sequence)) = deadline else {
        return std::future::pending().await;
    };
    sleep_until(at).await;
    sequence
}
