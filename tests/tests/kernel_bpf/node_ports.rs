//! Ports of hosts behind which there are Services: judged where the packet or call begins, as
//! whoever the Service belongs to. The host here is the third of the sandbox's; who answers at its
//! ports is in no cgroup of ours, as what a proxy hands on is not.

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_abi::{
    Address, AllowKey, Class, Direction, FarEnd, MODE_ENFORCE, MODE_OBSERVE, Outcome,
};
use bulkhead_tests::sandbox::{Host, Traffic};
use serde_json::{Value, json};

use crate::fixture::{GREEN, Node, RED, address, at, ready, run};

const OWN: u16 = 30_001;
const OTHERS: u16 = 30_002;
/// A port of the host itself.
const PLAIN: u16 = 30_003;
/// Of a Service that is nobody's.
const UNCLEAR: u16 = 30_004;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Green is a member; its host's neighbour is a node, with node ports of green and of red.
fn node(mode: u32) -> Node {
    let node = Node::bare();
    node.join("green", GREEN, mode);
    node.learn(node.green(), GREEN);
    let host = FarEnd { virtual_cluster: 0, flags: FarEnd::NODE };
    let addresses = both(node.red()).map(|ip| (address(ip), host));
    node.bpf.tables().addresses.put(&addresses).expect("write addresses");
    serve(&node, OWN, GREEN);
    serve(&node, OTHERS, RED);
    serve(&node, UNCLEAR, 0);
    node.bpf.attach_all().expect("attach");
    node
}

fn serve(node: &Node, port: u16, virtual_cluster: u32) {
    let far = FarEnd { virtual_cluster, flags: FarEnd::CLUSTER };
    let entries = [TCP, UDP].map(|protocol| (Address::of_node_port(protocol, port), far));
    node.bpf.tables().addresses.put(&entries).expect("write node ports");
}

fn both(host: &Host) -> [IpAddr; 2] {
    [host.v4.into(), host.v6.into()]
}

fn each(said: &Value) -> Vec<&str> {
    let each = said["each"].as_array().expect("a list");
    each.iter().map(|one| one.as_str().expect("a word")).collect()
}

/// One datagram to each port of an address, from one socket that is not connected.
fn send_each(green: &Traffic, ip: IpAddr, ports: &[u16]) -> Value {
    let to: Vec<String> = ports.iter().map(|port| format!("--to {}", at(ip, *port))).collect();
    run(green, &format!("udp-each {}", to.join(" ")))
}

fn count(node: &Node, class: Class, outcome: Outcome) -> u64 {
    node.cell("green", Direction::Egress, class, outcome).0
}

#[test]
fn another_virtual_clusters_node_port_is_refused_at_once_and_nothing_arrives() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    for ip in both(node.red()) {
        let there = at(ip, OTHERS);
        let server = ready(&host, &format!("tcp-serve --bind {there}"));
        let sink = ready(&host, &format!("udp-recv --bind {there}"));
        let began = Instant::now();
        let said = run(&green, &format!("tcp-connect --to {there}"));
        assert_eq!(said["error"], "EPERM", "{said}");
        assert!(began.elapsed() < Duration::from_secs(1));
        let said = run(&green, &format!("udp-send --to {there} --count 10"));
        assert_eq!(said["errors"], json!({ "EPERM": 10 }), "{said}");
        let said = run(&green, &format!("udp-send --connected --to {there}"));
        assert_eq!(said["errors"], json!({ "EPERM": 1 }), "{said}");
        let said = run(&green, &format!("raw-ports --to {ip} --port {OTHERS} --port {OTHERS}"));
        assert_eq!(each(&said), ["EPERM", "EPERM"]);
        assert_eq!(server.finish().expect("server")["connections"], 0);
        assert_eq!(sink.finish().expect("sink")["received"], 0);
    }
    let mapped = at(node.red().v4.to_ipv6_mapped(), OTHERS);
    let said = run(&green, &format!("tcp-connect --to {mapped}"));
    assert_eq!(said["error"], "EPERM", "{said}");
    let connects = node.counters("green").connects;
    assert_eq!(connects[0][Class::Other as usize].denied, 5, "and IPv4 in IPv6 clothes");
    assert_eq!(connects[1][Class::Other as usize].denied, 20);
    assert_eq!(count(&node, Class::Other, Outcome::Denied), 4, "raw packets");
}

