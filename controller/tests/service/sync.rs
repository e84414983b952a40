//! Agents: hello, snapshots, usage, one stream for a node.

use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use tonic::Code;

use crate::running::{Place, cluster, hello, reason, usage};

#[tokio::test]
async fn an_agent_is_welcomed_and_told_everything_and_each_change() {
    let place = Place::new();
    let spec = "{members: {addresses: [10.1.0.0/16]}, network: {mode: Enforce}}";
    place.write("a.yaml", &cluster("team-a", spec));
    let config = "apiVersion: bulkhead.dev/v1alpha1\nkind: BulkheadConfig\nmetadata: {name: b}\n\
                  spec: {clusterRanges: [10.0.0.0/8], sharedServices: [10.96.0.10]}\n";
    place.write("config.yaml", config);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    assert_eq!(agent.welcome().await.acknowledged_sequence, 0);
    let first = agent.snapshot().await;
    assert_eq!(first.virtual_clusters.len(), 1);
    assert_eq!(first.virtual_clusters[0].name, "team-a");
    assert_eq!(first.virtual_clusters[0].number, 1);
    assert_eq!(first.shared, ["10.96.0.10"]);
    assert_eq!(first.cluster_ranges, ["10.0.0.0/8"]);

    place.write("b.yaml", &cluster("team-b", "{}"));
    let second = agent.snapshot().await;
    assert!(second.generation > first.generation);
    let names: Vec<_> = second.virtual_clusters.iter().map(|it| (&*it.name, it.number)).collect();
    assert_eq!(names, [("team-a", 1), ("team-b", 2)]);
    running.stop().await;
}

#[tokio::test]
async fn the_addresses_of_one_node_are_told_to_all_and_outlive_a_restart() {
    let place = Place::with(&[]);
    let running = place.start().await;
    let mut first = running.agent(hello("n1")).await;
    assert_eq!(first.snapshot().await.node_addresses, Vec::<String>::new());
    let mut other = hello("n2");
    let addresses = ["192.0.2.7", "fd00::7", "::1"].map(str::to_owned).to_vec();
    other.facts.as_mut().unwrap().addresses = addresses;
    let _second = running.agent(other).await;
    assert_eq!(first.snapshot().await.node_addresses, ["192.0.2.7", "fd00::7"]);
    let before = first.next();
    drop(before);
    running.stop().await;

    let running = place.start().await;
    let mut first = running.agent(hello("n1")).await;
    assert_eq!(first.snapshot().await.node_addresses, ["192.0.2.7", "fd00::7"]);
    running.stop().await;
}

#[tokio::test]
async fn numbers_and_generations_go_on_after_a_restart() {
    let place = Place::with(&["a", "b"]);
    let running = place.start().await;
    let before = running.agent(hello("n1")).await.snapshot().await;
    running.stop().await;
    std::fs::remove_file(place.objects().join("a.yaml")).unwrap();
    place.write("0.yaml", &cluster("0a", "{}"));
    let running = place.start().await;
    let after = running.agent(hello("n1")).await.snapshot().await;
    assert!(after.generation > before.generation);
    let numbers: Vec<_> = after.virtual_clusters.iter().map(|it| (&*it.name, it.number)).collect();
    assert_eq!(numbers, [("0a", 3), ("b", 2)]);
    running.stop().await;
}

