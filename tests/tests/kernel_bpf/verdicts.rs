//! What passes and what is refused, as the processes themselves see it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bulkhead_abi::{
    AllowKey, Class, Direction, FarEnd, MODE_ENFORCE, MODE_OBSERVE, MODE_OFF, Outcome,
};
use serde_json::json;

use crate::fixture::{GREEN, Node, RED, address, at, prefix, ready, run};

fn both(host: &bulkhead_tests::sandbox::Host) -> [IpAddr; 2] {
    [host.v4.into(), host.v6.into()]
}

#[test]
fn own_traffic_flows_in_both_families() {
    let node = Node::enforcing();
    let (green, peer) = (node.green(), node.green_peer());
    for (port, ip) in (9000..).zip(both(peer)) {
        let there = at(ip, port);
        let server = ready(&node.traffic("green", peer), &format!("tcp-serve --bind {there}"));
        let line = format!("tcp-connect --to {there} --bytes 1000000");
        let said = run(&node.traffic("green", green), &line);
        assert_eq!((&said["sent"], &said["error"]), (&json!(1_000_000), &json!(null)), "{said}");
        assert_eq!(server.finish().expect("server")["bytes"], 1_000_000);

        let sink = ready(&node.traffic("green", peer), &format!("udp-recv --bind {there}"));
        let said =
            run(&node.traffic("green", green), &format!("udp-send --to {there} --count 100"));
        assert_eq!(said["errors"], json!({}), "{said}");
        assert_eq!(sink.finish().expect("sink")["received"], 100);

        let said = run(&node.traffic("green", green), &format!("ping --to {ip} --count 3"));
        assert_eq!(said["answers"], 3, "{said}");
    }
}

#[test]
fn another_virtual_cluster_is_refused_at_once() {
    let node = Node::enforcing();
    let green = node.traffic("green", node.green());
    for (port, ip) in (9000..).zip(both(node.red())) {
        let there = at(ip, port);
        let server = ready(&node.traffic("red", node.red()), &format!("tcp-serve --bind {there}"));
        let sink = ready(&node.traffic("red", node.red()), &format!("udp-recv --bind {there}"));

        let began = Instant::now();
        let said = run(&green, &format!("tcp-connect --to {there}"));
        assert_eq!(said["error"], "EPERM", "{said}");
        assert!(said["connect_us"].as_u64().expect("number") < 50_000, "{said}");
        assert!(began.elapsed() < Duration::from_secs(1));

        let said = run(&green, &format!("udp-send --to {there} --count 10"));
        assert_eq!(said["errors"], json!({ "EPERM": 10 }), "{said}");
        let said = run(&green, &format!("udp-send --connected --to {there}"));
        assert_eq!(said["errors"], json!({ "EPERM": 1 }), "{said}");
        let said = run(&green, &format!("ping --to {ip} --count 2"));
        assert_eq!(said["errors"], json!({ "EPERM": 2 }), "{said}");
        let said = run(&green, &format!("raw-send --to {ip} --count 2"));
        assert_eq!(said["errors"], json!({ "EPERM": 2 }), "{said}");

        assert_eq!(server.finish().expect("server")["connections"], 0);
        assert_eq!(sink.finish().expect("sink")["received"], 0);
    }
    let counters = node.counters("green");
    let other = Class::Other as usize;
    assert_eq!(counters.connects[0][other].denied, 4, "TCP and connected UDP, two families");
    assert_eq!(counters.connects[1][other].denied, 20, "ten datagrams, two families");
    let (packets, _) = node.cell("green", Direction::Egress, Class::Other, Outcome::Denied);
    assert_eq!(packets, 8, "two pings and two raw packets, two families");
}

