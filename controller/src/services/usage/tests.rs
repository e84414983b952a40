//! Whatever comes in, in whatever order, and however it is asked for, the sums are the same.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use bulkhead_core::meter::NetworkUnit;
use bulkhead_core::sample::UnixNanos;
use bulkhead_core::usage::{Epoch, UsageRecord, Window};
use bulkhead_core::{CgroupId, Meter, VirtualClusterNumber};
use bulkhead_proto::time;
use proptest::prelude::*;
use tempfile::TempDir;
use tonic_types::StatusExt;
use v1::query_usage_request::GroupBy;

use super::*;
use crate::ledger::{Batch, StreamKey};

/// Where all records lie, nanoseconds since the Unix epoch.
const WINDOW: u64 = 60;
const WINDOWS: u64 = 12;
const NOW: u64 = WINDOW * WINDOWS + 7;

fn ledger() -> (TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    (dir, ledger)
}

/// A record and the node that it is of.
type Report = (u8, UsageRecord);

/// The life of some counters: who, where, and how much is used in each window, `None` where
/// nothing is recorded.
#[derive(Clone, Debug)]
struct Life {
    cluster: u8,
    node: u8,
    cgroup: u64,
    used: Vec<Option<u32>>,
}

fn life() -> impl Strategy<Value = Life> {
    let used = proptest::collection::vec(
        proptest::option::weighted(0.7, 0_u32..1_000),
        usize::try_from(WINDOWS).unwrap(),
    );
    (0_u8..3, 0_u8..3, 1_u64..4, used).prop_map(|(cluster, node, cgroup, used)| Life {
        cluster,
        node,
        cgroup,
        used,
    })
}

fn network() -> Meter {
    Meter::network(0, 3, 1, NetworkUnit::Bytes).unwrap()
}

/// What was used in a window, by the model.
struct Used {
    start: u64,
    amount: u64,
}

/// The records of lives, and what was used by the model.
fn reports(lives: &[Life]) -> (Vec<Report>, Vec<Used>) {
    let (mut reports, mut model) = (Vec::new(), Vec::new());
    for (epoch, life) in (1_u64..).zip(lives) {
        let mut total = 0;
        for (window, used) in (0_u64..).zip(&life.used) {
            let Some(used) = used.map(u64::from) else {
                continue;
            };
            total += used;
            model.push(Used { start: window * WINDOW, amount: used });
            let record = record(life.cluster, life.cgroup, epoch, window * WINDOW, total);
            reports.push((life.node, record));
        }
    }
    (reports, model)
}

fn record(cluster: u8, cgroup: u64, epoch: u64, start: u64, total: u64) -> UsageRecord {
    let length = NonZeroU64::new(WINDOW).unwrap();
    UsageRecord {
        virtual_cluster: format!("team-{cluster}").parse().unwrap(),
        number: VirtualClusterNumber::new(u32::from(cluster) + 1).unwrap(),
        cgroup: CgroupId(cgroup),
        epoch: Epoch(epoch),
        window: Window::containing(UnixNanos(start), length),
        values: BTreeMap::from([
            (Meter::CPU_USAGE, total),
            (network(), 3 * total),
            (Meter::MEMORY_CURRENT, total % 97),
            (Meter::from_code(77_777), total),
        ]),
    }
}

/// Sends each batch under a journal of its own, so that none is taken for one that is known.
fn deliver(ledger: &Ledger, batches: &[Vec<Report>]) {
    for (index, batch) in batches.iter().enumerate() {
        for node in 0..3 {
            let of_node = batch.iter().filter(|(of, _)| *of == node);
            let records = of_node.map(|(_, record)| record.clone()).collect();
            let stream = StreamKey {
                node: format!("node-{node}"),
                journal: format!("journal-{index}"),
                boot: "boot".to_owned(),
            };
            ledger.merge(&stream, &Batch { sequence: 1, records }, NOW).unwrap();
        }
    }
}

fn request(group_by: &[GroupBy]) -> v1::QueryUsageRequest {
    v1::QueryUsageRequest {
        group_by: group_by.iter().map(|by| (*by).into()).collect(),
        ..Default::default()
    }
}

