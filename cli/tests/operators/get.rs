//! `get virtualclusters` and `get nodes`.

use serde_json::Value;

use crate::fixture;
use crate::program::run;
use crate::server::Server;

fn json(server: &Server, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.extend(["-o", "json"]);
    serde_json::from_str(&run(&server.address(), &arguments).answer()).expect("JSON")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items.map(|item| item["name"].as_str().expect("a name")).collect()
}

#[test]
fn lists_are_followed_to_their_end() {
    let server = Server::start();
    let clusters = json(&server, &["get", "virtualclusters"]);
    assert_eq!(names(&clusters["virtual_clusters"]), ["team-a", "team-b", "unseen"]);
    let nodes = json(&server, &["get", "nodes"]);
    assert_eq!(names(&nodes["nodes"]), ["worker-1", "worker-2"]);
}

#[test]
fn json_has_raw_integers_states_and_reasons() {
    let server = Server::start();
    let clusters = json(&server, &["get", "bvc", "team-a"]);
    let cluster = &clusters["virtual_clusters"][0];
    assert_eq!(cluster["spec"]["limit"]["cpu"]["nanocores"], 1_500_000_000);
    assert_eq!(cluster["spec"]["guarantee"]["memory"]["node_basis_points"], 1_250);
    assert_eq!(cluster["state"], "Degraded");
    assert_eq!(cluster["nodes"][1]["reasons"][0]["subject"], "memory.max");
    assert_eq!(cluster["nodes"][1]["observed_at"], "2025-03-01T10:00:00Z");
}

#[test]
fn yaml_says_what_json_says() {
    let server = Server::start();
    for arguments in [["get", "virtualclusters"], ["get", "nodes"]] {
        let yaml = run(&server.address(), &[&arguments[..], &["-o", "yaml"]].concat()).answer();
        let read: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!(read, json(&server, &arguments));
    }
}

#[test]
fn csv_has_a_record_for_each() {
    let server = Server::start();
    let text = run(&server.address(), &["get", "virtualclusters", "-o", "csv"]).stdout;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let state = header.iter().position(|name| name == "state").expect("a column");
    let records = reader.records().map(|record| record.expect("a record")[state].to_owned());
    assert_eq!(records.collect::<Vec<_>>(), ["Degraded", "Refused", "NotReported"]);
}

#[test]
fn what_is_wrong_with_the_objects_is_said_in_every_format() {
    let server = Server::start();
    let problem = fixture::problems().remove(0);
    let table = run(&server.address(), &["get", "virtualclusters"]).answer();
    assert!(table.contains(&format!("\nproblem: {problem}\nwarning: ")), "{table}");
    let list = json(&server, &["get", "virtualclusters"]);
    assert_eq!(list["problems"], serde_json::json!([problem]));
    // Only a list says it: of names nothing is claimed.
    assert_eq!(json(&server, &["get", "bvc", "team-a"])["problems"], Value::Null);
    let records = run(&server.address(), &["get", "virtualclusters", "-o", "csv"]);
    assert_eq!(records.code, Some(0));
    assert!(
        records.stderr.starts_with(&format!("bulkheadctl: problem: {problem}\n")),
        "{records:?}"
    );
    assert!(!records.stdout.contains("team-c"), "{records:?}");
}

#[test]
fn tables_cut_reasons_and_wide_ones_do_not() {
    let server = Server::start();
    let whole = "/dev/vda: no such device; name one of this node";
    let narrow = run(&server.address(), &["get", "virtualclusters"]).answer();
    assert!(narrow.starts_with("NAME    STATE        NODES"), "{narrow}");
    assert!(narrow.contains("(+1 more)") && !narrow.contains(whole), "{narrow}");
    let wide = run(&server.address(), &["get", "virtualclusters", "-o", "wide"]).answer();
    assert!(wide.contains(whole), "{wide}");
    let named = run(&server.address(), &["get", "virtualcluster", "team-a"]).answer();
    assert!(named.contains(&format!("\n    io.max: {whole}\n")), "{named}");
    let node = run(&server.address(), &["get", "node", "worker-2"]).answer();
    assert!(node.contains("cannot:    memory.max: memory: controller is bound"), "{node}");
}

#[test]
fn what_is_there_is_shown_beside_what_is_not() {
    let server = Server::start();
    let arguments = ["get", "virtualclusters", "team-b", "typo", "-o", "csv"];
    let half = run(&server.address(), &arguments);
    assert!(half.stdout.contains("\nteam-b,2,Refused,"), "{half:?}");
    assert_eq!(
        half.complaint(3),
        "get virtual cluster \"typo\": virtual cluster \"typo\" is not known \
         (VIRTUAL_CLUSTER_UNKNOWN); see `get virtualclusters` for those that are there"
    );
    let node = run(&server.address(), &["get", "node", "typo"]);
    assert_eq!(node.stdout, "");
    assert!(node.complaint(3).contains("(NODE_UNKNOWN)"), "{node:?}");
}
