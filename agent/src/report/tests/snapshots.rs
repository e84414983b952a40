//! Snapshots come in, whole or not at all.

use super::*;
use bulkhead_core::Snapshot;
use bulkhead_proto::v1::sync_response::Message;

fn chunk(generation: u64, first: bool, last: bool, number: u32) -> v1::SnapshotChunk {
    v1::SnapshotChunk {
        generation,
        first,
        last,
        virtual_clusters: vec![v1::AgentVirtualCluster {
            name: format!("team-{number}"),
            number,
            spec: None,
            node_ports: Vec::new(),
        }],
        ..v1::SnapshotChunk::default()
    }
}

fn taken(event: ReportEvent) -> Option<Arc<Snapshot>> {
    match event {
        ReportEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    }
}

#[tokio::test]
async fn chunks_become_a_snapshot() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    assert_eq!(reporting.connected().await, "9.9.9");
    controller.say(Message::Snapshot(chunk(1, true, false, 9))).await;
    for (first, last, number) in [(true, false, 1), (false, false, 2), (false, true, 3)] {
        controller.say(Message::Snapshot(chunk(2, first, last, number))).await;
    }
    let snapshot = reporting.next(taken).await;
    assert_eq!(snapshot.generation, 2);
    let names: Vec<String> = snapshot.virtual_clusters.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["team-1", "team-2", "team-3"]);
}

#[tokio::test]
async fn a_wrong_one_is_refused_whole_and_the_controller_learns_why() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    controller.say(Message::Snapshot(chunk(4, true, true, 0))).await;
    let refused = |event| match event {
        ReportEvent::SnapshotRefused { generation, reason } => Some((generation, reason)),
        ReportEvent::Snapshot(_) => panic!("it is taken"),
        _ => None,
    };
    let (generation, reason) = reporting.next(refused).await;
    assert_eq!(generation, 4);
    assert!(reason.contains("team-0"), "{reason}");
    let reasons = || {
        let status = controller.ledger().statuses.last().cloned().unwrap_or_default();
        status.reasons.into_iter().map(|reason| reason.message).collect::<Vec<_>>()
    };
    until(|| reasons().iter().any(|reason| reason.contains("generation 4"))).await;

    controller.say(Message::Snapshot(chunk(5, true, true, 1))).await;
    assert_eq!(reporting.next(taken).await.generation, 5);
    until(|| reasons().is_empty()).await;
    assert_eq!(controller.ledger().hellos.len(), 1);
}

#[tokio::test]
async fn an_owner_that_is_slow_slows_the_stream_and_loses_nothing() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    let sender = controller.clone();
    let sending = tokio::spawn(async move {
        for generation in 1..=300 {
            sender.say(Message::Snapshot(chunk(generation, true, true, 1))).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for generation in 1..=300 {
        assert_eq!(reporting.next(taken).await.generation, generation);
    }
    sending.await.unwrap();
}

fn delta(base_generation: u64, generation: u64, number: u32) -> v1::SnapshotDelta {
    v1::SnapshotDelta {
        base_generation,
        generation,
        upserted: chunk(generation, true, true, number).virtual_clusters,
        ..v1::SnapshotDelta::default()
    }
}

/// What the last Hello said that is held.
fn held(controller: &Controller) -> (usize, u64, u64) {
    let ledger = controller.ledger();
    let hello = ledger.hellos.last().cloned().unwrap_or_default();
    assert!(hello.takes_deltas);
    (ledger.hellos.len(), hello.held_instance, hello.held_generation)
}

#[tokio::test]
async fn changes_lead_on_over_streams() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    assert_eq!(held(&controller), (1, 0, 0));
    controller.say(Message::Snapshot(chunk(2, true, true, 1))).await;
    controller.say(Message::Delta(delta(2, 4, 2))).await;
    assert_eq!(reporting.next(taken).await.generation, 2);
    let snapshot = reporting.next(taken).await;
    assert_eq!((snapshot.generation, snapshot.virtual_clusters.len()), (4, 2));

    drop(serving);
    reporting.away().await;
    let _serving = controller.serve(&node.socket()).await;
    reporting.connected().await;
    assert_eq!(held(&controller), (2, controller::INSTANCE, 4));
    controller.say(Message::Delta(delta(4, 5, 3))).await;
    let snapshot = reporting.next(taken).await;
    assert_eq!((snapshot.generation, snapshot.virtual_clusters.len()), (5, 3));
}

#[tokio::test]
async fn a_change_of_another_base_ends_the_stream_and_everything_is_asked_for() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    controller.say(Message::Snapshot(chunk(2, true, true, 1))).await;
    assert_eq!(reporting.next(taken).await.generation, 2);
    controller.say(Message::Delta(delta(3, 4, 2))).await;
    let reason = reporting.away().await;
    assert!(reason.contains("does not fit"), "{reason}");
    assert!(reason.contains("of generation 3, and generation 2 is held"), "{reason}");
    reporting.connected().await;
    assert_eq!(held(&controller), (2, 0, 0));
    controller.say(Message::Snapshot(chunk(4, true, true, 7))).await;
    let snapshot = reporting.next(taken).await;
    assert_eq!((snapshot.generation, snapshot.virtual_clusters.len()), (4, 1));
}

#[tokio::test]
async fn pods_are_told_on_each_stream_and_when_they_change() {
    let node = Node::new();
    let pod = |name: &str| bulkhead_core::LocalPod {
        namespace: "n".to_owned(),
        name: name.to_owned(),
        addresses: ["10.1.0.7".parse().unwrap()].into(),
        ..bulkhead_core::LocalPod::default()
    };
    node.pods.send_replace(Arc::new([("1".to_owned(), pod("a"))].into()));
    let controller = Controller::new(Behaviour::Good);
    let serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    until(|| controller.ledger().pods.len() == 1).await;
    node.pods.send_replace(Arc::new([("2".to_owned(), pod("b"))].into()));
    until(|| controller.ledger().pods.len() == 2).await;
    drop(serving);
    reporting.away().await;
    let _serving = controller.serve(&node.socket()).await;
    until(|| controller.ledger().pods.len() == 3).await;
    let told = controller.ledger().pods.clone();
    let shown = |told: &v1::LocalPods| {
        let pods = told.pods.iter().map(|pod| format!("{} {:?}", pod.uid, pod.addresses));
        (told.whole, pods.collect::<Vec<_>>(), told.removed.clone())
    };
    let (first, second) = ("1 [\"10.1.0.7\"]".to_owned(), "2 [\"10.1.0.7\"]".to_owned());
    assert_eq!(shown(&told[0]), (true, vec![first], vec![]));
    assert_eq!(shown(&told[1]), (false, vec![second.clone()], vec!["1".to_owned()]));
    assert_eq!(shown(&told[2]), (true, vec![second], vec![]));
}