fn page(ledger: &Ledger, request: &v1::QueryUsageRequest) -> v1::QueryUsageResponse {
    answer(ledger, &Question::parse(request).unwrap(), NOW).unwrap()
}

/// All pages of an answer.
fn ask(ledger: &Ledger, mut request: v1::QueryUsageRequest) -> Vec<v1::UsageRow> {
    let mut rows = Vec::new();
    loop {
        let response = page(ledger, &request);
        assert!(request.page_size == 0 || response.rows.len() <= request.page_size as usize);
        rows.extend(response.rows);
        if response.next_page_token.is_empty() {
            return rows;
        }
        request.page_token = response.next_page_token;
    }
}

/// CPU time, denied bytes, covered and wanted time.
type Sums = [u64; 4];

fn sums(row: &v1::UsageRow) -> Sums {
    let cpu = row.cpu.as_ref().unwrap();
    let coverage = cpu.coverage.as_ref().unwrap();
    let denied = row.network.as_ref().unwrap().classes.iter().map(|class| class.denied_bytes);
    [cpu.usage_nanoseconds, denied.sum(), coverage.covered_nanoseconds, coverage.wanted_nanoseconds]
}

fn total<'a>(rows: impl IntoIterator<Item = &'a v1::UsageRow>) -> Sums {
    rows.into_iter().fold(Sums::default(), |mut sum, row| {
        for (sum, part) in sum.iter_mut().zip(sums(row)) {
            *sum += part;
        }
        sum
    })
}

fn by(rows: &[v1::UsageRow], key: impl Fn(&v1::UsageRow) -> String) -> BTreeMap<String, Sums> {
    let mut groups: BTreeMap<String, Vec<&v1::UsageRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups.into_iter().map(|(key, rows)| (key, total(rows))).collect()
}

const BOTH: [GroupBy; 2] = [GroupBy::VirtualCluster, GroupBy::Node];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Sent twice, late, out of order, in other batches: the ledger is the same.
    #[test]
    fn merges_commute_and_repeat(
        lives in proptest::collection::vec(life(), 1..5),
        order in any::<proptest::sample::Index>(),
        size in 1_usize..9,
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let (reports, _) = reports(&lives);
        prop_assume!(!reports.is_empty());
        let (_straight_dir, straight) = ledger();
        deliver(&straight, std::slice::from_ref(&reports));
        let mut shuffled = reports.clone();
        shuffled.rotate_left(order.index(reports.len()));
        shuffled[order.index(reports.len())..].reverse();
        shuffled.extend(again.iter().map(|index| reports[index.index(reports.len())].clone()));
        let (_crooked_dir, crooked) = ledger();
        let batches: Vec<_> = shuffled.chunks(size).map(<[_]>::to_vec).collect();
        deliver(&crooked, &batches);
        prop_assert_eq!(crooked.dump().unwrap(), straight.dump().unwrap());
    }

    /// However it is cut, grouped, filtered and paged, it adds up to the same.
    #[test]
    fn all_ways_to_ask_add_up(
        lives in proptest::collection::vec(life(), 1..6),
        start in 0_u64..NOW - 1,
        length in 1_u64..NOW,
        step in 1_u64..200,
        page_size in 1_u32..7,
    ) {
        let (reports, model) = reports(&lives);
        let (_dir, ledger) = ledger();
        deliver(&ledger, &[reports]);
        let end = (start + length).min(NOW + 100);
        let ranged = |group_by: &[GroupBy]| v1::QueryUsageRequest {
            start: Some(time::timestamp(start)),
            end: Some(time::timestamp(end)),
            ..request(group_by)
        };
        let whole = ask(&ledger, ranged(&BOTH));
        let expected: u64 = model
            .iter()
            .filter(|used| (start..end).contains(&used.start))
            .map(|used| used.amount)
            .sum();
        prop_assert_eq!(total(&whole)[..2].to_vec(), vec![expected, 3 * expected]);

        let pair = |row: &v1::UsageRow| format!("{}/{}", row.virtual_cluster, row.node);
        let stepped = v1::QueryUsageRequest {
            step: Some(time::duration(step)),
            ..ranged(&BOTH)
        };
        let steps = ask(&ledger, stepped.clone());
        prop_assert_eq!(by(&steps, pair), by(&whole, pair));

        let paged = ask(&ledger, v1::QueryUsageRequest { page_size, ..stepped });
        prop_assert_eq!(&paged, &steps);

        let clusters = ask(&ledger, ranged(&[]));
        let nodes = ask(&ledger, ranged(&[GroupBy::Node]));
        let cluster = |row: &v1::UsageRow| row.virtual_cluster.clone();
        let node = |row: &v1::UsageRow| row.node.clone();
        prop_assert_eq!(by(&clusters, cluster), by(&whole, cluster));
        prop_assert_eq!(by(&nodes, node), by(&whole, node));

        for (name, sums) in by(&whole, cluster) {
            let virtual_clusters = vec![name];
            let one = ask(&ledger, v1::QueryUsageRequest { virtual_clusters, ..ranged(&BOTH) });
            prop_assert_eq!(total(&one), sums);
        }
    }
}

