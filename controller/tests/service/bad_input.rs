//! Garbage and trouble: each is an error that names the object, and changes nothing else.

use std::fs;

use bulkhead_controller::{Controller, LedgerError, ServeError};
use bulkhead_proto::v1;
use bulkhead_proto::v1::sync_request::Message as FromAgent;
use bulkhead_proto::v1::sync_response::Message as ToAgent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;

use crate::running::{Agent, Place, Running, hello, reason, usage};

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

type Break = fn(&mut v1::UsageBatch);

#[tokio::test]
async fn a_batch_with_one_bad_record_is_refused_whole_and_named() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    connected(&running).await.report(usage(1, ("a", 1), 0, 5)).await;
    let cases: [(&str, &str, Break); 5] = [
        ("USAGE_INVALID", "sequence 0", |batch| batch.sequence = 0),
        ("USAGE_INVALID", "record 1", |batch| {
            batch.records[1].virtual_cluster = "..".to_owned();
        }),
        ("USAGE_INVALID", "record 1", |batch| {
            batch.records[1].window_nanoseconds = 7;
        }),
        ("IDENTITY_MISMATCH", "\"a\"", |batch| {
            batch.records[1].virtual_cluster_number = 9;
        }),
        ("IDENTITY_MISMATCH", "number 1", |batch| {
            batch.records[1].virtual_cluster = "x".to_owned();
        }),
    ];
    for (expected, named, break_it) in cases {
        let mut agent = connected(&running).await;
        let mut batch = usage(2, ("a", 1), 60, 50);
        batch.records.push(batch.records[0].clone());
        break_it(&mut batch);
        agent.send(FromAgent::Usage(batch)).await;
        let status = agent.end().await;
        assert_eq!(reason(&status), expected);
        assert!(status.message().contains(named), "{status:?}");
        assert_eq!(running.used().await, [("a".to_owned(), 5)]);
    }
    assert_eq!(running.agent(hello("n1")).await.welcome().await.acknowledged_sequence, 1);
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
