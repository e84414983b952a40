//! When a policy tightens, connections that it denies end for both of their owners.

use std::net::SocketAddr;

use bulkhead_abi::{MODE_ENFORCE, MODE_OBSERVE};
use bulkhead_agent::kernel::sockets::end_connections;
use serde_json::Value;

use crate::fixture::{GREEN, Node, RED, at, ready, run};

/// Green's connection to red, and how each of them waits for it to end.
struct Connection {
    wait: &'static str,
    bind: &'static str,
    to: &'static str,
}

/// Lets green hold a connection to red, enforces, ends what is denied, and returns what the
/// connecting and the accepting side saw.
fn tighten(connection: &Connection) -> [Value; 2] {
    let Connection { wait, bind, to } = connection;
    let node = Node::in_mode(MODE_OBSERVE);
    let red = node.traffic("red", node.red());
    let mut server = ready(&red, &format!("tcp-serve --events --bind {bind}"));
    let line = format!("tcp-hold --wait {wait} --to {to}");
    let mut holder = ready(&node.traffic("green", node.green()), &line);
    assert!(server.wait_for_line().expect("event")["accepted"].is_string());

    node.join("green", GREEN, MODE_ENFORCE);
    node.join("red", RED, MODE_ENFORCE);
    let is = |host: &bulkhead_tests::sandbox::Host| {
        let host = host.clone();
        move |peer: SocketAddr| peer.ip() == host.v4 || peer.ip() == host.v6
    };
    let root = node.sandbox.cgroups.root();
    let done = end_connections(&root.join("green"), is(node.red()));
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!((done.ended, done.kept), (1, 0));
    let held = holder.wait_for_line().expect("the connecting side wakes");
    let done = end_connections(&root.join("red"), is(node.green()));
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!((done.ended, done.kept), (1, 0), "the listening socket is not counted");
    let accepted = server.wait_for_line().expect("the accepting side wakes");

    // The listener lives: a connection of its own virtual cluster is accepted.
    let said = run(&red, &format!("tcp-connect --to {} --bytes 10", at(node.red().v4, 9000)));
    assert_eq!(said["sent"], 10, "{said}");
    [held, accepted]
}

/// Not a clean end, which a reader could take for the whole of the data: an error. (Since Linux
/// 6.4 a reader that sleeps in `read` sees EPIPE, everybody else ECONNRESET.)
fn assert_broken(said: &Value, field: &str) {
    let error = said[field].as_str().unwrap_or_default();
    assert!(["ECONNRESET", "EPIPE"].contains(&error), "{said}");
}

#[test]
fn blocked_readers_learn_of_it() {
    let connection = Connection { wait: "read", bind: "10.77.0.3:9000", to: "10.77.0.3:9000" };
    let [held, served] = tighten(&connection);
    assert_broken(&held, "read");
    assert_broken(&served, "error");
    assert!(held["waited_us"].as_u64().expect("number") < 5_000_000, "{held}");
}

#[test]
fn epoll_learns_of_it() {
    let connection = Connection { wait: "epoll", bind: "[fd77::3]:9000", to: "[fd77::3]:9000" };
    // The check that the listener lives wants IPv4 too.
    let connection = Connection { bind: "[::]:9000", ..connection };
    let [held, _] = tighten(&connection);
    assert_eq!(held["read"], "ECONNRESET", "{held}");
    assert!(held["epoll"].as_str().expect("text").contains("EPOLLERR"), "{held}");
}

#[test]
fn ipv4_in_ipv6_clothes_is_shown_as_ipv4() {
    // Both sockets are of IPv6, both peers must be judged as IPv4.
    let connection = Connection { wait: "read", bind: "[::]:9000", to: "[::ffff:10.77.0.3]:9000" };
    let [held, served] = tighten(&connection);
    assert_broken(&held, "read");
    assert_broken(&served, "error");
}

#[test]
fn what_may_go_on_goes_on() {
    let node = Node::enforcing();
    let peer = node.green_peer();
    let there = at(peer.v4, 9000);
    let line = format!("tcp-serve --events --bind {there}");
    let mut server = ready(&node.traffic("green", peer), &line);
    let line = format!("tcp-hold --to {there}");
    let holder = ready(&node.traffic("green", node.green()), &line);
    assert!(server.wait_for_line().expect("event")["accepted"].is_string());
    let mut asked = Vec::new();
    let done = end_connections(&node.sandbox.cgroups.root().join("green"), |peer| {
        asked.push(peer);
        false
    });
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!((done.ended, done.kept), (0, 2), "both ends are in this virtual cluster");
    assert!(asked.contains(&there.parse().expect("address")), "{asked:?}");
    let done = end_connections(&node.sandbox.cgroups.root().join("red"), |_| true);
    assert_eq!((done.ended, done.kept), (0, 0), "another virtual cluster's are not touched");
    assert_eq!(holder.finish().expect("holder")["woke"], false);
    assert_eq!(server.finish().expect("server")["connections"], 1);
}

#[test]
fn a_cgroup_that_is_gone_has_no_connections() {
    let node = Node::bare();
    let done = end_connections(&node.sandbox.cgroups.root().join("gone"), |_| true);
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!((done.ended, done.kept), (0, 0));
}

/// The far end is judged by nobody who would end it: it learns by the reset, which goes although
/// everything else to it is refused.
#[test]
fn the_far_end_that_only_observes_learns_of_it() {
    let node = Node::in_mode(MODE_OBSERVE);
    let red = node.traffic("red", node.red());
    let mut server = ready(&red, "tcp-serve --events --bind 0.0.0.0:9000");
    let line = format!("tcp-hold --wait read --to {}", at(node.red().v4, 9000));
    let mut holder = ready(&node.traffic("green", node.green()), &line);
    assert!(server.wait_for_line().expect("event")["accepted"].is_string());
    node.join("red", RED, MODE_ENFORCE);
    let green = node.green().v4;
    let done = end_connections(&node.sandbox.cgroups.root().join("red"), |peer: SocketAddr| {
        peer.ip() == green
    });
    assert_eq!(done.ended, 1, "{:?}", done.errors);
    let said = holder.wait_for_line().expect("the far end wakes");
    assert_eq!(said["woke"], true, "{said}");
}