#[test]
fn ones_own_node_port_and_other_ports_of_the_host_pass() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    for ip in both(node.red()) {
        for port in [OWN, PLAIN] {
            let there = at(ip, port);
            let server = ready(&host, &format!("tcp-serve --bind {there}"));
            let sink = ready(&host, &format!("udp-recv --bind {there}"));
            let said = run(&green, &format!("tcp-connect --to {there} --bytes 1000000"));
            assert_eq!((&said["sent"], &said["error"]), (&json!(1_000_000), &json!(null)));
            let said = run(&green, &format!("udp-send --to {there} --count 50"));
            assert_eq!(said["errors"], json!({}), "{said}");
            let said = run(&green, &format!("raw-ports --to {ip} --port {port}"));
            assert_eq!(each(&said), ["sent"]);
            assert_eq!(server.finish().expect("server")["bytes"], 1_000_000);
            let received = sink.finish().expect("sink")["received"].as_u64();
            assert!(received >= Some(50), "{received:?}");
        }
        // What has no ports is the host's.
        let said = run(&green, &format!("ping --to {ip} --count 2"));
        assert_eq!(said["answers"], 2, "{said}");
    }
    // Every segment of a connection is counted as its first.
    let own = count(&node, Class::Own, Outcome::Passed);
    let plain = count(&node, Class::Node, Outcome::Passed);
    assert!(own > 2 * (50 + 15), "{own} to one's own");
    assert!(plain > 2 * (50 + 15), "{plain} to the host");
    assert_eq!(count(&node, Class::Other, Outcome::Denied), 0);
}

#[test]
fn a_socket_that_is_not_connected_is_judged_for_each_port_of_a_host() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    for ip in both(node.red()) {
        let sink = ready(&host, &format!("udp-recv --bind {}", at(ip, OTHERS)));
        let allowed = ready(&host, &format!("udp-recv --bind {}", at(ip, PLAIN)));
        let own = ready(&host, &format!("udp-recv --bind {}", at(ip, OWN)));
        // The first is what the socket keeps.
        for first in [PLAIN, OWN] {
            let ports = [first, OTHERS, PLAIN, OWN, OTHERS, first];
            let said = send_each(&green, ip, &ports);
            assert_eq!(each(&said), ["sent", "EPERM", "sent", "sent", "EPERM", "sent"], "{first}");
        }
        let said = send_each(&green, ip, &[OTHERS, PLAIN, OTHERS]);
        assert_eq!(each(&said), ["EPERM", "sent", "EPERM"]);
        let raw = |line: &str| run(&green, &format!("raw-ports --to {ip} {line}"));
        let said = raw(&format!("--port {PLAIN} --port {OTHERS} --port {PLAIN}"));
        assert_eq!(each(&said), ["sent", "EPERM", "sent"]);
        // A number is another port for each protocol; a raw socket begins no connection, and is
        // believed of none.
        let said = raw(&format!("--protocol {TCP} --port {PLAIN} --port {OTHERS}"));
        assert_eq!(each(&said), ["sent", "EPERM"]);
        assert_eq!(sink.finish().expect("sink")["received"], 0);
        // What a raw socket makes here is no datagram that a receiver takes.
        assert_eq!(allowed.finish().expect("sink")["received"], 5);
        assert_eq!(own.finish().expect("sink")["received"], 4);
    }
}

/// What came from a host is no leave to send to any port of it.
#[test]
fn a_socket_that_has_heard_from_a_host_is_judged_for_what_it_sends() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    for (here, ip) in both(node.green()).into_iter().zip(both(node.red())) {
        let [other, plain] = [OTHERS, PLAIN].map(|port| at(ip, port));
        let here = at(here, 9000);
        let line = format!("udp-each --after {here} --to {other} --to {plain} --to {other}");
        let mut waiting = ready(&green, &line);
        let said = run(&host, &format!("udp-send --to {here}"));
        assert_eq!(said["sent"], 1, "{said}");
        assert!(waiting.wait_for_line().expect("a datagram")["from"].is_string());
        let said = waiting.wait_for_line().expect("result");
        assert_eq!(each(&said), ["EPERM", "sent", "EPERM"]);
    }
    let heard = node.cell("green", Direction::Ingress, Class::Node, Outcome::Passed);
    assert_eq!(heard.0, 2);
}

