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
        }],
        ..v1::SnapshotChunk::default()
    }
}

fn taken(event: ReportEvent) -> Option<(Snapshot, Vec<v1::SnapshotChunk>)> {
    match event {
        ReportEvent::Snapshot { snapshot, chunks } => Some((snapshot, chunks)),
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
    let (snapshot, chunks) = reporting.next(taken).await;
    assert_eq!(snapshot.generation, 2);
    let names: Vec<String> = snapshot.virtual_clusters.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["team-1", "team-2", "team-3"]);
    assert_eq!(chunks.len(), 3);
    assert_eq!(super::super::snapshot(&chunks), Ok(snapshot));
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
        ReportEvent::Snapshot { .. } => panic!("it is taken"),
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
    assert_eq!(reporting.next(taken).await.0.generation, 5);
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
        assert_eq!(reporting.next(taken).await.0.generation, generation);
    }
    sending.await.unwrap();
}
