//! Operators: virtual clusters, nodes, usage, health, reflection.

use std::time::Duration;

use bulkhead_proto::connect::connect;
use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use v1::watch_virtual_clusters_response::Change;

use crate::running::{PATIENCE, Place, cluster, hello, reason, usage};

fn applied(name: &str) -> v1::NodeStatus {
    v1::NodeStatus {
        applied_generation: 1,
        virtual_clusters: vec![v1::VirtualClusterNodeStatus {
            name: name.to_owned(),
            state: v1::virtual_cluster_node_status::State::Applied.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_virtual_cluster_is_shown_with_its_source_and_each_node_s_word() {
    let place = Place::new();
    place.write("a.yaml", &cluster("team-a", "{perNode: {limit: {cpu: 500m}}}"));
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    agent.snapshot().await;
    agent.send(FromAgent::Status(applied("team-a"))).await;
    // An acknowledgement says that the status before it was taken.
    agent.report(usage(1, ("team-a", 1), 0, 1)).await;
    let mut client = running.clusters().await;
    let request = v1::GetVirtualClusterRequest { name: "team-a".to_owned() };
    let shown = client.get_virtual_cluster(request).await.unwrap().into_inner();
    let shown = shown.virtual_cluster.unwrap();
    assert_eq!((shown.number, shown.source.as_str()), (1, "file:a.yaml"));
    let cpu = shown.spec.unwrap().limit.unwrap().cpu.unwrap().amount;
    assert_eq!(cpu, Some(v1::cpu_amount::Amount::Nanocores(500_000_000)));
    assert_eq!(shown.nodes.len(), 1);
    assert_eq!(shown.nodes[0].node, "n1");
    assert!(shown.nodes[0].observed_at.is_some());

    let request = v1::GetVirtualClusterRequest { name: "team-x".to_owned() };
    let status = client.get_virtual_cluster(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "VIRTUAL_CLUSTER_UNKNOWN")
    );
    running.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let place = Place::with(&["a", "b", "c", "d", "e"]);
    let running = place.start().await;
    let mut client = running.clusters().await;
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListVirtualClustersRequest { page_size: 2, page_token };
        let page = client.list_virtual_clusters(request).await.unwrap().into_inner();
        assert!(page.virtual_clusters.len() <= 2);
        names.extend(page.virtual_clusters.into_iter().map(|cluster| cluster.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let page = v1::ListVirtualClustersRequest { page_size: 2, page_token: String::new() };
    let token = client.list_virtual_clusters(page).await.unwrap().into_inner().next_page_token;
    // A token of one list is none of another.
    let request = v1::ListNodesRequest { page_size: 2, page_token: token };
    let status = running.nodes().await.list_nodes(request).await.unwrap_err();
    assert_eq!(reason(&status), "PAGE_TOKEN_INVALID");
    running.stop().await;
}

#[tokio::test]
async fn nodes_are_connected_or_away_and_are_remembered() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut facts = hello("n1");
    facts.facts.as_mut().unwrap().kernel_release = "6.12".to_owned();
    let mut agent = running.agent(facts).await;
    let generation = agent.snapshot().await.generation;
    agent.send(FromAgent::Status(applied("a"))).await;
    agent.report(usage(1, ("a", 1), 0, 1)).await;
    let get = || v1::GetNodeRequest { name: "n1".to_owned() };
    let mut client = running.nodes().await;
    let node = client.get_node(get()).await.unwrap().into_inner().node.unwrap();
    assert_eq!(node.connection(), v1::node::Connection::Connected);
    assert_eq!(node.wanted_generation, generation);
    assert_eq!(node.status.unwrap().applied_generation, 1);
    drop(agent);
    let away = async {
        loop {
            let node = client.get_node(get()).await.unwrap().into_inner().node.unwrap();
            if node.connection() == v1::node::Connection::Away {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.unwrap();
    running.stop().await;

    let running = place.start().await;
    let mut client = running.nodes().await;
    let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes.len(), 1);
    assert_eq!(nodes.nodes[0].facts.as_ref().unwrap().kernel_release, "6.12");
    assert!(nodes.nodes[0].last_seen.unwrap().seconds > 0);
    let unknown = v1::GetNodeRequest { name: "n9".to_owned() };
    let status = client.get_node(unknown).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NODE_UNKNOWN"));
    running.stop().await;
}

#[tokio::test]
async fn who_watches_is_told_all_and_then_each_change() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut client = running.clusters().await;
    let request = v1::WatchVirtualClustersRequest {};
    let mut changes = client.watch_virtual_clusters(request).await.unwrap().into_inner();
    let mut next = async || {
        let change = tokio::time::timeout(PATIENCE, changes.message()).await.unwrap();
        let change = change.unwrap().expect("the stream goes on");
        (change.change(), change.virtual_cluster.map(|cluster| cluster.name).unwrap_or_default())
    };
    assert_eq!(next().await, (Change::Initial, "a".to_owned()));
    assert_eq!(next().await, (Change::InitialComplete, String::new()));
    place.write("b.yaml", &cluster("b", "{}"));
    assert_eq!(next().await, (Change::Upserted, "b".to_owned()));
    let agent = running.agent(hello("n1")).await;
    agent.send(FromAgent::Status(applied("a"))).await;
    assert_eq!(next().await, (Change::Upserted, "a".to_owned()));
    // The same again is no change.
    agent.send(FromAgent::Status(applied("a"))).await;
    std::fs::remove_file(place.objects().join("a.yaml")).unwrap();
    assert_eq!(next().await, (Change::Deleted, "a".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn health_and_reflection_answer_on_their_ports() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    for endpoint in [&running.agents, &running.operators] {
        let mut health = HealthClient::new(connect(endpoint).await.unwrap());
        let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(
            status.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );
    }
    let mut client = ServerReflectionClient::new(running.operator().await);
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["bulkhead.v1.Usage", "bulkhead.v1.Nodes", "bulkhead.v1.VirtualClusters"] {
        assert!(names.contains(&name), "{names:?}");
    }
    running.stop().await;
}

/// The agents' port serves agents, the operators' port operators.
#[tokio::test]
async fn each_port_has_its_own_services() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let channel = connect(&running.agents).await.unwrap();
    let mut client = v1::usage_client::UsageClient::new(channel);
    let status = client.query_usage(v1::QueryUsageRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    running.stop().await;
}

#[tokio::test]
async fn loopback_serves_as_well() {
    let place = Place::with(&["a"]);
    let mut config = place.config();
    config.agents = "127.0.0.1:0".parse().unwrap();
    config.operators = "[::1]:0".parse().unwrap();
    let running = crate::running::Running::start(config).await;
    let mut agent = running.agent(hello("n1")).await;
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 5)).await, 1);
    assert_eq!(running.used().await, [("a".to_owned(), 5)]);
    running.stop().await;
}