/// A host connects from any port that is free there: the kubelet, and what is masqueraded.
#[test]
fn a_connection_from_a_host_is_answered_whatever_port_it_came_from() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    for (here, ip) in both(node.green()).into_iter().zip(both(node.red())) {
        let here = at(here, 9000);
        let server = ready(&green, &format!("tcp-serve --bind {here}"));
        let line = format!("tcp-connect --to {here} --from {} --bytes 100000", at(ip, OTHERS));
        let said = run(&host, &line);
        assert_eq!((&said["sent"], &said["error"]), (&json!(100_000), &json!(null)), "{said}");
        assert_eq!(server.finish().expect("server")["bytes"], 100_000);
    }
    assert_eq!(count(&node, Class::Other, Outcome::Denied), 0);
}

#[test]
fn a_node_port_is_not_hidden_by_fragments_options_or_headers() {
    let node = node(MODE_ENFORCE);
    let green = node.traffic("green", node.green());
    for (ip, ip_bytes) in both(node.red()).into_iter().zip([20, 40]) {
        let raw = |line: &str| {
            let line = format!("raw-ports --to {ip} --port {PLAIN} --port {OTHERS} {line}");
            let said = run(&green, &line);
            let [plain, other] = each(&said)[..] else { panic!("{line}: {said}") };
            (plain == "sent", other == "sent")
        };
        assert_eq!(raw(""), (true, false));
        assert_eq!(raw("--headers 1"), (true, false), "{ip}");
        assert_eq!(raw("--headers 5"), (true, false), "{ip}");
        // The first fragment has the port; the others are nothing without it.
        assert_eq!(raw("--fragment 0"), (true, false), "{ip}");
        assert_eq!(raw("--fragment 8"), (true, true), "{ip}");
        // Too short to say for whom it is.
        assert_eq!(raw(&format!("--cut {}", ip_bytes + 2)), (false, false), "{ip}");
    }
    let ip = node.red().v6;
    let said = run(&green, &format!("raw-ports --to {ip} --port {PLAIN} --headers 7"));
    assert_eq!(each(&said), ["EPERM"], "more headers than anybody needs");
    let said =
        run(&green, &format!("raw-ports --to {ip} --port {OTHERS} --headers 2 --fragment 0"));
    assert_eq!(each(&said), ["EPERM"]);
}

