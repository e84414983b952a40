//! Counters against what receivers and interfaces saw.

use std::time::{Duration, Instant};

use bulkhead_abi::{Class, Counters, Direction, FarEnd, MODE_ENFORCE, Outcome};
use serde_json::json;

use crate::fixture::{GREEN, Node, address, at, ready, run};

/// Bytes of IPv4 and UDP headers.
const V4_HEADERS: u64 = 28;
/// Bytes of IPv6 and UDP headers.
const V6_HEADERS: u64 = 48;

fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn both_ends_count_what_the_receiver_received() {
    let node = Node::enforcing();
    let peer = node.green_peer();
    let own = |direction| node.cell("green", direction, Class::Own, Outcome::Passed);
    let mut expected = (0, 0);
    for (there, headers) in [(at(peer.v4, 9000), V4_HEADERS), (at(peer.v6, 9000), V6_HEADERS)] {
        let sink = ready(&node.traffic("green", peer), &format!("udp-recv --bind {there}"));
        let line = format!("udp-send --to {there} --count 1000 --bytes 333 --pause-us 20");
        run(&node.traffic("green", node.green()), &line);
        let received = sink.finish().expect("sink");
        assert_eq!(received["received"], 1000, "nothing is lost on a bridge: {received}");
        expected.0 += number(&received["received"]);
        expected.1 += number(&received["bytes"]) + headers * number(&received["received"]);
    }
    // Neighbours find each other by multicast, which is no virtual cluster's address.
    assert_eq!(own(Direction::Egress), expected);
    assert_eq!(own(Direction::Ingress), expected);
}

#[test]
fn every_class_has_its_cell() {
    let node = Node::bare();
    node.join("green", GREEN, MODE_ENFORCE);
    node.learn(node.green(), GREEN);
    let tables = node.bpf.tables();
    let shared = FarEnd { virtual_cluster: 0, flags: FarEnd::SHARED | FarEnd::CLUSTER };
    let peer = node.green_peer();
    tables.addresses.put(&[(address(peer.v4.into()), shared)]).expect("share");
    node.bpf.attach_all().expect("attach");
    let green = node.traffic("green", node.green());
    let send = |to: String, count: u64| {
        let said = run(&green, &format!("udp-send --to {to} --count {count} --bytes 72"));
        assert_eq!((&said["sent"], &said["errors"]), (&json!(count), &json!({})), "{said}");
    };
    let receive =
        |host, to: &str| ready(&node.sandbox.outsider(host), &format!("udp-recv --bind {to}"));

    let to_shared = at(peer.v4, 9000);
    let sink = receive(peer, &to_shared);
    send(to_shared, 3);
    assert_eq!(sink.finish().expect("sink")["received"], 3);
    send(at(node.green().v4, 9000), 5);
    send("127.0.0.1:9000".to_owned(), 7);
    let red = at(node.red().v4, 9000);
    send(red.clone(), 11);
    // Without the cluster's ranges, nobody's address is outside.
    let ranges = tables.prefixes.read_all().expect("read");
    let ranges: Vec<_> = ranges.into_iter().map(|(prefix, _)| prefix).collect();
    tables.prefixes.remove(&ranges).expect("remove");
    let sink = receive(node.red(), &red);
    send(red, 13);
    assert_eq!(sink.finish().expect("sink")["received"], 13);

    let out = |class, outcome| node.cell("green", Direction::Egress, class, outcome);
    assert_eq!(out(Class::Shared, Outcome::Passed), (3, 300));
    assert_eq!(out(Class::Own, Outcome::Passed), (5, 500));
    assert_eq!(out(Class::Node, Outcome::Passed), (7, 700));
    assert_eq!(out(Class::Cluster, Outcome::Denied), (11, 1100));
    assert_eq!(out(Class::Outside, Outcome::Passed), (13, 1300));
    assert_eq!(out(Class::Other, Outcome::Denied), (0, 0));
}

