//! The controller with a real API server: what users write there, what agents are told of it, and
//! what the controller writes back. One server for all of it, since it takes long to start.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends with the first thing that is not as it should be"
)]

mod agent;
mod api_server;

use std::time::{Duration, Instant};

use bulkhead_api::VirtualCluster;
use bulkhead_proto::connect::connect;
use bulkhead_proto::v1;
use bulkhead_proto::v1::virtual_clusters_client::VirtualClustersClient;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::agent::{Agent, Running};
use crate::api_server::{ApiServer, apply, set_status, until};

/// Pods whose address is measured.
const PODS: usize = 200;
/// An address is known where it is needed within this time, in 99 of 100 cases.
const GOAL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_in_a_cluster() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    let mut server = ApiServer::start().await;
    let client = server.admin().await;
    let place = tempfile::tempdir().unwrap();
    write_cluster(&client).await;
    let running = Running::start(place.path(), "first", server.kubeconfig("controller")).await;
    let mut agent = running.agent("n1").await;

    agent.hear_until("both are bound", |it| it.bound.len() == 2).await;
    assert!(agent.ranges.contains("10.1.0.0/24"), "of the Node: {:?}", agent.ranges);
    assert!(agent.shared.contains("169.254.20.10") && agent.shared.contains("10.96.0.1"));

    status_and_taint(&client).await;
    println!("status and taint are written");
    services(&client, &mut agent).await;
    println!("a Service is its backends'");
    moves(&client, &mut agent).await;
    println!("an address moves");
    names(&client, &running, &mut agent).await;
    println!("pods are named to their node");
    conflict_and_invalid(&client).await;
    println!("conflicts and invalid objects are told");
    measure(&client, &mut agent).await;
    away(&mut server, &running, &mut agent).await;
    println!("the API server went and came");
    replicas(&server, place.path(), running).await;
}

fn virtual_cluster(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "VirtualCluster",
        "metadata": { "name": name }, "spec": spec,
    })
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
    })
}

fn runs_at(address: &str) -> Value {
    json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] })
}

async fn write_cluster(client: &Client) {
    for name in ["a", "b", "plain"] {
        let metadata = json!({ "name": name });
        apply(client, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))
            .await;
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "spec": {
            "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"],
            "taints": [
                { "key": "bulkhead.dev/agent-not-ready", "effect": "NoSchedule" },
                { "key": "kept", "effect": "NoSchedule" },
            ],
        },
    });
    apply(client, node).await;
    for name in ["a", "b"] {
        let spec = json!({ "members": { "namespaces": [name] }, "network": { "mode": "Enforce" } });
        apply(client, virtual_cluster(name, &spec)).await;
    }
    for (namespace, name) in [("a", "first"), ("b", "first")] {
        apply(client, pod(namespace, name)).await;
    }
}

/// The conditions of a virtual cluster: type, status and reason.
async fn conditions(client: &Client, name: &str) -> Vec<(String, String, String)> {
    let api: Api<VirtualCluster> = Api::all(client.clone());
    let status = api.get(name).await.unwrap().status.unwrap_or_default();
    status.conditions.into_iter().map(|it| (it.type_, it.status, it.reason)).collect()
}

async fn becomes(client: &Client, name: &str, kind: &str, status: &str, reason: &str) {
    let wanted = (kind.to_owned(), status.to_owned(), reason.to_owned());
    until(&format!("{name} is {wanted:?}"), || async {
        conditions(client, name).await.contains(&wanted).then_some(())
    })
    .await;
}

async fn status_and_taint(client: &Client) {
    becomes(client, "a", "Enforced", "True", "Enforced").await;
    becomes(client, "a", "Ready", "True", "Applied").await;
    let api: Api<VirtualCluster> = Api::all(client.clone());
    let status = api.get("a").await.unwrap().status.unwrap();
    assert_eq!((status.namespaces, status.pods, status.nodes), (Some(1), Some(1), Some(1)));
    assert_eq!(status.enforcing_nodes, Some(1));
    // The range of Services is written nowhere here.
    becomes(client, "a", "BoundaryWeak", "True", "AddressesUnclear").await;
    let nodes: Api<Node> = Api::all(client.clone());
    let left = until("the taint is gone", || async {
        let taints = nodes.get("n1").await.unwrap().spec.unwrap().taints.unwrap_or_default();
        let keys: Vec<String> = taints.into_iter().map(|taint| taint.key).collect();
        (!keys.iter().any(|key| key.starts_with("bulkhead.dev/"))).then_some(keys)
    });
    assert!(left.await.contains(&"kept".to_owned()), "other taints are left alone");
}

