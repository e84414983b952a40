//! Answers as people and scripts see them, at a fixed moment.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::fixture::{self, OBSERVED, SECOND};
use super::{Look, View, WatchTable, document, piece};
use crate::args::Output;
use crate::view::node::Nodes;
use crate::view::rates::{self, Frame};
use crate::view::usage::{Row, Usage};
use crate::view::virtual_cluster::{Change, Event, VirtualClusters};

fn moment(unix_nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(unix_nanoseconds.into()).expect("a moment")
}

/// Central European time, 150 seconds after the nodes last said something.
fn look(wide: bool, details: bool) -> Look {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    let now = moment(OBSERVED + 150 * SECOND).to_zoned(zone);
    Look { now, wide, details }
}

fn virtual_clusters() -> VirtualClusters {
    let items = fixture::virtual_clusters().into_iter().map(Into::into).collect();
    VirtualClusters {
        items,
        problems: Some(fixture::problems()),
        warnings: Some(fixture::warnings()),
    }
}

fn nodes() -> Nodes {
    Nodes { nodes: fixture::nodes().into_iter().map(Into::into).collect() }
}

fn rows(step: u64) -> Vec<Row> {
    let windows = [OBSERVED, OBSERVED + step];
    let row = |start| {
        ["team-a", "team-b"].map(|name| fixture::usage_row(start, start + step, name, "worker-1"))
    };
    windows.into_iter().flat_map(row).map(Row::from).collect()
}

fn usage() -> Usage {
    let step = 60 * SECOND;
    Usage {
        start: Some(moment(OBSERVED)),
        end: moment(OBSERVED + 2 * step),
        step_nanoseconds: Some(step),
        rows: rows(step),
    }
}

fn frame() -> Frame {
    rates::frame(moment(OBSERVED + 150 * SECOND), 60 * SECOND, &rows(60 * SECOND))
}

/// One snapshot for each format.
fn snapshots(name: &str, view: &impl View) {
    let formats = [
        ("table", Output::Table),
        ("wide", Output::Wide),
        ("json", Output::Json),
        ("yaml", Output::Yaml),
        ("csv", Output::Csv),
    ];
    for (format, output) in formats {
        let text = document(view, output, &look(output == Output::Wide, false)).expect("a text");
        insta::assert_snapshot!(format!("{name}-{format}"), text);
    }
}

#[test]
fn virtual_clusters_in_every_format() {
    snapshots("virtual-clusters", &virtual_clusters());
}

#[test]
fn nodes_in_every_format() {
    snapshots("nodes", &nodes());
}

#[test]
fn usage_in_every_format() {
    snapshots("usage", &usage());
}

#[test]
fn frames_in_every_format() {
    snapshots("frame", &frame());
}

#[test]
fn named_objects_come_with_everything_about_them() {
    insta::assert_snapshot!(
        "virtual-clusters-details",
        virtual_clusters().table(&look(false, true))
    );
    insta::assert_snapshot!("nodes-details", nodes().table(&look(false, true)));
}

#[test]
fn no_usage_says_so() {
    let nothing = Usage { start: None, rows: Vec::new(), ..usage() };
    insta::assert_snapshot!("usage-nothing", nothing.table(&look(false, false)));
}

#[test]
fn grouped_by_node_has_no_column_of_names() {
    let mut by_node = usage();
    for row in &mut by_node.rows {
        row.virtual_cluster = None;
    }
    let table = by_node.table(&look(false, false));
    assert!(table.starts_with("START                NODE      CORES"), "{table}");
}

#[test]
fn a_watch_goes_on_in_the_same_columns() {
    let clusters = virtual_clusters().items;
    let event = |change, index: usize| Event { change, virtual_cluster: clusters[index].clone() };
    let mut table = WatchTable::default();
    let mut text = table.initial(&[event(Change::Initial, 0), event(Change::Initial, 1)], false);
    text.push_str(&table.change(&event(Change::Deleted, 1), false));
    text.push_str(&table.change(&event(Change::Upserted, 2), false));
    insta::assert_snapshot!("watch-table", text);
}

#[test]
fn pieces_can_be_taken_apart_again() {
    let text = |output, first| piece(&frame(), output, &look(false, false), first).expect("text");
    assert_eq!(text(Output::Json, true).lines().count(), 1);
    assert!(text(Output::Yaml, false).starts_with("---\nat: "));
    let (first, second) = (text(Output::Csv, true), text(Output::Csv, false));
    assert!(first.starts_with("at,window_nanoseconds,virtual_cluster,"), "{first}");
    assert_eq!(first.lines().count(), second.lines().count() + 1);
}

/// Names of all fields, however deep.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                found.insert(name.clone());
                keys(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_documented() {
    let readme = include_str!("../../README.md");
    let mut names = BTreeSet::new();
    let documents = [
        serde_json::to_value(virtual_clusters()),
        serde_json::to_value(nodes()),
        serde_json::to_value(usage()),
        serde_json::to_value(frame()),
    ];
    for document in documents {
        keys(&document.expect("JSON"), &mut names);
    }
    names.retain(|name| !readme.contains(&format!("`{name}`")));
    assert!(names.is_empty(), "not in cli/README.md: {names:?}");
}