#[test]
fn bulk_tcp_is_counted_as_the_interface_counts_it() {
    let node = Node::enforcing();
    let (green, peer) = (node.green(), node.green_peer());
    let there = at(peer.v4, 9000);
    let server = ready(&node.traffic("green", peer), &format!("tcp-serve --bind {there}"));
    let interface = || {
        let read = |counter| green.interface_counter(counter).expect("counter");
        (read("tx_bytes"), read("tx_packets"))
    };
    let before = interface();
    let line = format!("tcp-connect --to {there} --bytes 50000000");
    let said = run(&node.traffic("green", green), &line);
    assert_eq!(said["sent"], 50_000_000, "{said}");
    let after = interface();
    assert_eq!(server.finish().expect("server")["bytes"], 50_000_000);

    let cells = node.counters("green").cells;
    let own = cells[Direction::Egress as usize][Class::Own as usize];
    let bytes: u64 = own.iter().map(|cell| cell.bytes).sum();
    let segments: u64 = own.iter().map(|cell| cell.packets).sum();
    // Of both ends: the receiver's acknowledgements have left through its own interface.
    let acknowledged = peer.interface_counter("tx_bytes").expect("counter");
    let on_the_wire = after.0 - before.0 + acknowledged;
    let difference = on_the_wire.abs_diff(bytes);
    assert!(difference * 100 < on_the_wire, "{bytes} bytes counted, {on_the_wire} on the wire");
    // What the interface sends as one large packet is counted as the segments that it carries.
    assert!(segments >= 50_000_000 / 1460, "{segments} segments, {} packets", after.1 - before.1);
}

#[test]
fn senders_that_compete_lose_no_packet_of_the_count() {
    let node = Node::enforcing();
    let line = "udp-send --to 127.0.0.1:9000 --count 50000 --bytes 10";
    let senders: Vec<_> =
        (0..4).map(|_| node.traffic("green", node.green()).start(line).expect("start")).collect();
    let mut sent = 0;
    for sender in senders {
        let said = sender.finish().expect("sender");
        // Nobody listens there, and sometimes the kernel says so instead of sending.
        sent += number(&said["sent"]);
    }
    let (packets, bytes) = node.cell("green", Direction::Egress, Class::Node, Outcome::Passed);
    assert_eq!((packets, bytes), (sent, sent * (10 + V4_HEADERS)));
}

#[test]
fn a_slot_that_another_gets_counts_nothing_of_the_one_before() {
    const OTHER: u64 = 1;
    let node = Node::enforcing();
    let counters = &node.bpf.tables().counters;
    let sent = || node.cell("green", Direction::Egress, Class::Node, Outcome::Passed).0;
    let line = "udp-send --to 127.0.0.1:9000 --count 100000 --bytes 10";
    let mut sender = node.traffic("green", node.green()).start(line).expect("start");
    let deadline = Instant::now() + Duration::from_secs(10);
    while sent() < 1000 {
        assert!(Instant::now() < deadline, "nothing is sent");
    }
    let last = counters.remove(node.id("green")).expect("remove").expect("it was counted");
    assert!(counters.create(OTHER).expect("make"), "in the slot that is free now");
    let said = sender.wait_for_line().expect("result");
    let last = last.cells[0][Class::Node as usize][Outcome::Passed as usize].packets;
    assert!(number(&said["sent"]) > last, "it went on: {last} of {said}");
    let all = counters.read_all().expect("read");
    let (_, other) = all.into_iter().find(|(id, _)| *id == OTHER).expect("it is counted");
    assert_eq!(other, Counters::default());
}

#[test]
fn without_counters_the_verdict_holds() {
    let node = Node::enforcing();
    let last = node.bpf.tables().counters.remove(node.id("green")).expect("remove");
    assert!(last.is_some());
    let green = node.traffic("green", node.green());
    let said = run(&green, &format!("tcp-connect --to {}", at(node.red().v4, 9000)));
    assert_eq!(said["error"], "EPERM", "{said}");
    let said = run(&green, &format!("ping --to {}", node.green_peer().v4));
    assert_eq!(said["answers"], 1, "{said}");
    assert_eq!(node.bpf.tables().counters.read_all().expect("read").len(), 1);
}
