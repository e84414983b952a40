//! Ports over TLS: who is let in, as whom, and what they see.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bulkhead_controller::trust::authority::{Lives, Material};
use bulkhead_controller::trust::{
    AUDIENCE, Access, PodName, ReviewError, Reviewer, ServiceAccount, User,
};
use bulkhead_controller::{Controller, ServeError, TrustConfig};
use bulkhead_proto::connect::{Authorities, connect_with};
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::nodes_client::NodesClient;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::usage_client::UsageClient;
use bulkhead_proto::v1::virtual_clusters_client::VirtualClustersClient;
use bulkhead_proto::{Endpoint, v1};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::running::{Agent, Place, hello, reason, usage};

const AGENTS: &str = "system:serviceaccount:bulkhead-system:bulkhead-agent";

/// An API server in small. A token says by itself who bears it and what they may:
/// `agent:NODE`, `pod:NAME`, or `sees:NAME,NAME;nodes`, where `*` is every name.
#[derive(Debug, Default)]
struct Cluster {
    away: AtomicBool,
    pods: Mutex<BTreeMap<String, String>>,
}

#[tonic::async_trait]
impl Reviewer for Cluster {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(ReviewError { operation: "ask", problem: "nobody is there".to_owned() });
        }
        let extra = |pairs: &[(&str, &str)]| {
            let key = |key: &str| format!("authentication.kubernetes.io/{key}");
            pairs.iter().map(|(name, value)| (key(name), vec![(*value).to_owned()])).collect()
        };
        let user = |name: &str, extra| User { name: name.to_owned(), extra, ..User::default() };
        Ok(match token.split_once(':') {
            Some(("agent", node)) => Some(user(AGENTS, extra(&[("node-name", node)]))),
            Some(("pod", pod)) => {
                Some(user(AGENTS, extra(&[("pod-name", pod), ("pod-uid", "uid")])))
            }
            Some(("unbound", _)) => Some(user(AGENTS, BTreeMap::new())),
            Some(("sees", rights)) => Some(user(rights, BTreeMap::new())),
            _ => None,
        })
    }

    async fn may(&self, user: &User, access: &Access) -> Result<bool, ReviewError> {
        let (names, nodes) = user.name.split_once(';').unwrap_or((&user.name, ""));
        let has = |list: &str, name: &str| list.split(',').any(|one| one == name);
        Ok(match access {
            Access::EveryVirtualCluster => has(names, "*"),
            Access::VirtualCluster(name) => has(names, "*") || has(names, name),
            Access::EveryNode => has(nodes, "*"),
            Access::Node(name) => has(nodes, "*") || has(nodes, name),
        })
    }

    async fn node_of_pod(&self, pod: &PodName) -> Result<Option<String>, ReviewError> {
        assert_eq!((pod.namespace.as_str(), pod.uid.as_str()), ("bulkhead-system", "uid"));
        Ok(self.pods.lock().unwrap().get(&pod.name).cloned())
    }
}

