//! `top`.

use serde_json::Value;

use crate::fixture::SECOND;
use crate::program::{Running, run};
use crate::server::Server;

#[test]
fn one_frame_for_scripts() {
    let server = Server::start();
    let text = run(&server.address(), &["top", "--once", "-o", "json"]).answer();
    let frame: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(frame["window_nanoseconds"], 60 * SECOND);
    let (team_a, team_b) = (&frame["virtual_clusters"][0], &frame["virtual_clusters"][1]);
    assert_eq!(
        (&team_a["virtual_cluster"], &team_b["virtual_cluster"]),
        (&"team-a".into(), &"team-b".into())
    );
    // Half of team-b's time was seen: a rate is over what was seen.
    for cluster in [team_a, team_b] {
        assert_eq!(cluster["cpu_nanocores"], 1_250_000_000);
        assert_eq!(cluster["memory_bytes"], 64 << 20);
    }
    assert_eq!((&team_a["denied_packets"], &team_b["denied_packets"]), (&10.into(), &Value::Null));
    assert_eq!(team_b["coverage"]["cpu"]["covered_nanoseconds"], 30 * SECOND);
    // Whole windows that are over, by virtual cluster and node.
    let asked = server.questions().remove(0);
    let seconds = |at: Option<prost_types::Timestamp>| at.map(|at| (at.seconds % 60, at.nanos));
    assert_eq!((seconds(asked.start), seconds(asked.end)), (Some((0, 0)), Some((0, 0))));
    assert_eq!(asked.group_by, [1, 2]);
}

#[test]
fn one_frame_as_a_table() {
    let server = Server::start();
    let text = run(&server.address(), &["top", "--once", "team-b"]).answer();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("  means over the newest windows of 60s"), "{text}");
    assert!(lines[2].starts_with("VIRTUALCLUSTER  COVERAGE  AGE  CORES"), "{text}");
    assert!(lines[3].contains("  1.250      16.6%  64.0MiB"), "{text}");
    assert!(lines[3].starts_with("team-b            50.0%*"), "{text}");
    let typo = run(&server.address(), &["top", "--once", "typo"]);
    assert!(typo.complaint(3).contains("\"typo\""), "{typo:?}");
}

#[test]
fn frame_after_frame_until_ctrl_c() {
    let server = Server::start();
    let arguments = ["top", "--interval", "50ms", "-o", "json"];
    let mut top = Running::start(&server.address(), &arguments);
    for _ in 0..3 {
        let frame: Value = serde_json::from_str(&top.line()).expect("JSON");
        assert_eq!(frame["virtual_clusters"][0]["virtual_cluster"], "team-a");
    }
    top.signal("INT");
    let run = top.end();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
}

#[test]
fn a_controller_that_restarts_is_waited_for() {
    let mut server = Server::start();
    let arguments = ["top", "--interval", "50ms", "-o", "json"];
    let mut top = Running::start(&server.address(), &arguments);
    assert!(top.line().starts_with("{\"at\":"));
    server.stop();
    let away = top.complaint();
    assert!(away.starts_with("bulkheadctl: query usage: "), "{away}");
    let server = server.restart();
    while server.questions().len() < 3 {
        assert!(top.line().starts_with("{\"at\":"));
    }
    top.signal("TERM");
    let run = top.end();
    // One complaint for the whole time that it was away.
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
}