#[test]
fn a_series_that_began_before_the_range_is_counted_from_the_range_on() {
    let (_dir, ledger) = ledger();
    let records = [(0, 100), (60, 250), (120, 400)];
    let report = |(start, total)| (0, record(0, 1, 0, start, total));
    deliver(&ledger, &[records.map(report).to_vec()]);
    let used = |start, end| {
        let request = v1::QueryUsageRequest {
            start: Some(time::timestamp(start)),
            end: Some(time::timestamp(end)),
            ..request(&[])
        };
        total(&ask(&ledger, request))[0]
    };
    assert_eq!(used(0, 60), 100);
    assert_eq!(used(60, 120), 150);
    // A window belongs to the range in which it begins.
    assert_eq!(used(1, 61), 150);
    assert_eq!(used(61, 120), 0);
    assert_eq!(used(0, NOW), 400);
}

/// The agent's window was changed while the counters lived on.
#[test]
fn windows_of_other_lengths_may_overlap() {
    let (_dir, ledger) = ledger();
    let shorter = [(0, 10), (60, 15), (120, 20)];
    let mut records: Vec<UsageRecord> =
        shorter.map(|(start, total)| record(0, 1, 0, start, total)).into();
    for (start, total) in [(0, 25), (240, 50)] {
        let mut longer = record(0, 1, 0, start, total);
        longer.window.length_nanoseconds = 240;
        records.push(longer);
    }
    let reports: Vec<Report> = records.into_iter().map(|record| (0, record)).collect();
    deliver(&ledger, &[reports]);
    let stepped = v1::QueryUsageRequest { step: Some(time::duration(60)), ..request(&[]) };
    let used: Vec<u64> = ask(&ledger, stepped).iter().map(|row| sums(row)[0]).take(5).collect();
    assert_eq!(used, [25, 0, 0, 0, 25]);
}

/// Numbers of which SQLite's signed ones would make negative ones.
#[test]
fn the_highest_numbers_are_kept_exactly() {
    let (_dir, ledger) = ledger();
    let report = |start, total| {
        let mut record = record(0, u64::MAX, u64::MAX, start, 0);
        record.values = BTreeMap::from([(Meter::CPU_USAGE, total), (Meter::MEMORY_CURRENT, total)]);
        (0, record)
    };
    let (low, high) = (i64::MAX.unsigned_abs(), u64::MAX - 1);
    deliver(&ledger, &[vec![report(0, low)], vec![report(60, high)], vec![report(60, low)]]);
    let rows = ask(&ledger, request(&[]));
    assert_eq!(rows[0].cpu.as_ref().unwrap().usage_nanoseconds, high);
    assert_eq!(rows[0].memory.as_ref().unwrap().peak_bytes, high);
    assert_eq!(rows[0].memory.as_ref().unwrap().current_bytes, high);
}

