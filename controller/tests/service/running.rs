//! A controller that runs, and agents and operators that talk with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_controller::{Config, Controller, ServeError};
use bulkhead_proto::connect::connect;
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::nodes_client::NodesClient;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;
use bulkhead_proto::v1::usage_client::UsageClient;
use bulkhead_proto::v1::virtual_clusters_client::VirtualClustersClient;
use bulkhead_proto::{Endpoint, v1};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The directories of a controller.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.objects()).unwrap();
        place
    }

    /// With some virtual clusters, one file each.
    pub(crate) fn with(names: &[&str]) -> Self {
        let place = Self::new();
        for name in names {
            place.write(&format!("{name}.yaml"), &cluster(name, "{}"));
        }
        place
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.path().join("objects")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // As editors and kubelets do: whole, under its name at once.
        let beside = self.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.objects().join(name)).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            objects: self.objects().into(),
            data: self.path().join("data"),
            agents: Endpoint::Unix(self.path().join("agents.sock")),
            operators: Endpoint::Unix(self.path().join("operators.sock")),
            trust: None,
            ledger_page_limit: None,
        }
    }

    pub(crate) async fn start(&self) -> Running {
        Running::start(self.config()).await
    }
}

/// A virtual cluster as people write it; `spec` in one line.
pub(crate) fn cluster(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata: {{name: {name}}}\n\
         spec: {spec}\n"
    )
}

/// A controller that runs.
pub(crate) struct Running {
    pub(crate) agents: Endpoint,
    pub(crate) operators: Endpoint,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let controller = Controller::start(config).await.unwrap();
        let (agents, operators) = (controller.agents().clone(), controller.operators().clone());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(controller.run(shutdown));
        Self { agents, operators, stop, task }
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    pub(crate) async fn operator(&self) -> Channel {
        connect(&self.operators).await.unwrap()
    }

    pub(crate) async fn clusters(&self) -> VirtualClustersClient<Channel> {
        VirtualClustersClient::new(self.operator().await)
    }

    pub(crate) async fn nodes(&self) -> NodesClient<Channel> {
        NodesClient::new(self.operator().await)
    }

    /// CPU time that each virtual cluster used, ever.
    pub(crate) async fn used(&self) -> Vec<(String, u64)> {
        let mut client = UsageClient::new(self.operator().await);
        let answer = client.query_usage(v1::QueryUsageRequest::default()).await.unwrap();
        let rows = answer.into_inner().rows.into_iter();
        rows.map(|row| (row.virtual_cluster, row.cpu.unwrap().usage_nanoseconds)).collect()
    }

    /// An agent that has said nothing yet.
    pub(crate) async fn silent_agent(&self) -> Agent {
        let (requests, receiver) = mpsc::channel(64);
        let channel = connect(&self.agents).await.unwrap();
        let answers = AgentsClient::new(channel).sync(ReceiverStream::new(receiver)).await.unwrap();
        Agent { requests, answers: answers.into_inner() }
    }

    /// An agent that has said Hello.
    pub(crate) async fn agent(&self, hello: v1::Hello) -> Agent {
        let agent = self.silent_agent().await;
        agent.send(FromAgent::Hello(hello)).await;
        agent
    }
}

/// An agent's end of the stream.
pub(crate) struct Agent {
    pub(crate) requests: mpsc::Sender<v1::SyncRequest>,
    pub(crate) answers: Streaming<v1::SyncResponse>,
}

impl Agent {
    pub(crate) async fn send(&self, message: FromAgent) {
        self.send_raw(v1::SyncRequest { message: Some(message) }).await;
    }

    pub(crate) async fn send_raw(&self, request: v1::SyncRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<ToAgent, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.unwrap();
        Ok(answer?.expect("the stream goes on").message.expect("a message that is known"))
    }

    pub(crate) async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await.unwrap() {
            ToAgent::Welcome(welcome) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// The next whole snapshot.
    pub(crate) async fn snapshot(&mut self) -> v1::SnapshotChunk {
        let mut whole = v1::SnapshotChunk::default();
        loop {
            let ToAgent::Snapshot(chunk) = self.next().await.unwrap() else {
                continue;
            };
            assert_eq!(chunk.first, whole.generation == 0);
            whole.generation = chunk.generation;
            whole.virtual_clusters.extend(chunk.virtual_clusters);
            whole.shared.extend(chunk.shared);
            whole.cluster_ranges.extend(chunk.cluster_ranges);
            whole.node_addresses.extend(chunk.node_addresses);
            if chunk.last {
                return whole;
            }
        }
    }

    /// Sends a batch and waits until it is durable.
    pub(crate) async fn report(&mut self, batch: v1::UsageBatch) -> u64 {
        self.send(FromAgent::Usage(batch)).await;
        loop {
            if let ToAgent::UsageAck(ack) = self.next().await.unwrap() {
                return ack.sequence;
            }
        }
    }

    /// Why the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub(crate) fn hello(node: &str) -> v1::Hello {
    v1::Hello {
        node: node.to_owned(),
        facts: Some(v1::NodeFacts {
            boot_id: "boot-1".to_owned(),
            addresses: vec!["127.0.0.1".to_owned()],
            ..Default::default()
        }),
        journal_id: format!("journal-of-{node}"),
        started_unix_nanoseconds: 1_000,
        ..v1::Hello::default()
    }
}

/// One record of CPU time.
pub(crate) fn usage(sequence: u64, cluster: (&str, u32), start: u64, total: u64) -> v1::UsageBatch {
    let record = v1::UsageRecord {
        virtual_cluster: cluster.0.to_owned(),
        virtual_cluster_number: cluster.1,
        cgroup_id: 7,
        epoch: 0,
        window_start_unix_nanoseconds: start,
        window_nanoseconds: 60,
        values: vec![v1::MeterValue { meter: 1, value: total }],
    };
    v1::UsageBatch { sequence, records: vec![record] }
}

/// The reason that a status carries.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, bulkhead_controller::DOMAIN);
    info.reason.clone()
}
