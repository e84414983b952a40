//! Agents that take changes: what they are told, and from where they go on.

use bulkhead_core::{Delta, Snapshot};
use bulkhead_proto::snapshots;
use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;

use crate::running::{Agent, Place, Running, cluster, hello, usage};

/// Says that it takes changes and what it holds.
fn taking(node: &str, instance: u64, generation: u64) -> v1::Hello {
    v1::Hello {
        takes_deltas: true,
        held_instance: instance,
        held_generation: generation,
        ..hello(node)
    }
}

/// An agent, and what it is told first, whole.
async fn told_whole(running: &Running, hello: v1::Hello) -> (Agent, u64, Snapshot) {
    let mut agent = running.agent(hello).await;
    let instance = agent.welcome().await.instance;
    assert_ne!(instance, 0);
    let mut chunks = Vec::new();
    loop {
        match agent.next().await.unwrap() {
            ToAgent::Snapshot(chunk) => chunks.push(chunk),
            other => panic!("no snapshot: {other:?}"),
        }
        if chunks.last().is_some_and(|chunk| chunk.last) {
            return (agent, instance, snapshots::snapshot(&chunks).unwrap());
        }
    }
}

/// What it leads to from what is held.
async fn changed(agent: &mut Agent, held: &Snapshot) -> Snapshot {
    match agent.next().await.unwrap() {
        ToAgent::Delta(delta) => held.changed_by(&Delta::try_from(&delta).unwrap()).unwrap(),
        other => panic!("no change: {other:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_takes_changes_is_told_what_changed() {
    let place = Place::with(&["a", "b"]);
    let running = place.start().await;
    let (mut agent, _, first) = told_whole(&running, taking("n1", 0, 0)).await;
    let mut old = running.agent(hello("old")).await;
    old.snapshot().await;
    place.write("b.yaml", &cluster("b", "{members: {addresses: [10.1.0.7]}}"));
    let second = changed(&mut agent, &first).await;
    let addresses =
        |snapshot: &Snapshot| snapshot.virtual_clusters[&"b".parse().unwrap()].addresses.len();
    assert_eq!((addresses(&first), addresses(&second)), (0, 1));
    // One that does not say that it takes them is told everything.
    let whole = old.snapshot().await;
    assert_eq!((whole.generation, whole.virtual_clusters.len()), (second.generation, 2));
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_comes_again_is_told_what_changed_since() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let (agent, instance, first) = told_whole(&running, taking("n1", 0, 0)).await;
    drop(agent);
    place.write("b.yaml", &cluster("b", "{}"));
    let mut other = running.agent(hello("n2")).await;
    while other.snapshot().await.virtual_clusters.len() != 2 {}

    let mut agent = running.agent(taking("n1", instance, first.generation)).await;
    assert_eq!(agent.welcome().await.instance, instance);
    let second = changed(&mut agent, &first).await;
    assert_eq!(second.virtual_clusters.len(), 2);

    // Nothing changed since: nothing is told but what comes later.
    drop(agent);
    let mut agent = running.agent(taking("n1", instance, second.generation)).await;
    agent.welcome().await;
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 5)).await, 1);
    place.write("c.yaml", &cluster("c", "{}"));
    assert_eq!(changed(&mut agent, &second).await.virtual_clusters.len(), 3);

    // What another controller counted, or nobody knows any more, is told whole.
    drop(agent);
    let (agent, ..) = told_whole(&running, taking("n1", instance + 1, second.generation)).await;
    drop(agent);
    let (agent, ..) = told_whole(&running, taking("n1", instance, 1_000_000)).await;
    drop(agent);
    running.stop().await;
    let running = place.start().await;
    let (_agent, again, whole) =
        told_whole(&running, taking("n1", instance, second.generation)).await;
    assert_ne!(again, instance);
    assert!(whole.generation > second.generation);
    running.stop().await;
}

#[tokio::test]
async fn pods_that_cannot_be_are_shown_with_the_node_and_its_usage_goes_on() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(taking("n1", 0, 0)).await;
    let pod = |address: &str| v1::LocalPod {
        uid: "1".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-0".to_owned(),
        addresses: vec![address.to_owned()],
        ..v1::LocalPod::default()
    };
    let pods = |address| v1::LocalPods { whole: true, pods: vec![pod(address)], removed: vec![] };
    agent.send(FromAgent::Pods(pods("10.0.0"))).await;
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 5)).await, 1);
    let nodes = running.nodes().await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    let status = nodes.into_inner().nodes.remove(0).status.unwrap();
    let reason = status.reasons.iter().find(|reason| reason.subject == "pods").unwrap();
    assert!(reason.message.contains("addresses[0]"), "{reason:?}");
    agent.send(FromAgent::Pods(pods("10.0.0.1"))).await;
    assert_eq!(agent.report(usage(2, ("a", 1), 60, 6)).await, 2);
    let nodes = running.nodes().await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    assert!(nodes.into_inner().nodes[0].status.is_none());
    running.stop().await;
}

/// Virtual clusters of a large snapshot.
const PARTS: u32 = 6;

#[tokio::test]
async fn an_agent_that_takes_nothing_keeps_no_other_waiting_and_skips_what_is_outdated() {
    let place = Place::new();
    // More than what fits in between, whatever the transport keeps.
    let text = |version: u32| {
        let one = |part: u32| {
            let network = version * PARTS + part;
            let addresses: Vec<String> =
                (0..8_000_u32).map(|n| format!("10.{network}.{}.{}", n / 250, n % 250)).collect();
            let spec = format!("{{members: {{addresses: [{}]}}}}", addresses.join(", "));
            cluster(&format!("part-{part}"), &spec)
        };
        (0..PARTS).map(one).collect::<Vec<String>>().join("---\n")
    };
    place.write("a.yaml", &text(0));
    let running = place.start().await;
    // It reads nothing, and what fits in between is soon full.
    let mut slow = running.agent(hello("slow")).await;
    let mut quick = running.agent(hello("quick")).await;
    let mut newest = quick.snapshot().await.generation;
    let first = newest;
    for version in 1..12 {
        place.write("a.yaml", &text(version));
        let generation = quick.snapshot().await.generation;
        assert!(generation > newest);
        newest = generation;
    }
    let mut seen = 0;
    let mut last = 0;
    while last != newest {
        last = slow.snapshot().await.generation;
        seen += 1;
    }
    assert!(seen <= newest - first, "it was told {seen} of {}", newest - first + 1);
    running.stop().await;
}