#[test]
fn nothing_recorded_is_no_row() {
    let (_dir, ledger) = ledger();
    assert_eq!(ask(&ledger, request(&[])), []);
    deliver(&ledger, &[vec![(0, record(0, 1, 0, 120, 5))]]);
    let before = v1::QueryUsageRequest { end: Some(time::timestamp(100)), ..request(&[]) };
    assert_eq!(ask(&ledger, before), []);
}

#[track_caller]
fn refused(ledger: &Ledger, request: &v1::QueryUsageRequest) -> (tonic::Code, String) {
    let status = Question::parse(request)
        .map_err(|error| reason::question(&error))
        .and_then(|question| answer(ledger, &question, NOW))
        .expect_err("it has no answer");
    let info = status.get_error_details().error_info().cloned().expect("a reason");
    assert_eq!(info.domain, "bulkhead.dev");
    (status.code(), info.reason)
}

#[test]
fn questions_without_an_answer_are_refused_with_a_reason() {
    use tonic::Code::{InvalidArgument, NotFound};
    let (_dir, ledger) = ledger();
    deliver(&ledger, &[vec![(0, record(0, 1, 0, 0, 5)), (1, record(1, 1, 0, 0, 5))]]);
    let at = |at| Some(time::timestamp(at));
    let range = (InvalidArgument, "RANGE_INVALID".to_owned());
    let negative = prost_types::Timestamp { seconds: -1, nanos: 0 };
    for request in [
        v1::QueryUsageRequest { start: at(60), end: at(60), ..request(&[]) },
        v1::QueryUsageRequest { start: at(NOW), ..request(&[]) },
        v1::QueryUsageRequest { start: Some(negative), ..request(&[]) },
        v1::QueryUsageRequest {
            step: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            ..request(&[])
        },
    ] {
        assert_eq!(refused(&ledger, &request), range, "{request:?}");
    }
    let of = |name: &str| vec![name.to_owned()];
    let unknown = v1::QueryUsageRequest { virtual_clusters: of("team-9"), ..request(&[]) };
    assert_eq!(refused(&ledger, &unknown), (NotFound, "VIRTUAL_CLUSTER_UNKNOWN".to_owned()));
    let unknown = v1::QueryUsageRequest { nodes: of("node-9"), ..request(&[]) };
    assert_eq!(refused(&ledger, &unknown), (NotFound, "NODE_UNKNOWN".to_owned()));
    let odd = v1::QueryUsageRequest { nodes: of("x\"]"), ..request(&[]) };
    assert_eq!(refused(&ledger, &odd), (InvalidArgument, "NAME_INVALID".to_owned()));
    let odd = v1::QueryUsageRequest { group_by: vec![9], ..request(&[]) };
    assert_eq!(refused(&ledger, &odd), (InvalidArgument, "GROUP_BY_INVALID".to_owned()));
}

#[test]
fn a_page_token_belongs_to_its_question() {
    let (_dir, ledger) = ledger();
    deliver(&ledger, &[vec![(0, record(0, 1, 0, 0, 5)), (1, record(1, 1, 0, 0, 5))]]);
    let first = v1::QueryUsageRequest { page_size: 1, ..request(&[]) };
    let response = page(&ledger, &first);
    let second = v1::QueryUsageRequest {
        page_token: response.next_page_token.clone(),
        // The size of a page is no part of the question.
        page_size: 5,
        ..first.clone()
    };
    let rest = page(&ledger, &second);
    assert_eq!((rest.rows.len(), rest.next_page_token.as_str()), (1, ""));
    // The range is that of the first page, though it has no end and time goes on.
    assert_eq!(rest.rows[0].end, response.rows[0].end);
    let refusal = (tonic::Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned());
    let other = v1::QueryUsageRequest { nodes: vec!["node-0".to_owned()], ..second.clone() };
    assert_eq!(refused(&ledger, &other), refusal);
    let garbage = v1::QueryUsageRequest { page_token: "feed".to_owned(), ..second };
    assert_eq!(refused(&ledger, &garbage), refusal);
}