struct Trusted {
    place: Place,
    cluster: Arc<Cluster>,
    agents: Endpoint,
    operators: Endpoint,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Trusted {
    async fn start(place: Place, self_signed: bool) -> Self {
        let endpoint = Endpoint::parse("https://127.0.0.1:0").unwrap();
        let trust = TrustConfig {
            directory: place.path().join("tls"),
            self_signed: if self_signed { vec!["127.0.0.1".to_owned()] } else { Vec::new() },
            audience: AUDIENCE.to_owned(),
            agents: "bulkhead-system/bulkhead-agent".parse::<ServiceAccount>().unwrap(),
        };
        let mut config = place.config();
        (config.agents, config.operators) = (endpoint.clone(), endpoint);
        config.trust = Some(trust);
        let cluster = Arc::new(Cluster::default());
        let reviewer: Arc<dyn Reviewer> = Arc::<Cluster>::clone(&cluster);
        let controller = Controller::start_with(config, Some(reviewer)).await.unwrap();
        let (agents, operators) = (controller.agents().clone(), controller.operators().clone());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(controller.run(shutdown));
        Self { place, cluster, agents, operators, stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    async fn channel(&self, endpoint: &Endpoint) -> Channel {
        let authorities = Authorities::File(self.place.path().join("tls/ca.crt"));
        connect_with(endpoint, Some(&authorities)).await.unwrap()
    }

    async fn agent(&self, token: &str, hello: v1::Hello) -> Result<Agent, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let channel = self.channel(&self.agents).await;
        let request = bearing(token, ReceiverStream::new(receiver));
        let answers = AgentsClient::new(channel).sync(request).await?.into_inner();
        let agent = Agent { requests, answers };
        agent.send(FromAgent::Hello(hello)).await;
        Ok(agent)
    }

    /// Why an agent is refused.
    async fn refused(&self, token: &str, node: &str) -> (Code, String) {
        let status = match self.agent(token, hello(node)).await {
            Ok(mut agent) => agent.end().await,
            Err(status) => status,
        };
        (status.code(), reason(&status))
    }

    async fn operator(&self, token: &str) -> Operator {
        Operator { channel: self.channel(&self.operators).await, token: token.to_owned() }
    }
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

struct Operator {
    channel: Channel,
    token: String,
}

impl Operator {
    async fn get(&self, name: &str) -> Result<v1::VirtualCluster, Status> {
        let request = v1::GetVirtualClusterRequest { name: name.to_owned() };
        let mut client = VirtualClustersClient::new(self.channel.clone());
        let answer = client.get_virtual_cluster(bearing(&self.token, request)).await?;
        Ok(answer.into_inner().virtual_cluster.unwrap())
    }

    async fn list(
        &self,
        request: v1::ListVirtualClustersRequest,
    ) -> Result<v1::ListVirtualClustersResponse, Status> {
        let mut client = VirtualClustersClient::new(self.channel.clone());
        Ok(client.list_virtual_clusters(bearing(&self.token, request)).await?.into_inner())
    }

    async fn usage(
        &self,
        request: v1::QueryUsageRequest,
    ) -> Result<v1::QueryUsageResponse, Status> {
        let mut client = UsageClient::new(self.channel.clone());
        Ok(client.query_usage(bearing(&self.token, request)).await?.into_inner())
    }

    async fn nodes(&self) -> Result<v1::ListNodesResponse, Status> {
        let mut client = NodesClient::new(self.channel.clone());
        let request = v1::ListNodesRequest::default();
        Ok(client.list_nodes(bearing(&self.token, request)).await?.into_inner())
    }

    async fn node(&self, name: &str) -> Result<v1::GetNodeResponse, Status> {
        let mut client = NodesClient::new(self.channel.clone());
        let request = v1::GetNodeRequest { name: name.to_owned() };
        Ok(client.get_node(bearing(&self.token, request)).await?.into_inner())
    }

    /// The names of what a watch shows first.
    async fn watched(&self) -> Result<Vec<String>, Status> {
        let mut client = VirtualClustersClient::new(self.channel.clone());
        let request = bearing(&self.token, v1::WatchVirtualClustersRequest {});
        let mut changes = client.watch_virtual_clusters(request).await?.into_inner();
        let mut names = Vec::new();
        while let Some(change) = changes.message().await? {
            match change.virtual_cluster {
                Some(cluster) => names.push(cluster.name),
                None => break,
            }
        }
        Ok(names)
    }
}

/// Virtual clusters a to d; a and b were on node n1, c on n2, and d on both.
async fn busy() -> Trusted {
    let place = Place::with(&["team-a", "team-b", "team-c", "team-d"]);
    let trusted = Trusted::start(place, true).await;
    for (node, clusters) in
        [("n1", &["team-a", "team-b", "team-d"][..]), ("n2", &["team-c", "team-d"][..])]
    {
        let mut agent = trusted.agent(&format!("agent:{node}"), hello(node)).await.unwrap();
        let told = agent.snapshot().await;
        let number = |name: &str| {
            let found = told.virtual_clusters.iter().find(|it| it.name == name).unwrap();
            found.number
        };
        let statuses = clusters.iter().map(|name| v1::VirtualClusterNodeStatus {
            name: (*name).to_owned(),
            ..Default::default()
        });
        let status = v1::NodeStatus {
            virtual_clusters: statuses.collect(),
            reasons: vec![v1::Reason {
                subject: "secret".to_owned(),
                message: "something about team-b and team-c".to_owned(),
            }],
            ..Default::default()
        };
        agent.send(FromAgent::Status(status)).await;
        for (sequence, name) in (1..).zip(clusters) {
            let batch = usage(sequence, (name, number(name)), 60 * sequence, 100 * sequence);
            assert_eq!(agent.report(batch).await, sequence);
        }
    }
    trusted
}

#[tokio::test]
async fn an_agent_s_node_is_its_session_s_and_not_its_message_s() {
    let trusted = Trusted::start(Place::with(&["team-a"]), true).await;
    let mut agent = trusted.agent("agent:n1", hello("n1")).await.unwrap();
    agent.welcome().await;
    let identity = (Code::PermissionDenied, "NODE_IDENTITY".to_owned());
    assert_eq!(trusted.refused("agent:n1", "n2").await, identity);
    // The older process of a node is refused, also with a good token.
    let mut older = hello("n1");
    older.started_unix_nanoseconds = 1;
    let mut refused = trusted.agent("agent:n1", older).await.unwrap();
    assert_eq!(reason(&refused.end().await), "AGENT_OLDER");
    let of = |code, reason: &str| (code, reason.to_owned());
    let missing = of(Code::Unauthenticated, "TOKEN_MISSING");
    assert_eq!(trusted.refused("", "n1").await, missing);
    assert_eq!(trusted.refused("forged", "n1").await, of(Code::Unauthenticated, "TOKEN_INVALID"));
    let no_agent = of(Code::PermissionDenied, "NOT_AN_AGENT");
    assert_eq!(trusted.refused("sees:*;*", "n1").await, no_agent);
    let unproven = of(Code::PermissionDenied, "NODE_UNPROVEN");
    assert_eq!(trusted.refused("unbound:", "n1").await, unproven);
    drop(agent);
    trusted.stop().await;
}

#[tokio::test]
async fn an_old_server_s_token_names_the_pod_and_the_pod_its_node() {
    let trusted = Trusted::start(Place::with(&["team-a"]), true).await;
    let unproven = (Code::PermissionDenied, "NODE_UNPROVEN".to_owned());
    assert_eq!(trusted.refused("pod:agent-x", "n3").await, unproven);
    trusted.cluster.pods.lock().unwrap().insert("agent-x".to_owned(), "n3".to_owned());
    let mut agent = trusted.agent("pod:agent-x", hello("n3")).await.unwrap();
    agent.welcome().await;
    let identity = (Code::PermissionDenied, "NODE_IDENTITY".to_owned());
    assert_eq!(trusted.refused("pod:agent-x", "n1").await, identity);
    trusted.stop().await;
}

#[tokio::test]
async fn without_a_token_there_is_health_and_nothing_else() {
    let trusted = busy().await;
    for token in ["", "forged"] {
        let nobody = trusted.operator(token).await;
        let refusals = [
            nobody.get("team-a").await.unwrap_err(),
            nobody.list(v1::ListVirtualClustersRequest::default()).await.unwrap_err(),
            nobody.watched().await.unwrap_err(),
            nobody.usage(v1::QueryUsageRequest::default()).await.unwrap_err(),
            nobody.nodes().await.unwrap_err(),
            nobody.node("n1").await.unwrap_err(),
        ];
        for status in refusals {
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
        let mut reflection = ServerReflectionClient::new(nobody.channel.clone());
        let questions = tokio_stream::iter([ServerReflectionRequest::default()]);
        let status = reflection.server_reflection_info(questions).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        for service in ["", "bulkhead.v1.Objects", "bulkhead.v1.Certificate"] {
            let mut health = HealthClient::new(nobody.channel.clone());
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status, 1, "{service} serves");
        }
    }
    trusted.stop().await;
}

#[tokio::test]
async fn a_team_sees_its_own_and_no_other() {
    let trusted = busy().await;
    let team = trusted.operator("sees:team-a").await;
    assert_eq!(team.get("team-a").await.unwrap().name, "team-a");
    let listed = team.list(v1::ListVirtualClustersRequest::default()).await.unwrap();
    assert_eq!(listed.virtual_clusters.len(), 1);
    assert_eq!(team.watched().await.unwrap(), ["team-a"]);
    let rows = team.usage(v1::QueryUsageRequest::default()).await.unwrap().rows;
    assert_eq!((rows.len(), rows[0].virtual_cluster.as_str()), (1, "team-a"));
    let all = trusted.operator("sees:*;*").await;
    let rows = all.usage(v1::QueryUsageRequest::default()).await.unwrap().rows;
    assert_eq!(rows.len(), 4);
    assert_eq!(all.watched().await.unwrap().len(), 4);
    let nodes = all.nodes().await.unwrap().nodes;
    assert!(nodes[0].status.as_ref().unwrap().reasons.len() == 1, "{nodes:?}");
    // Who sees nothing is shown nothing, and not everything.
    let nobody = trusted.operator("sees:").await;
    assert!(nobody.usage(v1::QueryUsageRequest::default()).await.unwrap().rows.is_empty());
    assert!(nobody.watched().await.unwrap().is_empty());
    trusted.stop().await;
}

#[tokio::test]
async fn a_refusal_does_not_tell_what_exists() {
    let trusted = busy().await;
    let team = trusted.operator("sees:team-a").await;
    let told = |status: &Status, name: &str| {
        (status.code(), reason(status), status.message().replace(name, "NAME"))
    };
    let of = |name: &str| v1::QueryUsageRequest {
        virtual_clusters: vec![name.to_owned()],
        ..Default::default()
    };
    let on = |name: &str| v1::QueryUsageRequest { nodes: vec![name.to_owned()], ..of("team-a") };
    let (there, not) = ("team-b", "team-x");
    let gets = (team.get(there).await.unwrap_err(), team.get(not).await.unwrap_err());
    assert_eq!(told(&gets.0, there), told(&gets.1, not));
    assert_eq!(gets.0.code(), Code::PermissionDenied);
    let asked = (team.usage(of(there)).await.unwrap_err(), team.usage(of(not)).await.unwrap_err());
    assert_eq!(told(&asked.0, there), told(&asked.1, not));
    let nodes = (team.node("n2").await.unwrap_err(), team.node("n9").await.unwrap_err());
    assert_eq!(told(&nodes.0, "n2"), told(&nodes.1, "n9"));
    let nodes = (team.usage(on("n2")).await.unwrap_err(), team.usage(on("n9")).await.unwrap_err());
    assert_eq!(told(&nodes.0, "n2"), told(&nodes.1, "n9"));
    assert_eq!(team.usage(on("n1")).await.unwrap().rows.len(), 1, "where it was itself");
    // Who may see a name may know that there is nothing.
    let sure = trusted.operator("sees:team-x").await;
    assert_eq!(sure.get(not).await.unwrap_err().code(), Code::NotFound);
    trusted.stop().await;
}

/// Whatever is asked, by whomever: no name of a virtual cluster that they may not see is in what
/// comes back, and everything of those that they may see is.
#[tokio::test]
async fn no_answer_has_anything_of_what_its_reader_may_not_see() {
    let trusted = busy().await;
    let names = ["team-a", "team-b", "team-c", "team-d"];
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let channel = trusted.channel(&trusted.operators).await;
    let (mut answers, mut refusals) = (0, 0);
    for _ in 0..400 {
        let rights: Vec<&str> = names.into_iter().filter(|_| chance.below(2) == 0).collect();
        let nodes = ["", "*", "n1"][chance.below(3)];
        let token = format!("sees:{};{nodes}", rights.join(","));
        let reader = Operator { channel: channel.clone(), token };
        let some = |chance: &mut Chance, all: &[&str]| -> Vec<String> {
            let some = all.iter().filter(|_| chance.below(4) == 0);
            some.map(|name| (*name).to_owned()).collect()
        };
        let page_size = [0, 1, 2][chance.below(3)];
        let question = v1::QueryUsageRequest {
            virtual_clusters: some(&mut chance, &names),
            nodes: some(&mut chance, &["n1", "n2"]),
            group_by: [vec![], vec![1], vec![2], vec![1, 2]][chance.below(4)].clone(),
            page_size,
            ..Default::default()
        };
        let asked = question.virtual_clusters.clone();
        let answer = match chance.below(5) {
            0 => reader.usage(question).await.map(|answer| format!("{answer:?}")),
            1 => {
                let request = v1::ListVirtualClustersRequest { page_size, ..Default::default() };
                reader.list(request).await.map(|answer| format!("{answer:?}"))
            }
            2 => reader.watched().await.map(|names| format!("{names:?}")),
            3 => reader.nodes().await.map(|answer| format!("{answer:?}")),
            _ => reader.node(["n1", "n2"][chance.below(2)]).await.map(|it| format!("{it:?}")),
        };
        let hidden = names.iter().filter(|name| !rights.contains(name));
        match answer {
            Ok(text) => {
                for name in hidden {
                    assert!(!text.contains(name), "{name} in what {rights:?} see: {text}");
                }
                answers += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
                for name in hidden.filter(|name| !asked.contains(&(**name).to_owned())) {
                    assert!(!status.message().contains(name), "{status:?}");
                }
                refusals += 1;
            }
        }
    }
    assert!(answers > 150 && refusals > 50, "{answers} answers, {refusals} refusals");
    totals_are_the_own(&trusted, &channel, &names).await;
    trusted.stop().await;
}

/// Usage that is grouped by node adds up to what the reader may see, and to no more.
async fn totals_are_the_own(trusted: &Trusted, channel: &Channel, names: &[&str]) {
    let all = trusted.operator("sees:*;*").await;
    let cpu = |row: &v1::UsageRow| row.cpu.as_ref().unwrap().usage_nanoseconds;
    let whole = all.usage(v1::QueryUsageRequest::default()).await.unwrap().rows;
    for rights in 0..16_u32 {
        let seen: Vec<&str> = (0..)
            .zip(names)
            .filter(|(bit, _)| rights >> bit & 1 == 1)
            .map(|(_, name)| *name)
            .collect();
        let token = format!("sees:{}", seen.join(","));
        let reader = Operator { channel: channel.clone(), token };
        let by_node = v1::QueryUsageRequest { group_by: vec![2], ..Default::default() };
        let rows = reader.usage(by_node).await.unwrap().rows;
        let mine = whole.iter().filter(|row| seen.contains(&row.virtual_cluster.as_str()));
        assert_eq!(rows.iter().map(cpu).sum::<u64>(), mine.map(cpu).sum::<u64>(), "{seen:?}");
    }
}

/// Numbers that are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

#[tokio::test]
async fn while_nobody_can_be_asked_the_known_go_on_and_others_wait() {
    let trusted = busy().await;
    let known = trusted.operator("sees:team-a").await;
    known.get("team-a").await.unwrap();
    trusted.cluster.away.store(true, Ordering::Relaxed);
    known.get("team-a").await.unwrap();
    let other = trusted.operator("sees:team-b").await;
    let status = other.get("team-b").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "REVIEW_UNAVAILABLE")
    );
    trusted.cluster.away.store(false, Ordering::Relaxed);
    other.get("team-b").await.unwrap();
    trusted.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_within_seconds_and_streams_go_on() {
    let place = Place::with(&["team-a"]);
    let names = ["127.0.0.1".to_owned()];
    let make = || {
        let made = Material::next(None, &names, SystemTime::now(), &Lives::default());
        made.unwrap().unwrap()
    };
    let tls = place.path().join("tls");
    fs::create_dir(&tls).unwrap();
    let write = |material: &Material| {
        fs::write(tls.join("tls.key"), &material.key).unwrap();
        fs::write(tls.join("tls.crt"), &material.certificate).unwrap();
    };
    let (first, second) = (make(), make());
    write(&first);
    fs::write(tls.join("ca.crt"), &first.bundle).unwrap();
    let trusted = Trusted::start(place, false).await;
    let mut agent = trusted.agent("agent:n1", hello("n1")).await.unwrap();
    let number = agent.snapshot().await.virtual_clusters[0].number;
    agent.report(usage(1, ("team-a", number), 60, 1)).await;
    // Whoever trusts the second only cannot come yet.
    let later = Authorities::Pem(second.bundle.as_bytes().into());
    assert!(connect_with(&trusted.agents, Some(&later)).await.is_err());
    write(&second);
    let began = Instant::now();
    while connect_with(&trusted.agents, Some(&later)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "not shown");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(agent.report(usage(2, ("team-a", number), 120, 2)).await, 2);
    trusted.stop().await;
}

#[tokio::test]
async fn a_port_over_tls_without_a_certificate_does_not_open() {
    let place = Place::with(&["team-a"]);
    let mut config = place.config();
    config.agents = Endpoint::parse("https://127.0.0.1:0").unwrap();
    let refused = Controller::start_with(config, None).await.unwrap_err();
    assert!(matches!(refused, ServeError::NoCertificate { .. }), "{refused}");
}