#[test]
fn ipv4_in_ipv6_clothes_is_ipv4() {
    let node = Node::enforcing();
    let green = node.traffic("green", node.green());
    let mapped = node.red().v4.to_ipv6_mapped();
    let said = run(&green, &format!("tcp-connect --to {}", at(mapped, 9000)));
    assert_eq!(said["error"], "EPERM", "{said}");
    let said = run(&green, &format!("udp-send --to {}", at(mapped, 9000)));
    assert_eq!(said["errors"], json!({ "EPERM": 1 }), "{said}");

    let own = node.green_peer();
    let there = at(own.v4, 9000);
    let server = ready(&node.traffic("green", own), &format!("tcp-serve --bind {there}"));
    let mapped = at(own.v4.to_ipv6_mapped(), 9000);
    let said = run(&green, &format!("tcp-connect --to {mapped} --bytes 1000"));
    assert_eq!(said["sent"], 1000, "{said}");
    assert_eq!(server.finish().expect("server")["bytes"], 1000);
}

#[test]
fn the_receiver_checks_too() {
    // Nobody stops the sender: it is in no virtual cluster of this node, as one on another node
    // whose agent has not heard of us.
    let node = Node::enforcing();
    let red = node.red();
    let sink = ready(
        &node.traffic("green", node.green()),
        &format!("udp-recv --bind {}", at(node.green().v4, 9000)),
    );
    let outsider = node.sandbox.outsider(red);
    let line = format!("udp-send --to {} --count 10 --bytes 100", at(node.green().v4, 9000));
    let said = run(&outsider, &line);
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    let dropped = node.cell("green", Direction::Ingress, Class::Other, Outcome::Denied);
    assert_eq!(dropped, (10, 10 * 128), "IPv4 and UDP headers are 28 bytes");
}

#[test]
fn an_allowed_pair_talks() {
    let node = Node::enforcing();
    let there = at(node.red().v4, 9000);
    let server = ready(&node.traffic("red", node.red()), &format!("tcp-serve --bind {there}"));
    let green = node.traffic("green", node.green());
    let said = run(&green, &format!("tcp-connect --to {there}"));
    assert_eq!(said["error"], "EPERM", "{said}");
    let pairs = [(AllowKey { from: GREEN, to: RED }, 1), (AllowKey { from: RED, to: GREEN }, 1)];
    node.bpf.tables().allowed.put(&pairs).expect("allow");
    let said = run(&green, &format!("tcp-connect --to {there} --bytes 1000"));
    assert_eq!(said["sent"], 1000, "{said}");
    assert_eq!(server.finish().expect("server")["bytes"], 1000);
}

#[test]
fn an_unknown_peer_is_dropped_silently_until_we_hear_of_it() {
    let node = Node::bare();
    node.join("green", GREEN, MODE_ENFORCE);
    node.learn(node.green(), GREEN);
    node.bpf.attach_all().expect("attach");
    let there = at(node.green_peer().v4, 9000);
    let outsider = node.sandbox.outsider(node.green_peer());
    let server = ready(&outsider, &format!("tcp-serve --bind {there}"));
    let sink = ready(&outsider, &format!("udp-recv --bind {there}"));
    let green = node.traffic("green", node.green());

    let said = run(&green, &format!("udp-send --to {there} --count 5"));
    assert_eq!((&said["sent"], &said["errors"]), (&json!(5), &json!({})), "no error: {said}");
    let said = run(&green, &format!("tcp-connect --to {there} --timeout-ms 300"));
    assert_eq!(said["error"], "ETIMEDOUT", "{said}");
    let (packets, _) = node.cell("green", Direction::Egress, Class::Cluster, Outcome::Denied);
    assert!(packets >= 6, "five datagrams and at least one SYN: {packets}");

    // This one connects while its first SYN is lost.
    let mut waiting =
        green.start(&format!("tcp-connect --to {there} --timeout-ms 5000")).expect("start");
    std::thread::sleep(Duration::from_millis(300));
    node.learn(node.green_peer(), GREEN);
    let said = waiting.wait_for_line().expect("result");
    assert_eq!(said["connected"], true, "a retry succeeds: {said}");
    assert_eq!(server.finish().expect("server")["connections"], 1);
    assert_eq!(sink.finish().expect("sink")["received"], 0);
}