#[tokio::test]
async fn usage_is_acknowledged_when_durable_and_a_duplicate_changes_nothing() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 100)).await, 1);
    assert_eq!(agent.report(usage(2, ("a", 1), 60, 250)).await, 2);
    assert_eq!(running.used().await, [("a".to_owned(), 250)]);
    // Sent again, by number or in substance.
    assert_eq!(agent.report(usage(2, ("a", 1), 60, 999)).await, 2);
    assert_eq!(agent.report(usage(3, ("a", 1), 60, 250)).await, 3);
    assert_eq!(running.used().await, [("a".to_owned(), 250)]);
    running.stop().await;

    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    assert_eq!(agent.welcome().await.acknowledged_sequence, 3);
    assert_eq!(running.used().await, [("a".to_owned(), 250)]);
    let another = v1::Hello { journal_id: "new".to_owned(), ..hello("n1") };
    assert_eq!(running.agent(another).await.welcome().await.acknowledged_sequence, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_counter_that_falls_is_usage_again_when_it_passes_its_highest() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    for (sequence, total, used) in [(1, 100, 100), (2, 40, 100), (3, 99, 100), (4, 130, 130)] {
        agent.report(usage(sequence, ("a", 1), sequence * 60, total)).await;
        assert_eq!(running.used().await, [("a".to_owned(), used)]);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_node_that_was_renamed_is_refused_and_nothing_is_booked_twice() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    agent.report(usage(1, ("a", 1), 0, 5)).await;
    let renamed = v1::Hello { journal_id: "journal-of-n1".to_owned(), ..hello("n2") };
    let status = running.agent(renamed).await.end().await;
    let refused = (Code::FailedPrecondition, "NODE_RENAMED".to_owned());
    assert_eq!((status.code(), reason(&status)), refused);
    for named in ["\"n1\"", "\"n2\"", "--node n1"] {
        assert!(status.message().contains(named), "{status:?}");
    }
    // Nobody of that name is known, and the node goes on by its own.
    let nodes = running.nodes().await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    assert_eq!(nodes.into_inner().nodes.len(), 1);
    assert_eq!(agent.report(usage(2, ("a", 1), 60, 6)).await, 2);
    assert_eq!(running.used().await, [("a".to_owned(), 6)]);
    running.stop().await;
}

#[tokio::test]
async fn the_younger_agent_process_of_a_node_wins() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let started = |at| v1::Hello { started_unix_nanoseconds: at, ..hello("n1") };
    let mut first = running.agent(started(10)).await;
    first.welcome().await;
    let mut younger = running.agent(started(20)).await;
    younger.welcome().await;
    let status = first.end().await;
    assert_eq!((status.code(), reason(&status)), (Code::Aborted, "AGENT_REPLACED".to_owned()));
    let status = running.agent(started(15)).await.end().await;
    let refused = (Code::FailedPrecondition, "AGENT_OLDER".to_owned());
    assert_eq!((status.code(), reason(&status)), refused);
    // The one that is connected is not disturbed by the refusal.
    assert_eq!(younger.report(usage(1, ("a", 1), 0, 1)).await, 1);
    // The same process connects again: its old connection may not be known to be dead.
    let mut again = running.agent(started(20)).await;
    again.welcome().await;
    assert_eq!(reason(&younger.end().await), "AGENT_REPLACED");
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_only_a_later_version_knows_is_skipped() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    agent.send_raw(v1::SyncRequest { message: None }).await;
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 5)).await, 1);
    running.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_controller_does() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    agent.snapshot().await;
    let mut silent = running.silent_agent().await;
    let (status, ()) = tokio::join!(
        async {
            let status = agent.end().await;
            assert_eq!(silent.end().await.code(), Code::Unavailable);
            status
        },
        running.stop()
    );
    assert_eq!(reason(&status), "CONTROLLER_ENDING");
    // And its sockets are gone.
    assert!(!place.path().join("agents.sock").exists());
    assert!(!place.path().join("operators.sock").exists());
}

#[tokio::test]
async fn hello_comes_first_and_once() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.silent_agent().await;
    agent.send(FromAgent::Usage(usage(1, ("a", 1), 0, 5))).await;
    assert_eq!(reason(&agent.end().await), "HELLO_MISSING");
    let mut agent = running.agent(hello("n1")).await;
    agent.send(FromAgent::Hello(hello("n2"))).await;
    assert_eq!(reason(&agent.end().await), "HELLO_MISSING");
    assert_eq!(running.used().await, []);
    running.stop().await;
}
