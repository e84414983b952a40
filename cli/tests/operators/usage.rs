//! `usage`.

use bulkhead_proto::time;
use serde_json::Value;

use crate::fixture::{OBSERVED, SECOND};
use crate::program::run;
use crate::server::Server;

/// Three minutes from the moment of the fixture on, as universal time without a zone: local time.
const RANGE: [&str; 7] =
    ["usage", "--start", "2025-03-01T10:00", "--end", "2025-03-01T10:03:00Z", "--step", "1m"];

fn json(server: &Server, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["-o", "json"]].concat();
    serde_json::from_str(&run(&server.address(), &arguments).answer()).expect("JSON")
}

#[test]
fn every_page_is_read_and_asks_the_same_question() {
    let server = Server::start();
    let usage = json(&server, &RANGE);
    let rows = usage["rows"].as_array().expect("rows");
    let cpu = rows.iter().map(|row| row["cpu"]["usage_nanoseconds"].as_u64().expect("a number"));
    // team-a: 1.25 cores for three minutes; team-b: half of that was seen.
    assert_eq!((rows.len(), cpu.sum::<u64>()), (6, 3 * 75 * SECOND + 3 * 75 * SECOND / 2));
    let questions = server.questions();
    let tokens: Vec<&str> = questions.iter().map(|asked| asked.page_token.as_str()).collect();
    assert_eq!(tokens, ["", "2", "4"]);
    for asked in &questions {
        assert_eq!(asked.start, Some(time::timestamp(OBSERVED)));
        assert_eq!(asked.end, Some(time::timestamp(OBSERVED + 180 * SECOND)));
        assert_eq!(asked.step, Some(time::duration(60 * SECOND)));
    }
}

#[test]
fn the_end_is_pinned_also_where_none_is_given() {
    let server = Server::start();
    json(&server, &["usage", "--since", "3m", "--step", "1m"]);
    let questions = server.questions();
    assert_eq!(questions.len(), 3);
    let ranges: Vec<_> = questions.iter().map(|asked| (asked.start, asked.end)).collect();
    assert!(ranges[0].0.is_some() && ranges[0].1.is_some(), "{ranges:?}");
    assert!(ranges.iter().all(|range| *range == ranges[0]), "{ranges:?}");
}

#[test]
fn coverage_stands_beside_every_number() {
    let server = Server::start();
    let usage = json(&server, &[&RANGE[..], &["team-b"]].concat());
    assert_eq!(usage["rows"][0]["cpu"]["coverage"]["covered_nanoseconds"], 30 * SECOND);
    assert_eq!(usage["rows"][0]["cpu"]["coverage"]["wanted_nanoseconds"], 60 * SECOND);
    assert_eq!(usage["rows"][0]["network"]["coverage"]["covered_nanoseconds"], 0);
    let table = run(&server.address(), &RANGE).answer();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].contains("team-a") && lines[1].ends_with(" 100.0%"), "{table}");
    assert!(lines[2].contains("team-b") && lines[2].ends_with(" 50.0%*"), "{table}");
    assert!(table.contains("* Less than the whole time was seen"), "{table}");
    assert!(
        table.contains("2025-03-01 10:00:00 up to, not including, 2025-03-01 10:03:00 (UTC)"),
        "{table}"
    );
}

#[test]
fn filters_and_groups_go_to_the_server() {
    let server = Server::start();
    let by_both = ["--by", "virtual-cluster,node", "--node", "worker-1", "team-a"];
    let usage = json(&server, &[&RANGE[..5], &by_both].concat());
    assert_eq!(usage["rows"][0]["node"], "worker-1");
    assert_eq!(
        (&usage["step_nanoseconds"], usage["rows"].as_array().map(Vec::len)),
        (&Value::Null, Some(1))
    );
    let asked = server.questions().remove(0);
    assert_eq!((asked.group_by, asked.nodes), (vec![1, 2], vec!["worker-1".to_owned()]));
    assert_eq!((asked.virtual_clusters, asked.step), (vec!["team-a".to_owned()], None));
}

#[test]
fn csv_is_flat_and_raw() {
    let server = Server::start();
    let text = run(&server.address(), &[&RANGE[..], &["-o", "csv"]].concat()).answer();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let records: Vec<_> = reader.records().map(|record| record.expect("a record")).collect();
    assert_eq!(records.len(), 6);
    let cell = |name: &str| {
        let column = header.iter().position(|title| title == name).expect("a column");
        records[0][column].to_owned()
    };
    assert_eq!(cell("cpu_usage_nanoseconds"), "75000000000");
    assert_eq!(cell("network_egress_other_denied_connects"), "3");
    // Of a class that this version does not know: not lost.
    assert_eq!(cell("network_unknown_passed_bytes"), "600");
    assert_eq!(cell("network_covered_nanoseconds"), "60000000000");
}

#[test]
fn yaml_says_what_json_says() {
    let server = Server::start();
    let yaml = run(&server.address(), &[&RANGE[..], &["-o", "yaml"]].concat()).answer();
    let read: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    assert_eq!(read, json(&server, &RANGE));
}

#[test]
fn a_name_that_used_nothing_is_not_one_that_does_not_exist() {
    let server = Server::start();
    let silent = run(&server.address(), &["usage", "unseen"]).answer();
    assert!(silent.contains("Nothing was recorded in this range."), "{silent}");
    let typo = run(&server.address(), &["usage", "team-a", "typo"]);
    assert!(typo.stdout.contains("team-a"), "{typo:?}");
    assert!(typo.complaint(3).contains("\"typo\""), "{typo:?}");
    // Without names in the rows nothing can be said about one.
    run(&server.address(), &["usage", "team-a", "gone", "--by", "node"]).answer();
}
