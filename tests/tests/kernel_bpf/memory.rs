//! Verdicts that the programs keep with a socket: never older than the tables.

use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use bulkhead_abi::{Class, Direction, MODE_OBSERVE, Member, Outcome, maps};
use bulkhead_tests::sandbox::Running;
use serde_json::json;

use crate::fixture::{Node, RED, at, options, ready};

/// Datagrams of one long-lived socket: about two seconds of them.
const DATAGRAMS: u64 = 20_000;

/// One socket of green that sends to its peer for some time.
fn sender(node: &Node, v6: bool, connected: bool) -> Running {
    let peer = node.green_peer();
    let to = if v6 { at(peer.v6, 9000) } else { at(peer.v4, 9000) };
    let connected = if connected { "--connected" } else { "" };
    let line = format!("udp-send --to {to} --count {DATAGRAMS} --pause-us 40 {connected}");
    node.traffic("green", node.green()).start(&line).expect("start")
}

/// Somebody who listens: a socket that hears of a closed port would have errors of its own.
fn sinks(node: &Node) -> [Running; 2] {
    let peer = node.sandbox.outsider(node.green_peer());
    let (v4, v6) = (at(node.green_peer().v4, 9000), at(node.green_peer().v6, 9000));
    [v4, v6].map(|bind| ready(&peer, &format!("udp-recv --bind {bind}")))
}

fn passed(node: &Node) -> u64 {
    node.cell("green", Direction::Egress, Class::Own, Outcome::Passed).0
}

/// Waits until the socket has sent so much that its verdict is kept.
fn under_way(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let begun = passed(node);
    while passed(node) < begun + 200 {
        assert!(Instant::now() < deadline, "nothing is sent");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_change_holds_for_the_next_packet_of_a_socket_that_is_open() {
    for (v6, connected) in [(false, true), (true, true), (false, false), (true, false)] {
        let node = Node::enforcing();
        let _sinks = sinks(&node);
        let mut sender = sender(&node, v6, connected);
        under_way(&node);
        node.learn(node.green_peer(), RED);
        // One packet may be on its way through the programs when the change returns.
        let until_then = passed(&node) + 1;
        let said = sender.wait_for_line().expect("result");
        assert!(passed(&node) <= until_then, "v6 {v6}, connected {connected}: {said}");
        let refused = said["errors"]["EPERM"].as_u64().expect("refusals");
        assert_eq!(refused + said["sent"].as_u64().expect("sent"), DATAGRAMS, "{said}");
    }
}

#[test]
fn leaving_the_virtual_cluster_holds_for_the_next_packet() {
    let node = Node::enforcing();
    let _sinks = sinks(&node);
    let mut sender = sender(&node, false, true);
    under_way(&node);
    node.bpf.tables().members.remove(&[node.id("green")]).expect("isolate");
    let until_then = passed(&node) + 1;
    let said = sender.wait_for_line().expect("result");
    assert!(passed(&node) <= until_then, "{said}");
    assert_eq!(said["errors"], json!({}), "nobody's packets vanish: {said}");
}

#[test]
fn what_passes_only_because_it_is_observed_is_judged_anew_when_that_ends() {
    let node = Node::in_mode(MODE_OBSERVE);
    let there = at(node.red().v4, 9000);
    let sink = ready(&node.sandbox.outsider(node.red()), &format!("udp-recv --bind {there}"));
    let line = format!("udp-send --to {there} --count {DATAGRAMS} --pause-us 40 --connected");
    let mut sender = node.traffic("green", node.green()).start(&line).expect("start");
    let observed = || node.cell("green", Direction::Egress, Class::Other, Outcome::WouldDeny).0;
    let deadline = Instant::now() + Duration::from_secs(10);
    while observed() < 200 {
        assert!(Instant::now() < deadline, "nothing is sent");
    }
    let member =
        Member { virtual_cluster: crate::fixture::GREEN, mode: bulkhead_abi::MODE_ENFORCE };
    node.bpf.tables().members.put(&[(node.id("green"), member)]).expect("enforce");
    let until_then = observed() + 1;
    let said = sender.wait_for_line().expect("result");
    assert!(observed() <= until_then, "{said}");
    let denied = node.cell("green", Direction::Egress, Class::Other, Outcome::Denied).0;
    assert_eq!(said["errors"], json!({ "EPERM": denied }), "{said}");
    assert!(denied > 0, "{said}");
    let received = sink.finish().expect("sink")["received"].as_u64().expect("a number");
    assert!(received <= until_then, "{received} of {until_then}");
}

/// An agent that is killed while it changes a table leaves the generation odd.
#[test]
fn a_change_that_nobody_ended_leaves_programs_that_look_everything_up() {
    let node = Node::enforcing();
    let _sinks = sinks(&node);
    let mut sender = sender(&node, false, true);
    under_way(&node);
    let pin = options(&node.sandbox).pin_dir.join("maps").join(maps::GENERATION);
    let map = Map::Array(MapData::from_pin(pin).expect("open GENERATION"));
    let mut generation = Array::<_, u64>::try_from(map).expect("an array");
    let even = generation.get(&0, 0).expect("read");
    assert_eq!(even % 2, 0, "no change is under way");
    generation.set(0, even + 1, 0).expect("write");
    // Behind the back of the tables' owner, so that nothing but the odd number tells of it.
    let pin = options(&node.sandbox).pin_dir.join("maps").join(maps::ADDRESSES);
    let map = Map::HashMap(MapData::from_pin(pin).expect("open ADDRESSES"));
    let mut addresses =
        aya::maps::HashMap::<_, bulkhead_abi::Address, bulkhead_abi::FarEnd>::try_from(map)
            .expect("a table");
    let red = bulkhead_abi::FarEnd { virtual_cluster: RED, flags: bulkhead_abi::FarEnd::CLUSTER };
    addresses.insert(crate::fixture::address(node.green_peer().v4.into()), red, 0).expect("write");
    let until_then = passed(&node) + 1;
    let said = sender.wait_for_line().expect("result");
    assert!(passed(&node) <= until_then, "{said}");
    // The next agent ends it.
    let (node, _) = node.restart();
    let now = generation.get(&0, 0).expect("read");
    assert!(now > even + 1 && now % 2 == 0, "{now} after {even}");
    drop(node);
}

#[test]
fn each_packet_of_an_established_socket_is_counted() {
    let node = Node::enforcing();
    let (v4, v6) = (at(node.green_peer().v4, 9000), at(node.green_peer().v6, 9001));
    let peer = node.traffic("green", node.green_peer());
    let sinks = [&v4, &v6].map(|to| ready(&peer, &format!("udp-recv --bind {to}")));
    let green = node.traffic("green", node.green());
    for to in [v4, v6] {
        let line = format!("udp-send --to {to} --count 500 --bytes 100 --connected --pause-us 20");
        assert_eq!(crate::fixture::run(&green, &line)["sent"], 500);
    }
    for sink in sinks {
        assert_eq!(sink.finish().expect("sink")["received"], 500);
    }
    let bytes = 500 * (100 + 8 + 20) + 500 * (100 + 8 + 40);
    for direction in [Direction::Egress, Direction::Ingress] {
        let cell = node.cell("green", direction, Class::Own, Outcome::Passed);
        assert_eq!(cell, (1_000, bytes), "{direction:?}");
    }
}
