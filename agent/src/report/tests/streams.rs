//! Streams begin, end, and begin again.

use super::controller::{response, welcome};
use super::*;
use bulkhead_proto::v1::sync_response::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

#[tokio::test]
async fn a_controller_that_comes_later_gets_everything() {
    let node = Node::new();
    for value in 1..=20 {
        node.journal().append(&[record(1, value, value)]).unwrap();
    }
    let mut reporting = node.report(QUICK);
    let reason = reporting.away().await;
    assert!(reason.contains("agents"), "{reason}");
    assert!(reason.contains("No such file"), "{reason}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Told once, though it was tried often.
    assert!(reporting.events.is_empty());

    let controller = Controller::new(Behaviour::Good);
    let serving = controller.serve(&node.socket()).await;
    reporting.connected().await;
    reporting.acknowledged(Sequence(20)).await;
    drop(serving);
    reporting.away().await;
    node.journal().append(&[record(1, 21, 21)]).unwrap();
    let _serving = controller.serve(&node.socket()).await;
    reporting.connected().await;
    reporting.acknowledged(Sequence(21)).await;
    let expected: BTreeMap<Key, u64> =
        (1..=21).flat_map(|value| truth(BOOT, &record(1, value, value))).collect();
    assert_eq!(controller.ledger().values, expected);
}

#[tokio::test]
async fn status_is_sent_when_it_changes_and_as_a_heartbeat() {
    let node = Node::new();
    node.journal().append(&[record(1, 1, 1), record(2, 1, 1)]).unwrap();
    let controller = Controller::new(Behaviour::Silent);
    let _serving = controller.serve(&node.socket()).await;
    let _reporting = node.report(Pace { heartbeat: Duration::from_millis(20), ..QUICK });
    until(|| controller.ledger().statuses.len() >= 5).await;
    node.status.send_modify(|status| status.applied_generation = 3);
    let newest = || controller.ledger().statuses.last().cloned().unwrap();
    until(|| newest().applied_generation == 3).await;
    assert_eq!(newest().journal_backlog_records, 2);
    assert_eq!(controller.ledger().hellos.len(), 1);
}

#[tokio::test]
async fn other_facts_begin_another_stream() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    node.facts.send_modify(|facts| facts.addresses.push("10.0.0.1".to_owned()));
    reporting.connected().await;
    let ledger = controller.ledger();
    assert_eq!(ledger.hellos.len(), 2);
    assert_eq!(ledger.hellos[1].facts.as_ref().unwrap().addresses, ["10.0.0.1"]);
}

#[tokio::test]
async fn what_a_controller_must_not_say_ends_the_stream_and_is_told() {
    let ack = |sequence| Message::UsageAck(v1::UsageAck { sequence });
    let chunk = v1::SnapshotChunk { generation: 3, ..v1::SnapshotChunk::default() };
    let node = Node::new();
    let controller = Controller::new(Behaviour::Says(Box::new(response(ack(1)))));
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    let reason = reporting.away().await;
    assert!(reason.contains("an acknowledgement where a Welcome"), "{reason}");
    controller.behave(Behaviour::Says(Box::new(response(Message::Snapshot(chunk.clone())))));
    let reason = reporting.away().await;
    assert!(reason.contains("a snapshot where a Welcome"), "{reason}");

    controller.behave(Behaviour::Good);
    let again = welcome(0).message.unwrap();
    let cases = [
        (ack(7), "acknowledged batch 7, which was never sent"),
        (Message::Snapshot(chunk), "snapshot 3 came without its first"),
        (again, "Welcome twice"),
    ];
    for (message, expected) in cases {
        reporting.connected().await;
        controller.say(message).await;
        let reason = reporting.away().await;
        assert!(reason.contains(expected), "{reason}");
    }
    reporting.connected().await;
}

#[tokio::test]
async fn messages_of_a_newer_controller_are_passed_over() {
    let node = Node::new();
    node.journal().append(&[record(1, 1, 1)]).unwrap();
    let controller = Controller::new(Behaviour::Says(Box::default()));
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    until(|| controller.ledger().hellos.len() == 1).await;
    controller.say(welcome(0).message.unwrap()).await;
    reporting.connected().await;
    until(|| controller.ledger().streams[0] == [1]).await;
    assert_eq!(controller.ledger().hellos.len(), 1);
}

#[tokio::test]
async fn a_controller_that_says_nothing_is_left() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Deaf);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(Pace { patience: Duration::from_millis(50), ..QUICK });
    let reason = reporting.away().await;
    assert!(reason.contains("no answer to Hello"), "{reason}");
    until(|| controller.ledger().hellos.len() >= 2).await;
}

#[tokio::test]
async fn a_port_that_talks_something_else_is_told() {
    let node = Node::new();
    std::fs::create_dir_all(node.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(node.socket()).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n".repeat(20).as_slice()).await;
        }
    });
    let mut reporting = node.report(Pace { patience: Duration::from_secs(1), ..QUICK });
    let reason = reporting.away().await;
    assert!(!reason.is_empty());
    drop(node.stop);
    timeout(Duration::from_secs(5), reporting.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn reporting_ends_when_it_is_told_or_nobody_listens() {
    let node = Node::new();
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    let Reporting { events, task } = reporting;
    drop(events);
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();

    let mut reporting = node.report(QUICK);
    reporting.connected().await;
    node.stop.send_replace(true);
    timeout(Duration::from_secs(5), reporting.task).await.unwrap().unwrap();
}