#[test]
fn an_unknown_cgroup_reaches_only_this_host() {
    let node = Node::enforcing();
    let stranger = node.traffic("stranger", node.green());
    let local = ready(&stranger, "udp-recv --bind 127.0.0.1:9000");
    let said = run(&stranger, "udp-send --to 127.0.0.1:9000 --count 3");
    assert_eq!(said["sent"], 3, "{said}");
    assert_eq!(local.finish().expect("sink")["received"], 3);

    let outsider = node.sandbox.outsider(node.green_peer());
    let sink = ready(&outsider, &format!("udp-recv --bind {}", at(node.green_peer().v4, 9000)));
    let line = format!("udp-send --to {} --count 3", at(node.green_peer().v4, 9000));
    let said = run(&stranger, &line);
    assert_eq!((&said["sent"], &said["errors"]), (&json!(3), &json!({})), "silently: {said}");
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    assert_eq!(node.bpf.tables().counters.read_all().expect("read").len(), 2, "not counted");
}

/// Addresses inside the cluster of which the controller never told.
#[test]
fn while_the_controller_is_away_a_peer_that_may_be_new_is_reached_and_counted() {
    let node = Node::bare();
    node.join("green", GREEN, MODE_ENFORCE);
    node.learn(node.green(), GREEN);
    node.bpf.attach_all().expect("attach");
    let (green, outsider) =
        (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    let there = at(node.red().v4, 9000);
    let send = || run(&green, &format!("udp-send --to {there} --count 10 --connected"));
    let ranges = |flags| {
        let far = FarEnd { virtual_cluster: 0, flags };
        node.bpf.tables().prefixes.put(&[(prefix("10.77.0.0", 24), far)]).expect("write prefixes");
    };
    for (flags, arrive) in
        [(FarEnd::CLUSTER, 0), (FarEnd::CLUSTER | FarEnd::STALE, 10), (FarEnd::CLUSTER, 0)]
    {
        ranges(flags);
        let sink = ready(&outsider, &format!("udp-recv --bind {there}"));
        send();
        assert_eq!(sink.finish().expect("sink")["received"], arrive, "{flags}");
    }
    let counted = |outcome| node.cell("green", Direction::Egress, Class::Cluster, outcome).0;
    assert_eq!((counted(Outcome::WouldDeny), counted(Outcome::Denied)), (10, 20));
    assert_eq!(counted(Outcome::Passed), 0);
}

/// Here the third host is nobody's. Who may talk with such stands on the allow list.
#[test]
fn what_is_nobodys_talks_with_those_that_are_not_closed_to_it() {
    let node = Node::bare();
    node.join("green", GREEN, MODE_ENFORCE);
    for host in [node.green(), node.green_peer()] {
        node.learn(host, GREEN);
    }
    let flags = FarEnd::SHARED | FarEnd::CLUSTER | FarEnd::PLAIN;
    let plain = FarEnd { virtual_cluster: 0, flags };
    let addresses = both(node.red()).map(|ip| (address(ip), plain));
    node.bpf.tables().addresses.put(&addresses).expect("write addresses");
    node.bpf.attach_all().expect("attach");
    let (green, outsider) =
        (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    let may = AllowKey { from: GREEN, to: 0 };
    for (port, ip) in (9000..).zip(both(node.red())) {
        let there = at(ip, port);
        node.bpf.tables().allowed.put(&[(may, 1)]).expect("allow");
        let sink = ready(&outsider, &format!("udp-recv --bind {there}"));
        let said = run(&green, &format!("udp-send --to {there} --count 10"));
        assert_eq!(said["errors"], json!({}), "{said}");
        assert_eq!(sink.finish().expect("sink")["received"], 10);

        node.bpf.tables().allowed.remove(&[may]).expect("disallow");
        let began = Instant::now();
        let said = run(&green, &format!("tcp-connect --to {there}"));
        assert_eq!(said["error"], "EPERM", "{said}");
        assert!(began.elapsed() < Duration::from_secs(1), "at once");
    }
    // Nor does it reach a member.
    let there = at(node.green().v4, 9002);
    let sink = ready(&green, &format!("udp-recv --bind {there}"));
    run(&outsider, &format!("udp-send --to {there} --count 10"));
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    let counted = |direction, class, outcome| node.cell("green", direction, class, outcome).0;
    assert_eq!(counted(Direction::Egress, Class::Shared, Outcome::Passed), 20);
    assert_eq!(counted(Direction::Ingress, Class::Other, Outcome::Denied), 10);
    assert_eq!(node.counters("green").connects[0][Class::Other as usize].denied, 2);
}

/// A hole, shown: on the host's network everybody has the host's addresses, which always pass.
#[test]
fn virtual_clusters_on_one_hosts_network_reach_each_other_as_the_host() {
    let node = Node::bare();
    node.join("green", GREEN, MODE_ENFORCE);
    node.join("red", RED, MODE_ENFORCE);
    let host = FarEnd { virtual_cluster: 0, flags: FarEnd::NODE };
    let addresses = both(node.red()).map(|ip| (address(ip), host));
    node.bpf.tables().addresses.put(&addresses).expect("write addresses");
    node.bpf.attach_all().expect("attach");
    for ip in both(node.red()) {
        let there = at(ip, 9000);
        let server = ready(&node.traffic("red", node.red()), &format!("tcp-serve --bind {there}"));
        let line = format!("tcp-connect --to {there} --bytes 100000");
        let said = run(&node.traffic("green", node.red()), &line);
        assert_eq!((&said["sent"], &said["error"]), (&json!(100_000), &json!(null)), "{said}");
        assert_eq!(server.finish().expect("server")["bytes"], 100_000);
    }
    for (name, direction) in [("green", Direction::Egress), ("red", Direction::Ingress)] {
        let (_, bytes) = node.cell(name, direction, Class::Node, Outcome::Passed);
        assert!(bytes >= 200_000, "both are told of it as the host's: {name} {bytes}");
    }
}

#[test]
fn observe_passes_and_counts_what_enforce_would_refuse() {
    let node = Node::in_mode(MODE_OBSERVE);
    let there = at(node.red().v4, 9000);
    let sink = ready(&node.traffic("red", node.red()), &format!("udp-recv --bind {there}"));
    let green = node.traffic("green", node.green());
    let said = run(&green, &format!("udp-send --to {there} --count 10 --bytes 100"));
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 10);
    let (out, inn) = (Direction::Egress, Direction::Ingress);
    assert_eq!(node.cell("green", out, Class::Other, Outcome::WouldDeny), (10, 1280));
    assert_eq!(node.cell("green", out, Class::Other, Outcome::Passed), (0, 0));
    assert_eq!(node.cell("red", inn, Class::Other, Outcome::WouldDeny), (10, 1280));
    let calls = node.counters("green").connects[1][Class::Other as usize];
    assert_eq!((calls.denied, calls.would_deny), (0, 10));
}

#[test]
fn off_passes_and_only_measures() {
    let node = Node::in_mode(MODE_OFF);
    let there = at(node.red().v4, 9000);
    let sink = ready(&node.traffic("red", node.red()), &format!("udp-recv --bind {there}"));
    let green = node.traffic("green", node.green());
    let said = run(&green, &format!("udp-send --to {there} --count 10 --bytes 100"));
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 10);
    let passed = node.cell("green", Direction::Egress, Class::Other, Outcome::Passed);
    assert_eq!(passed, (10, 1280));
    let calls = node.counters("green").connects[1][Class::Other as usize];
    assert_eq!((calls.denied, calls.would_deny), (0, 0));
}

#[test]
fn an_unknown_mode_is_enforced() {
    let node = Node::in_mode(99);
    let said = run(
        &node.traffic("green", node.green()),
        &format!("tcp-connect --to {}", at(node.red().v4, 9000)),
    );
    assert_eq!(said["error"], "EPERM", "{said}");
}
