//! A controller that watches the API server, and an agent's stream to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bulkhead_controller::{Config, Controller, KubernetesConfig, ServeError, Source};
use bulkhead_proto::connect::connect;
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;
use bulkhead_proto::v1::virtual_cluster_node_status::State;
use bulkhead_proto::{Endpoint, v1};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::api_server::PATIENCE;

/// A controller that runs.
pub(crate) struct Running {
    pub(crate) agents: Endpoint,
    pub(crate) operators: Endpoint,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(place: &Path, replica: &str, kubeconfig: PathBuf) -> Self {
        let config = Config {
            objects: Source::Kubernetes(KubernetesConfig {
                kubeconfig: Some(kubeconfig),
                namespace: Some("default".to_owned()),
                identity: replica.to_owned(),
            }),
            data: place.join(replica),
            agents: Endpoint::Unix(place.join(format!("{replica}.agents"))),
            operators: Endpoint::Unix(place.join(format!("{replica}.operators"))),
            trust: None,
            ledger_page_limit: None,
        };
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

    pub(crate) async fn agent(&self, node: &str) -> Agent {
        let (requests, receiver) = mpsc::channel(64);
        let channel = connect(&self.agents).await.unwrap();
        let answers = AgentsClient::new(channel).sync(ReceiverStream::new(receiver)).await.unwrap();
        let agent = Agent {
            requests,
            answers: answers.into_inner(),
            addresses: BTreeMap::new(),
            bound: BTreeMap::new(),
            shared: BTreeSet::new(),
            ranges: BTreeSet::new(),
            pods: BTreeMap::new(),
        };
        let facts = v1::NodeFacts { boot_id: "boot".to_owned(), ..v1::NodeFacts::default() };
        let hello = v1::Hello {
            node: node.to_owned(),
            facts: Some(facts),
            journal_id: format!("journal-of-{node}"),
            started_unix_nanoseconds: 1,
            takes_deltas: true,
            ..v1::Hello::default()
        };
        agent.send(FromAgent::Hello(hello)).await;
        agent
    }
}

/// An agent that remembers what it is told, and says at once that all of it stands.
pub(crate) struct Agent {
    requests: mpsc::Sender<v1::SyncRequest>,
    answers: Streaming<v1::SyncResponse>,
    /// By virtual cluster.
    pub(crate) addresses: BTreeMap<String, BTreeSet<String>>,
    /// By namespace.
    pub(crate) bound: BTreeMap<String, Vec<String>>,
    pub(crate) shared: BTreeSet<String>,
    pub(crate) ranges: BTreeSet<String>,
    /// The pods that are named to it, by UID.
    pub(crate) pods: BTreeMap<String, v1::NamedPod>,
}

impl Agent {
    async fn send(&self, message: FromAgent) {
        let request = v1::SyncRequest { message: Some(message) };
        self.requests.send(request).await.unwrap();
    }

    /// Hears what comes next; when it came.
    pub(crate) async fn hear(&mut self) -> Instant {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let answer = answer.expect("something is told").unwrap().expect("the stream goes on");
        let came = Instant::now();
        let generation = match answer.message.unwrap() {
            ToAgent::Snapshot(chunk) => self.take_chunk(chunk),
            ToAgent::Delta(delta) => Some(self.take_delta(delta)),
            _ => None,
        };
        if let Some(generation) = generation {
            self.stands(generation).await;
        }
        came
    }

    /// Hears until it is so; when the last of it came.
    pub(crate) async fn hear_until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Instant {
        let mut came = Instant::now();
        while !so(self) {
            let next = tokio::time::timeout(PATIENCE, self.hear()).await;
            came = next.unwrap_or_else(|_| panic!("not told within {PATIENCE:?}: {what}"));
        }
        came
    }

    pub(crate) fn has(&self, virtual_cluster: &str, address: &str) -> bool {
        self.addresses.get(virtual_cluster).is_some_and(|all| all.contains(address))
    }

    /// A pod that is named to it.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&v1::NamedPod> {
        self.pods.values().find(|pod| pod.namespace == namespace && pod.name == name)
    }

    /// How many virtual clusters have an address.
    pub(crate) fn holders(&self, address: &str) -> usize {
        self.addresses.values().filter(|all| all.contains(address)).count()
    }

    fn take_chunk(&mut self, chunk: v1::SnapshotChunk) -> Option<u64> {
        if chunk.first {
            self.addresses.clear();
            self.bound.clear();
            self.shared.clear();
            self.ranges.clear();
            self.pods.clear();
            assert!(chunk.names_pods, "it watches pods");
        }
        chunk.virtual_clusters.into_iter().for_each(|it| self.upsert(it));
        self.bind(chunk.bindings);
        self.shared.extend(chunk.shared);
        self.ranges.extend(chunk.cluster_ranges);
        self.name(chunk.pods);
        chunk.last.then_some(chunk.generation)
    }

    fn take_delta(&mut self, delta: v1::SnapshotDelta) -> u64 {
        delta.upserted.into_iter().for_each(|it| self.upsert(it));
        delta.removed.iter().for_each(|name| drop(self.addresses.remove(name)));
        for change in delta.addresses {
            let all = self.addresses.entry(change.virtual_cluster).or_default();
            all.extend(change.added);
            all.retain(|address| !change.removed.contains(address));
        }
        for namespace in delta.namespaces_unbound {
            self.bound.remove(&namespace);
        }
        for binding in &delta.bindings {
            self.bound.remove(&binding.namespace);
        }
        self.bind(delta.bindings);
        self.shared.extend(delta.shared_added);
        self.shared.retain(|it| !delta.shared_removed.contains(it));
        self.ranges.extend(delta.cluster_ranges_added);
        self.ranges.retain(|it| !delta.cluster_ranges_removed.contains(it));
        for uid in &delta.pods_gone {
            assert!(self.pods.remove(uid).is_some(), "{uid} was not named");
        }
        self.name(delta.pods);
        delta.generation
    }

    fn name(&mut self, pods: Vec<v1::NamedPod>) {
        self.pods.extend(pods.into_iter().map(|pod| (pod.uid.clone(), pod)));
    }

    fn upsert(&mut self, it: v1::AgentVirtualCluster) {
        let addresses = it.spec.unwrap_or_default().addresses;
        self.addresses.insert(it.name, addresses.into_iter().collect());
    }

    fn bind(&mut self, bindings: Vec<v1::NamespaceBinding>) {
        for binding in bindings {
            self.bound.entry(binding.namespace).or_default().push(binding.virtual_cluster);
        }
    }

    async fn stands(&self, generation: u64) {
        let applied = |name: &String| v1::VirtualClusterNodeStatus {
            name: name.clone(),
            state: State::Applied.into(),
            ..v1::VirtualClusterNodeStatus::default()
        };
        let status = v1::NodeStatus {
            applied_generation: generation,
            virtual_clusters: self.addresses.keys().map(applied).collect(),
            ..v1::NodeStatus::default()
        };
        self.send(FromAgent::Status(status)).await;
    }
}
