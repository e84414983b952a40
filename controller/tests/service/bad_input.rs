//! Garbage and trouble: each is an error that names the object, and changes nothing else.

use std::fs;

use bulkhead_controller::{Controller, LedgerError, ServeError};
use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;

use crate::running::{Agent, PATIENCE, Place, Running, hello, reason, usage};

#[tokio::test]
async fn garbage_bytes_end_their_connection_and_nothing_else() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    agent.report(usage(1, ("a", 1), 0, 5)).await;
    let noise: Vec<u8> =
        (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for endpoint in [&running.agents, &running.operators] {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".repeat(50);
        for garbage in [noise.as_slice(), b"GET / HTTP/1.1\r\n\r\n", preface.as_slice(), b"\0"] {
            let mut stream = UnixStream::connect(endpoint.path().unwrap()).await.unwrap();
            // The other end may hang up before it has read everything.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    assert_eq!(agent.report(usage(2, ("a", 1), 60, 9)).await, 2);
    assert_eq!(running.used().await, [("a".to_owned(), 9)]);
    running.stop().await;
}

async fn connected(running: &Running) -> Agent {
    let mut agent = running.agent(hello("n1")).await;
    agent.welcome().await;
    agent
}

type Break = fn(&mut v1::UsageRecord);

#[tokio::test]
async fn a_bad_record_is_named_and_does_not_hold_up_its_journal() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = connected(&running).await;
    let cases: [(&str, Break); 3] = [
        ("virtual_cluster: ", |record| record.virtual_cluster = "..".repeat(400)),
        ("window_nanoseconds 7", |record| record.window_nanoseconds = 7),
        ("after the year 2262", |record| {
            record.window_start_unix_nanoseconds = 60 * (u64::MAX / 60 - 1);
        }),
    ];
    for (sequence, (named, break_it)) in (1..).zip(cases) {
        let mut batch = usage(sequence, ("a", 1), sequence * 60, sequence * 10);
        batch.records.insert(0, batch.records[0].clone());
        break_it(&mut batch.records[0]);
        for _ in 0..2 {
            assert_eq!(agent.report(batch.clone()).await, sequence);
        }
        assert_eq!(running.used().await, [("a".to_owned(), sequence * 10)]);
        let request = v1::GetNodeRequest { name: "n1".to_owned() };
        let node = running.nodes().await.get_node(request).await.unwrap().into_inner().node;
        let reasons = node.unwrap().status.unwrap().reasons;
        assert_eq!((reasons.len(), reasons[0].subject.as_str()), (1, "usage"), "{reasons:?}");
        let told = &reasons[0].message;
        assert!(told.starts_with(&format!("{sequence} records are not booked")), "{told}");
        assert!(told.contains("record 0") && told.contains(named), "{told}");
    }
    assert_eq!(running.agent(hello("n1")).await.welcome().await.acknowledged_sequence, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_without_a_number_ends_the_stream() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    for sequence in [0, u64::MAX] {
        let mut agent = connected(&running).await;
        agent.send(FromAgent::Usage(usage(sequence, ("a", 1), 60, 50))).await;
        let status = agent.end().await;
        assert_eq!(reason(&status), "USAGE_INVALID");
        assert!(status.message().contains(&format!("sequence {sequence}")), "{status:?}");
    }
    assert_eq!(running.used().await, []);
    running.stop().await;
}

/// The controller's data directory was lost, and with it the numbers that agents know.
#[tokio::test]
async fn numbers_of_a_lost_ledger_hold_nothing_up() {
    let place = Place::with(&["a", "b"]);
    let running = place.start().await;
    let mut agent = connected(&running).await;
    let batch = |sequence, records: [(&str, u32); 3]| v1::UsageBatch {
        sequence,
        records: records.iter().flat_map(|it| usage(0, *it, 60, 5).records).collect(),
    };
    assert_eq!(agent.report(batch(1, [("b", 1), ("a", 2), ("gone", 1)])).await, 1);
    let used = ["a", "b", "gone"].map(|name| (name.to_owned(), 5));
    assert_eq!(running.used().await, used);
    running.stop().await;
}

#[tokio::test]
async fn a_hello_that_names_nobody_is_refused() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let status = running.agent(hello("../n1")).await.end().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "HELLO_INVALID"));
    let nodes = running.nodes().await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    assert_eq!(nodes.into_inner().nodes, []);
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_keeps_what_it_has() {
    let place = Place::with(&["a"]);
    let mut config = place.config();
    config.ledger_page_limit = Some(48);
    let running = Running::start(config).await;
    let mut agent = connected(&running).await;
    let large = |sequence: u64| {
        let one = |n| usage(0, ("a", 1), (sequence * 500 + n) * 60, sequence * 500 + n);
        let records = (0..500).flat_map(|n| one(n).records).collect();
        v1::UsageBatch { sequence, records }
    };
    let mut stored = 0;
    let status = loop {
        agent.send(FromAgent::Usage(large(stored + 1))).await;
        let answer = loop {
            match agent.next().await {
                Ok(ToAgent::UsageAck(ack)) => break Ok(ack.sequence),
                Ok(_) => {}
                Err(status) => break Err(status),
            }
        };
        match answer {
            Ok(sequence) => stored = sequence,
            Err(status) => break status,
        }
        assert!(stored < 1_000, "the limit is not kept");
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LEDGER_FULL"));
    assert!(status.message().contains("ledger.db"), "{status:?}");
    let used = running.used().await;
    running.stop().await;

    // There is room again: the agent sends what was not acknowledged.
    let running = place.start().await;
    assert_eq!(running.used().await, used);
    let mut agent = running.agent(hello("n1")).await;
    assert_eq!(agent.welcome().await.acknowledged_sequence, stored);
    assert_eq!(agent.report(large(stored + 1)).await, stored + 1);
    running.stop().await;
}

/// Every write fails, as on a disk that is full to the last byte.
#[tokio::test]
async fn while_nothing_can_be_stored_agents_are_told_everything() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut first = connected(&running).await;
    let ledger = rusqlite::Connection::open(place.path().join("data/ledger.db")).unwrap();
    let tables = [("node", "INSERT"), ("generation", "UPDATE"), ("stream", "INSERT")];
    for (table, change) in tables {
        let sql = format!(
            "CREATE TRIGGER no_{table} BEFORE {change} ON {table}
             BEGIN SELECT RAISE(ABORT, 'no room'); END"
        );
        ledger.execute_batch(&sql).unwrap();
    }
    let mut second = hello("n2");
    second.facts.as_mut().unwrap().addresses = vec!["192.0.2.7".to_owned()];
    let mut agent = running.agent(second.clone()).await;
    assert_eq!(agent.welcome().await.acknowledged_sequence, 0);
    assert_eq!(agent.snapshot().await.virtual_clusters.len(), 1);
    agent.send(FromAgent::Usage(usage(1, ("a", 1), 0, 5))).await;
    assert_eq!(reason(&agent.end().await), "LEDGER_FAILED");

    for (table, _) in tables {
        ledger.execute_batch(&format!("DROP TRIGGER no_{table}")).unwrap();
    }
    let mut agent = running.agent(second).await;
    assert_eq!(agent.welcome().await.acknowledged_sequence, 0);
    assert_eq!(agent.report(usage(1, ("a", 1), 0, 5)).await, 1);
    let told = async { while first.snapshot().await.node_addresses != ["192.0.2.7"] {} };
    tokio::time::timeout(PATIENCE, told).await.expect("the new node's address is told");
    assert_eq!(running.used().await, [("a".to_owned(), 5)]);
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_that_is_not_ours_stops_the_start() {
    let place = Place::with(&["a"]);
    let path = place.path().join("data/ledger.db");
    fs::create_dir(place.path().join("data")).unwrap();
    fs::write(&path, "my notes").unwrap();
    let error = Controller::start(place.config()).await.unwrap_err();
    assert!(matches!(error, ServeError::Ledger(LedgerError::NotOurs { .. })), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "my notes");
}

#[tokio::test]
async fn a_taken_socket_stops_the_start() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut second = place.config();
    second.data = place.path().join("other-data");
    let error = Controller::start(second).await.unwrap_err();
    assert!(matches!(error, ServeError::Listen(_)), "{error:?}");
    assert_eq!(running.used().await, []);
    running.stop().await;
}