/// With core Endpoints: this server has no discovery/v1.
async fn services(client: &Client, agent: &mut Agent) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    set_status(&pods, "first", runs_at("10.1.0.2")).await;
    agent.hear_until("the pod's address", |it| it.has("a", "10.1.0.2")).await;
    for (namespace, name, address) in
        [("a", "web", "10.96.1.1"), ("plain", "web", "10.96.1.2"), ("b", "trap", "10.96.1.3")]
    {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": address, "ports": [{ "port": 80, "protocol": "TCP" }] },
        });
        apply(client, service).await;
    }
    for (namespace, name, address) in [("a", "web", "10.1.0.2"), ("b", "trap", "10.1.0.2")] {
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": name, "namespace": namespace },
            "subsets": [{ "addresses": [{ "ip": address }], "ports": [{ "port": 80, "protocol": "TCP" }] }],
        });
        apply(client, endpoints).await;
    }
    agent.hear_until("its Service", |it| it.has("a", "10.96.1.1")).await;
    agent.hear_until("a plain Service", |it| it.shared.contains("10.96.1.2")).await;
    agent.hear_until("who writes endpoints gets nothing", |it| it.has("a", "10.96.1.3")).await;
    assert!(!agent.has("b", "10.96.1.3"));
}

async fn moves(client: &Client, agent: &mut Agent) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    apply(client, pod("a", "job")).await;
    set_status(&pods, "job", runs_at("10.1.0.9")).await;
    agent.hear_until("the job's address", |it| it.has("a", "10.1.0.9")).await;
    set_status(&pods, "job", json!({ "phase": "Succeeded" })).await;
    apply(client, pod("b", "next")).await;
    let of_b: Api<Pod> = Api::namespaced(client.clone(), "b");
    set_status(&of_b, "next", runs_at("10.1.0.9")).await;
    while !agent.has("b", "10.1.0.9") {
        agent.hear().await;
        assert!(agent.holders("10.1.0.9") <= 1, "it is in both: {:?}", agent.addresses);
    }
}

/// Each pod is named to its own node, with whose it is and what it is to the node.
async fn names(client: &Client, running: &Running, agent: &mut Agent) {
    assert_eq!(agent.pod("a", "first").unwrap().virtual_cluster, "a");
    let mut critical = pod("plain", "critical");
    critical["spec"]["priorityClassName"] = json!("system-cluster-critical");
    let mut mirror = pod("kube-system", "etcd-n1");
    let hash = "0123456789abcdef0123456789abcdef";
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": hash });
    let mut elsewhere = pod("a", "elsewhere");
    elsewhere["spec"]["nodeName"] = json!("n2");
    for object in [elsewhere, critical, mirror, pod("plain", "last")] {
        apply(client, object).await;
    }
    agent.hear_until("the last is named", |it| it.pod("plain", "last").is_some()).await;
    let critical = agent.pod("plain", "critical").unwrap();
    assert!(critical.critical && critical.virtual_cluster.is_empty());
    assert!(!agent.pod("plain", "last").unwrap().critical);
    assert_eq!(agent.pod("kube-system", "etcd-n1").unwrap().mirror_of, hash);
    assert_eq!(agent.pod("a", "elsewhere"), None);
    let mut other = running.agent("n2").await;
    other.hear_until("its own is named", |it| !it.pods.is_empty()).await;
    assert_eq!(other.pods.len(), 1);
    assert_eq!(other.pod("a", "elsewhere").unwrap().virtual_cluster, "a");
    // One ends, another is gone.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "plain");
    set_status(&pods, "critical", json!({ "phase": "Failed" })).await;
    let gone = |it: &Agent| it.pod("plain", "critical").is_none();
    agent.hear_until("it has ended", gone).await;
    pods.delete("last", &DeleteParams::default().grace_period(0)).await.unwrap();
    agent.hear_until("it is gone", |it| it.pod("plain", "last").is_none()).await;
    for (namespace, name) in [("a", "elsewhere"), ("kube-system", "etcd-n1")] {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    agent.hear_until("the mirror is gone", |it| it.pod("kube-system", "etcd-n1").is_none()).await;
}

async fn conflict_and_invalid(client: &Client) {
    // Two that are as old as each other are told apart by their UIDs.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let spec = json!({ "members": { "namespaces": ["a"] } });
    apply(client, virtual_cluster("younger", &spec)).await;
    becomes(client, "younger", "Ready", "False", "Conflict").await;
    becomes(client, "a", "Ready", "True", "Contested").await;
    let events: Api<Event> = Api::namespaced(client.clone(), "kube-system");
    until("an Event tells of the conflict", || async {
        let all = events.list(&ListParams::default()).await.unwrap();
        let mut about = all.items.iter().filter(|it| {
            it.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some("younger")
        });
        about.any(|it| it.reason.as_deref() == Some("Conflict")).then_some(())
    })
    .await;
    // The schema of the CRD cannot know that there is no such class.
    let wrong = json!({ "members": { "namespaces": ["a"] }, "class": "missing" });
    apply(client, virtual_cluster("younger", &wrong)).await;
    becomes(client, "younger", "Ready", "False", "Invalid").await;
    let api: Api<VirtualCluster> = Api::all(client.clone());
    api.delete("younger", &DeleteParams::default()).await.unwrap();
    becomes(client, "a", "Ready", "True", "Applied").await;
}

async fn measure(client: &Client, agent: &mut Agent) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    let mut took: Vec<(Duration, Duration)> = Vec::with_capacity(PODS);
    for number in 0..PODS {
        let (name, address) = (format!("m{number}"), format!("10.1.0.{}", 20 + number));
        let object: Pod = serde_json::from_value(pod("a", &name)).unwrap();
        pods.create(&PostParams::default(), &object).await.unwrap();
        let asked = Instant::now();
        let written = async {
            set_status(&pods, &name, runs_at(&address)).await;
            Instant::now()
        };
        let told = agent.hear_until("the pod's address", |it| it.has("a", &address));
        let (written, told) = tokio::join!(written, told);
        took.push((told.duration_since(asked), told.saturating_duration_since(written)));
    }
    let at = |percent: usize, of: fn(&(Duration, Duration)) -> Duration| {
        let mut all: Vec<Duration> = took.iter().map(of).collect();
        all.sort();
        all[(PODS * percent / 100).min(PODS - 1)]
    };
    println!(
        "from the request that writes a pod's address to the agent that is told: p50 {:?}, p99 \
         {:?}; from the API server's answer: p50 {:?}, p99 {:?}; {PODS} pods",
        at(50, |it| it.0),
        at(99, |it| it.0),
        at(50, |it| it.1),
        at(99, |it| it.1),
    );
    assert!(at(99, |it| it.1) <= GOAL, "p99 is over {GOAL:?}");
}

