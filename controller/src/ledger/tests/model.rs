//! The ledger against a model that keeps every record and looks at all of them for each question.

use std::collections::BTreeMap;

use bulkhead_core::meter::Kind;
use proptest::prelude::*;

use super::*;
use crate::ledger::series::PEAK_SPAN;
use crate::query::{PairKey, Seen, Series};

/// Windows are a third of an hour long, so that questions have whole hours in them.
const WINDOW: u64 = PEAK_SPAN / 3;
const WINDOWS: u64 = 24;

/// Counters and gauges, known and unknown.
const METERS: [Meter; 5] = [
    Meter::CPU_USAGE,
    Meter::MEMORY_CURRENT,
    Meter::IO_READ,
    Meter::PIDS_CURRENT,
    Meter::from_code(77_777),
];

fn any_record() -> impl Strategy<Value = UsageRecord> {
    // Counters that fall, and some beyond 2⁶³.
    let value = prop_oneof![0_u64..50, Just(1 << 63), any::<u64>()];
    let values = proptest::collection::btree_map(
        proptest::sample::select(METERS.as_slice()),
        value,
        1..METERS.len(),
    );
    (0_u8..2, 0..WINDOWS, 1_u64..3, values).prop_map(|(who, window, length, values)| {
        let mut record = record(&format!("team-{who}"), u32::from(who) + 1, 0, 0);
        let start = UnixNanos(window / length * length * WINDOW);
        record.window = Window { start, length_nanoseconds: length * WINDOW };
        record.values = values;
        record
    })
}

type Model = BTreeMap<String, BTreeMap<(u64, u64), BTreeMap<Meter, u64>>>;

fn model(records: &[UsageRecord]) -> Model {
    let mut model = Model::new();
    for record in records {
        let key = (record.window.start.0, record.window.length_nanoseconds);
        let series = model.entry(record.virtual_cluster.to_string()).or_default();
        let values = series.entry(key).or_default();
        for (meter, value) in &record.values {
            let highest = values.entry(*meter).or_default();
            *highest = (*highest).max(*value);
        }
    }
    model
}

/// What the model says, as the ledger says it.
fn said(model: &Model, spans: &[Span]) -> Vec<(String, Meter, Reading)> {
    let whole = spans[0].start..spans[spans.len() - 1].end;
    let mut all = Vec::new();
    for (name, rows) in model {
        if !rows.keys().any(|(start, _)| whole.contains(start)) {
            continue;
        }
        for meter in METERS {
            let values =
                rows.iter().filter_map(|((start, _), row)| Some((*start, *row.get(&meter)?)));
            let values: Vec<(u64, u64)> = values.collect();
            if meter.kind() == Kind::Counter {
                let level = |edge: u64| {
                    let before = values.iter().filter(|(start, _)| *start < edge);
                    before.map(|(_, value)| *value).max()
                };
                let edges = || [whole.start].into_iter().chain(spans.iter().map(|span| span.end));
                if edges().any(|edge| level(edge).is_some()) {
                    let levels = edges().map(|edge| level(edge).unwrap_or(0)).collect();
                    all.push((name.clone(), meter, Reading::Counter(levels)));
                }
                continue;
            }
            let seen = |span: &Span| {
                let inside = || values.iter().filter(|(at, _)| (span.start..span.end).contains(at));
                let (last_start, last) = *inside().next_back()?;
                let highest = inside().map(|(_, value)| *value).max()?;
                Some(Seen { highest, last, last_start })
            };
            let seen: Vec<Option<Seen>> = spans.iter().map(seen).collect();
            if seen.iter().any(Option::is_some) {
                all.push((name.clone(), meter, Reading::Gauge(seen)));
            }
        }
    }
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all
}

fn asked(ledger: &Ledger, spans: &[Span]) -> Vec<(String, Meter, Reading)> {
    let facts = ledger.facts(&Selection::default(), spans).unwrap();
    let said = facts.series.into_iter().map(|(series, reading)| {
        let Series { key: PairKey { virtual_cluster, .. }, meter } = series;
        (virtual_cluster, meter, reading)
    });
    let mut all: Vec<_> = said.collect();
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Late, twice, out of order, over restarts; asked in whatever spans.
    #[test]
    fn the_ledger_says_what_all_records_say(
        records in proptest::collection::vec(any_record(), 1..40),
        size in 1_usize..12,
        restart_after in 0_usize..6,
        start in 0..WINDOWS * WINDOW,
        steps in proptest::collection::vec(1..9 * WINDOW, 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), None).unwrap();
        for (index, records) in records.chunks(size).enumerate() {
            let batch = Batch { sequence: 1 + index as u64, records: records.to_vec() };
            ledger.merge(&stream("j"), &batch, 1).unwrap();
            if index == restart_after {
                drop(ledger);
                ledger = Ledger::open(dir.path(), None).unwrap();
            }
        }
        let mut at = start;
        let spans: Vec<Span> = steps
            .iter()
            .map(|step| {
                let span = Span { start: at, end: at + step };
                at = span.end;
                span
            })
            .collect();
        prop_assert_eq!(asked(&ledger, &spans), said(&model(&records), &spans));
    }
}
