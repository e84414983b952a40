use super::*;
use bulkhead_core::meter::NetworkUnit;

fn key(virtual_cluster: &str, node: &str) -> PairKey {
    PairKey { virtual_cluster: virtual_cluster.to_owned(), node: node.to_owned() }
}

fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}

const BY_CLUSTER: Grouping = Grouping { virtual_cluster: true, node: false };

/// One virtual cluster on two nodes, since 0 and 50.
fn facts(series: Vec<(&str, Meter, Reading)>) -> Facts {
    let series = series
        .into_iter()
        .map(|(node, meter, reading)| (Series { key: key("a", node), meter }, reading))
        .collect();
    let pairs = vec![
        Pair { key: key("a", "n1"), first_start: 0 },
        Pair { key: key("a", "n2"), first_start: 50 },
    ];
    Facts { pairs, series, coverage: BTreeMap::new() }
}

fn one(facts: &Facts) -> v1::UsageRow {
    let mut rows = rows(&[span(0, 100)], BY_CLUSTER, facts).unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0).1
}

#[test]
fn counters_are_differences_added_over_series() {
    let facts = facts(vec![
        ("n1", Meter::CPU_USAGE, Reading::Counter(vec![5, 30])),
        ("n2", Meter::CPU_USAGE, Reading::Counter(vec![0, 7])),
        ("n2", Meter::OOM_KILLS, Reading::Counter(vec![u64::MAX - 1, u64::MAX])),
    ]);
    let row = one(&facts);
    assert_eq!(row.cpu.unwrap().usage_nanoseconds, 32);
    assert_eq!(row.memory.unwrap().oom_kills, 1);
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_not_a_number() {
    let half = u64::MAX / 2 + 1;
    let facts = facts(vec![
        ("n1", Meter::MEMORY_BYTE_SECONDS, Reading::Counter(vec![0, half])),
        ("n2", Meter::MEMORY_BYTE_SECONDS, Reading::Counter(vec![0, half])),
    ]);
    let error = rows(&[span(0, 100)], BY_CLUSTER, &facts).unwrap_err();
    let QueryError::Overflow { meter, group, .. } = &error;
    assert_eq!(meter, "memory_byte_seconds");
    assert_eq!(group, "virtual cluster \"a\"");
}

#[test]
fn peaks_are_maxima_and_levels_are_of_cgroups_that_are_still_there() {
    let seen = |highest, last, last_start| Some(Seen { highest, last, last_start });
    let facts = facts(vec![
        // Two incarnations on one node: the first was gone before the last window.
        ("n1", Meter::MEMORY_CURRENT, Reading::Gauge(vec![seen(900, 500, 10)])),
        ("n1", Meter::MEMORY_CURRENT, Reading::Gauge(vec![seen(70, 60, 40)])),
        ("n2", Meter::MEMORY_CURRENT, Reading::Gauge(vec![seen(8, 5, 20)])),
        ("n2", Meter::MEMORY_PEAK, Reading::Gauge(vec![seen(950, 950, 20)])),
        ("n2", Meter::PIDS_CURRENT, Reading::Gauge(vec![None])),
        ("n2", Meter::PIDS_PEAK, Reading::Gauge(vec![seen(3, 3, 20)])),
    ]);
    let row = one(&facts);
    let memory = row.memory.unwrap();
    assert_eq!(memory.current_bytes, 65);
    assert_eq!(memory.peak_bytes, 950);
    let pids = row.pids.unwrap();
    assert_eq!((pids.current, pids.peak), (0, 3));
}

#[test]
fn every_network_meter_has_its_own_field() {
    let all: Vec<_> = Meter::all_network().zip(1_u64..).collect();
    let series = all.iter().map(|(meter, value)| ("n1", *meter, Reading::Counter(vec![0, *value])));
    let row = one(&facts(series.collect()));
    let classes = row.network.unwrap().classes;
    assert_eq!(classes.len(), 12);
    let mut found: Vec<u64> = classes
        .iter()
        .flat_map(|class| {
            [
                class.passed_bytes,
                class.passed_packets,
                class.denied_bytes,
                class.denied_packets,
                class.would_deny_bytes,
                class.would_deny_packets,
                class.denied_connects,
                class.denied_sendmsgs,
                class.would_deny_connects,
                class.would_deny_sendmsgs,
            ]
        })
        .filter(|value| *value != 0)
        .collect();
    found.sort_unstable();
    assert_eq!(found, all.iter().map(|(_, value)| *value).collect::<Vec<_>>());
}

#[test]
fn classes_in_which_nothing_happened_are_left_out() {
    let denied = Meter::network(0, 3, 1, NetworkUnit::Packets).unwrap();
    let facts = facts(vec![
        ("n1", denied, Reading::Counter(vec![1, 4])),
        ("n1", Meter::network(1, 0, 0, NetworkUnit::Bytes).unwrap(), Reading::Counter(vec![9, 9])),
    ]);
    let classes = one(&facts).network.unwrap().classes;
    assert_eq!(classes.len(), 1);
    assert_eq!(classes[0].class(), v1::NetworkClass::Other);
    assert_eq!(classes[0].direction(), v1::NetworkDirection::Egress);
    assert_eq!(classes[0].denied_packets, 3);
}

#[test]
fn coverage_is_cut_at_the_edges_and_wanted_from_the_first_record_on() {
    let mut facts = facts(Vec::new());
    facts.coverage.insert((key("a", "n1"), Family::Cpu), vec![span(0, 30), span(60, 120)]);
    facts.coverage.insert((key("a", "n2"), Family::Cpu), vec![span(50, 100)]);
    let coverage = |row: &v1::UsageRow| row.cpu.unwrap().coverage.unwrap();
    let cpu = coverage(&one(&facts));
    // n1: 100 wanted, 30 + 40 covered; n2: 50 wanted, 50 covered.
    assert_eq!((cpu.covered_nanoseconds, cpu.wanted_nanoseconds), (120, 150));
    let halves = rows(&[span(0, 50), span(50, 100)], BY_CLUSTER, &facts).unwrap();
    let covered: u64 = halves.iter().map(|(_, row)| coverage(row).covered_nanoseconds).sum();
    let wanted: u64 = halves.iter().map(|(_, row)| coverage(row).wanted_nanoseconds).sum();
    assert_eq!((covered, wanted), (120, 150));
    let io = one(&facts).io.unwrap().coverage.unwrap();
    assert_eq!((io.covered_nanoseconds, io.wanted_nanoseconds), (0, 150));
}

#[test]
fn a_group_has_rows_from_its_first_record_on() {
    let facts = facts(Vec::new());
    let grouping = Grouping { virtual_cluster: true, node: true };
    let rows = rows(&[span(0, 50), span(50, 100)], grouping, &facts).unwrap();
    let shown: Vec<_> = rows.iter().map(|(index, row)| (*index, row.node.as_str())).collect();
    assert_eq!(shown, [(0, "n1"), (1, "n1"), (1, "n2")]);
}