async fn problems(running: &Running) -> Vec<String> {
    let channel = connect(&running.operators).await.unwrap();
    let mut asked = VirtualClustersClient::new(channel);
    let request = v1::ListVirtualClustersRequest::default();
    asked.list_virtual_clusters(request).await.unwrap().into_inner().problems
}

async fn away(server: &mut ApiServer, running: &Running, agent: &mut Agent) {
    let known = agent.addresses.clone();
    server.down();
    until("operators are told that it is away", || async {
        problems(running).await.iter().any(|it| it.contains("API server")).then_some(())
    })
    .await;
    let mut second = running.agent("n2").await;
    second.hear_until("who comes now is told", |it| it.bound.len() == 2).await;
    let nothing = tokio::time::timeout(Duration::from_secs(1), agent.hear()).await;
    assert!(nothing.is_err() || agent.addresses == known, "nothing is taken away");
    server.up().await;
    let client = server.admin().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    apply(&client, pod("a", "late")).await;
    set_status(&pods, "late", runs_at("10.1.0.250")).await;
    agent.hear_until("watches go on", |it| it.has("a", "10.1.0.250")).await;
    assert!(known["a"].is_subset(&agent.addresses["a"]));
    until("nothing is wrong any more", || async {
        (!problems(running).await.iter().any(|it| it.contains("API server"))).then_some(())
    })
    .await;
}

/// One of two replicas writes; when it ends, the other does; both serve agents.
async fn replicas(server: &ApiServer, place: &std::path::Path, first: Running) {
    let client = server.admin().await;
    let second = Running::start(place, "second", server.kubeconfig("controller")).await;
    let mut agent = second.agent("n1").await;
    agent.hear_until("the second serves agents", |it| it.has("a", "10.1.0.2")).await;
    assert_eq!(holder(&client).await, "first");
    first.stop().await;
    until("the second holds the Lease", || async {
        (holder(&client).await == "second").then_some(())
    })
    .await;
    let spec = json!({ "members": { "namespaces": ["plain"] } });
    apply(&client, virtual_cluster("c", &spec)).await;
    becomes(&client, "c", "Enforced", "False", "Observing").await;
    second.stop().await;
}

async fn holder(client: &Client) -> String {
    use k8s_openapi::api::coordination::v1::Lease;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let lease = leases.get("bulkhead-controller").await.unwrap();
    lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
}
