//! A small real controller: a service on a unix socket with a ledger that merges by maximum.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bulkhead_proto::Endpoint;
use bulkhead_proto::listen::Listener;
use bulkhead_proto::v1::agents_server::{Agents, AgentsServer};
use bulkhead_proto::v1::{self, sync_request, sync_response};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// By what it counts generations.
pub(super) const INSTANCE: u64 = 17;

type Answer = Result<v1::SyncResponse, Status>;
/// Boot, virtual cluster, cgroup, epoch, window, meter.
pub(super) type Key = (String, String, u64, u64, u64, u32);

/// What the controller keeps.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) values: BTreeMap<Key, u64>,
    /// By journal.
    pub(super) high_water: BTreeMap<String, u64>,
    /// Of each stream, in order.
    pub(super) hellos: Vec<v1::Hello>,
    /// Sequences of each stream, as they came.
    pub(super) streams: Vec<Vec<u64>>,
    pub(super) statuses: Vec<v1::NodeStatus>,
    pub(super) pods: Vec<v1::LocalPods>,
    /// To the newest stream.
    answers: Option<mpsc::Sender<Answer>>,
}

/// How the controller behaves.
#[derive(Clone, Debug, Default)]
pub(super) enum Behaviour {
    /// Every batch is acknowledged at once.
    #[default]
    Good,
    /// Nothing is acknowledged.
    Silent,
    /// Hello is not answered.
    Deaf,
    /// This is said in place of Welcome.
    Says(Box<v1::SyncResponse>),
    /// Welcome names this sequence.
    Knows(u64),
    /// Streams break, acknowledgements come late and twice, high-water marks fall.
    Chaos(Arc<Mutex<Random>>),
}

/// Small and repeatable (xorshift).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Clone, Debug)]
pub(super) struct Controller {
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Arc<Mutex<Behaviour>>,
    down: watch::Sender<bool>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    task: JoinHandle<()>,
    down: watch::Sender<bool>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.down.send_replace(true);
        self.task.abort();
    }
}

impl Controller {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            ledger: Arc::default(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            down: watch::Sender::new(false),
        }
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(super) async fn serve(&self, socket: &Path) -> Serving {
        self.down.send_replace(false);
        let listener = Listener::bind(&Endpoint::Unix(socket.to_owned())).await.unwrap();
        let service = AgentsServer::new(self.clone());
        let task = tokio::spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(listener).await.unwrap();
        });
        Serving { task, down: self.down.clone() }
    }

    /// Says something on the newest stream.
    pub(super) async fn say(&self, message: sync_response::Message) {
        let answers = self.ledger().answers.clone().unwrap();
        answers.send(Ok(response(message))).await.unwrap();
    }

    async fn stream(self, mut requests: Streaming<v1::SyncRequest>, answers: mpsc::Sender<Answer>) {
        let behaviour = self.behaviour.lock().unwrap().clone();
        let Ok(Some(first)) = requests.message().await else {
            return;
        };
        let Some(sync_request::Message::Hello(hello)) = first.message else {
            panic!("Hello comes first")
        };
        let (boot, journal) = (hello.facts.clone().unwrap().boot_id, hello.journal_id.clone());
        let known = {
            let mut ledger = self.ledger();
            ledger.hellos.push(hello);
            ledger.streams.push(Vec::new());
            ledger.answers = Some(answers.clone());
            *ledger.high_water.entry(journal.clone()).or_default()
        };
        let welcome = match &behaviour {
            Behaviour::Deaf => std::future::pending().await,
            Behaviour::Says(response) => v1::SyncResponse::clone(response),
            Behaviour::Knows(sequence) => welcome(*sequence),
            _ => welcome(known),
        };
        let _ = answers.send(Ok(welcome)).await;
        while let Ok(Some(request)) = requests.message().await {
            match request.message {
                Some(sync_request::Message::Usage(batch)) => {
                    self.book(&boot, &journal, &batch);
                    if self.answer(&behaviour, &journal, batch.sequence, &answers).await.is_break()
                    {
                        return;
                    }
                }
                Some(sync_request::Message::Status(status)) => self.ledger().statuses.push(status),
                Some(sync_request::Message::Pods(pods)) => self.ledger().pods.push(pods),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn book(&self, boot: &str, journal: &str, batch: &v1::UsageBatch) {
        let mut ledger = self.ledger();
        ledger.streams.last_mut().unwrap().push(batch.sequence);
        for record in &batch.records {
            for value in &record.values {
                let key = (
                    boot.to_owned(),
                    record.virtual_cluster.clone(),
                    record.cgroup_id,
                    record.epoch,
                    record.window_start_unix_nanoseconds,
                    value.meter,
                );
                let merged = ledger.values.entry(key).or_default();
                *merged = value.value.max(*merged);
            }
        }
        let high_water = ledger.high_water.entry(journal.to_owned()).or_default();
        *high_water = batch.sequence.max(*high_water);
    }

    async fn answer(
        &self,
        behaviour: &Behaviour,
        journal: &str,
        sequence: u64,
        answers: &mpsc::Sender<Answer>,
    ) -> std::ops::ControlFlow<()> {
        let acks = match behaviour {
            Behaviour::Silent => vec![],
            Behaviour::Chaos(random) => {
                let choice = random.lock().unwrap().below(12);
                match choice {
                    // It was booked, but nobody learns that.
                    0 => return std::ops::ControlFlow::Break(()),
                    1 => {
                        let mut ledger = self.ledger();
                        let high_water = ledger.high_water.get_mut(journal).unwrap();
                        *high_water = random.lock().unwrap().below(*high_water + 1);
                        return std::ops::ControlFlow::Break(());
                    }
                    // Late: with the next.
                    2..=5 => vec![],
                    6 => vec![sequence, sequence],
                    7 => vec![sequence, sequence.saturating_sub(3)],
                    _ => vec![sequence],
                }
            }
            _ => vec![sequence],
        };
        for sequence in acks {
            let ack = sync_response::Message::UsageAck(v1::UsageAck { sequence });
            let _ = answers.send(Ok(response(ack))).await;
        }
        std::ops::ControlFlow::Continue(())
    }
}

#[tonic::async_trait]
impl Agents for Controller {
    type SyncStream = ReceiverStream<Answer>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        let mut down = self.down.subscribe();
        let controller = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = controller.clone().stream(request.into_inner(), answers) => {}
                _ = down.wait_for(|down| *down) => {}
            }
            controller.ledger().answers = None;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

pub(super) fn response(message: sync_response::Message) -> v1::SyncResponse {
    v1::SyncResponse { message: Some(message) }
}

pub(super) fn welcome(acknowledged_sequence: u64) -> v1::SyncResponse {
    response(sync_response::Message::Welcome(v1::Welcome {
        controller_version: "9.9.9".to_owned(),
        acknowledged_sequence,
        instance: INSTANCE,
    }))
}