#[test]
fn observe_passes_and_counts_node_ports_that_enforce_would_refuse() {
    let node = node(MODE_OBSERVE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    let there = at(node.red().v4, OTHERS);
    let server = ready(&host, &format!("tcp-serve --bind {there}"));
    let sink = ready(&host, &format!("udp-recv --bind {there}"));
    let said = run(&green, &format!("tcp-connect --to {there} --bytes 1000"));
    assert_eq!(said["sent"], 1000, "{said}");
    let tcp = count(&node, Class::Other, Outcome::WouldDeny);
    assert!(tcp >= 4, "{tcp}: every segment, not the first alone");
    let said = run(&green, &format!("udp-send --to {there} --count 10"));
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(server.finish().expect("server")["bytes"], 1000);
    assert_eq!(sink.finish().expect("sink")["received"], 10);
    assert_eq!(count(&node, Class::Other, Outcome::WouldDeny), tcp + 10);
    let connects = node.counters("green").connects;
    let other = Class::Other as usize;
    assert_eq!((connects[0][other].denied, connects[0][other].would_deny), (0, 1));
    assert_eq!((connects[1][other].denied, connects[1][other].would_deny), (0, 10));
    assert_eq!(count(&node, Class::Node, Outcome::Passed), 0);
}

/// What began while it was allowed is judged for the port that it began with.
#[test]
fn a_connection_through_a_node_port_is_cut_when_the_policy_tightens() {
    for (port, expected) in [(OTHERS, 0), (OWN, 1000), (PLAIN, 1000)] {
        let node = node(MODE_OBSERVE);
        let host = node.sandbox.outsider(node.red());
        let there = at(node.red().v4, port);
        let mut server = ready(&host, &format!("tcp-serve --events --bind {there}"));
        let green = node.traffic("green", node.green());
        let line = format!("tcp-connect --to {there} --bytes 1000 --pause-ms 1000");
        let client = green.start(&line).expect("start");
        assert!(server.wait_for_line().expect("event")["accepted"].is_string());
        node.join("green", GREEN, MODE_ENFORCE);
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(server.finish().expect("server")["bytes"], expected, "port {port}");
        assert_eq!(count(&node, Class::Other, Outcome::Denied) > 0, port == OTHERS);
        drop(client);
    }
}

#[test]
fn an_allowed_pair_and_a_port_that_is_given_up_pass() {
    let node = node(MODE_ENFORCE);
    let (green, ip) = (node.traffic("green", node.green()), node.red().v4.into());
    assert_eq!(each(&send_each(&green, ip, &[OTHERS])), ["EPERM"]);
    let pair = AllowKey { from: GREEN, to: RED };
    node.bpf.tables().allowed.put(&[(pair, 1)]).expect("allow");
    assert_eq!(each(&send_each(&green, ip, &[OTHERS])), ["sent"]);
    node.bpf.tables().allowed.remove(&[pair]).expect("disallow");
    assert_eq!(each(&send_each(&green, ip, &[OTHERS])), ["EPERM"]);
    let port = Address::of_node_port(UDP, OTHERS);
    node.bpf.tables().addresses.remove(&[port]).expect("remove");
    assert_eq!(each(&send_each(&green, ip, &[OTHERS])), ["sent"]);
}

#[test]
fn a_node_port_of_nobody_is_dropped_silently() {
    let node = node(MODE_ENFORCE);
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    let there = at(node.red().v4, UNCLEAR);
    let sink = ready(&host, &format!("udp-recv --bind {there}"));
    let server = ready(&host, &format!("tcp-serve --bind {there}"));
    assert_eq!(each(&send_each(&green, node.red().v4.into(), &[UNCLEAR, UNCLEAR])), ["sent"; 2]);
    let said = run(&green, &format!("tcp-connect --to {there} --timeout-ms 300"));
    assert_eq!(said["error"], "ETIMEDOUT", "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    assert_eq!(server.finish().expect("server")["connections"], 0);
    assert!(count(&node, Class::Cluster, Outcome::Denied) >= 3);
}

/// A pod's own loopback has ports of its own.
#[test]
fn loopback_has_no_node_ports() {
    let node = node(MODE_ENFORCE);
    let green = node.traffic("green", node.green());
    for ip in ["127.0.0.1", "::1"] {
        let there = at(ip.parse::<IpAddr>().expect("an address"), OTHERS);
        let server = ready(&green, &format!("tcp-serve --bind {there}"));
        let sink = ready(&green, &format!("udp-recv --bind {there}"));
        let said = run(&green, &format!("tcp-connect --to {there} --bytes 1000"));
        assert_eq!(said["sent"], 1000, "{said}");
        let said = run(&green, &format!("udp-send --to {there} --count 3"));
        assert_eq!(said["sent"], 3, "{said}");
        assert_eq!(server.finish().expect("server")["bytes"], 1000);
        assert_eq!(sink.finish().expect("sink")["received"], 3);
    }
    // connect(2) takes it for loopback.
    let server = ready(&green, &format!("tcp-serve --bind 127.0.0.1:{OTHERS}"));
    let said = run(&green, &format!("tcp-connect --to 0.0.0.0:{OTHERS} --bytes 10"));
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(server.finish().expect("server")["bytes"], 10);
}

/// Whoever has such an address is what is said of it among the prefixes, and else outside.
#[test]
fn an_address_in_the_form_of_a_node_port_is_none() {
    let node = node(MODE_ENFORCE);
    let form = Ipv6Addr::from(Address::of_node_port(TCP, OTHERS).0);
    node.red().ip(&format!("addr add {form}/128 dev eth0 nodad")).expect("give it to the host");
    node.green().ip(&format!("-6 route add {form}/128 dev eth0")).expect("a way to it");
    let (green, host) = (node.traffic("green", node.green()), node.sandbox.outsider(node.red()));
    let there = at(form, 9000);
    let server = ready(&host, &format!("tcp-serve --bind {there}"));
    let said = run(&green, &format!("tcp-connect --to {there} --bytes 1000"));
    assert_eq!(said["sent"], 1000, "{said}");
    assert_eq!(server.finish().expect("server")["bytes"], 1000);
    assert_eq!(count(&node, Class::Other, Outcome::Denied), 0);
    assert!(count(&node, Class::Outside, Outcome::Passed) >= 3);
    let whole = bulkhead_abi::Prefix { prefix_len: 128, address: Address(form.octets()) };
    let far = FarEnd { virtual_cluster: RED, flags: FarEnd::CLUSTER };
    node.bpf.tables().prefixes.put(&[(whole, far)]).expect("write prefix");
    let said = run(&green, &format!("tcp-connect --to {there}"));
    assert_eq!(said["error"], "EPERM", "{said}");
}
