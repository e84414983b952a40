//! `get virtualclusters --watch`.

use serde_json::Value;

use crate::program::Running;
use crate::server::Server;

#[test]
fn what_is_there_and_then_each_change() {
    let server = Server::start();
    let arguments = ["get", "virtualclusters", "--watch", "-o", "json"];
    let mut watch = Running::start(&server.address(), &arguments);
    let mut event = || -> (String, String) {
        let event: Value = serde_json::from_str(&watch.line()).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&event["change"]), text(&event["virtual_cluster"]["name"]))
    };
    let seen: Vec<_> = (0..5).map(|_| event()).collect();
    let expected = [
        ("Initial", "team-a"),
        ("Initial", "team-b"),
        ("Initial", "unseen"),
        ("Upserted", "team-a"),
        ("Deleted", "unseen"),
    ];
    assert_eq!(seen, expected.map(|(change, name)| (change.to_owned(), name.to_owned())));
    watch.signal("INT");
    assert_eq!(watch.end().code, Some(0));
}

#[test]
fn a_table_goes_on_below_its_header() {
    let server = Server::start();
    let mut watch = Running::start(&server.address(), &["get", "bvc", "-w", "team-a", "unseen"]);
    let lines: Vec<String> = (0..5).map(|_| watch.line()).collect();
    let starts = [
        "CHANGE    NAME    STATE ",
        "Initial   team-a  Degraded ",
        "Initial   unseen  NotReported ",
        "Upserted  team-a  Degraded ",
        "Deleted   unseen  NotReported ",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{lines:#?}");
    }
    watch.signal("TERM");
    assert_eq!(watch.end().code, Some(0));
}

#[test]
fn csv_and_yaml_go_on_too() {
    let server = Server::start();
    let follow = |output| {
        let arguments = ["get", "virtualclusters", "--watch", "unseen", "-o", output];
        Running::start(&server.address(), &arguments)
    };
    let mut csv = follow("csv");
    assert!(csv.line().starts_with("change,name,number,state,"));
    assert!(csv.line().starts_with("Initial,unseen,9,NotReported,"));
    assert!(csv.line().starts_with("Deleted,unseen,9,NotReported,"));
    let mut yaml = follow("yaml");
    assert_eq!([yaml.line(), yaml.line()], ["---\n", "change: Initial\n"]);
}

#[test]
fn a_controller_that_goes_away_ends_the_watch() {
    let mut server = Server::start();
    let mut watch = Running::start(&server.address(), &["get", "bvc", "--watch", "unseen"]);
    let header = watch.line();
    assert!(header.starts_with("CHANGE"), "{header}");
    server.stop();
    let run = watch.end();
    assert!(run.complaint(4).starts_with("watch virtual clusters: "), "{run:?}");
    assert!(run.stderr.contains("run the same command again"), "{run:?}");
}
