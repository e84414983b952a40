//! What a series says of spans of time. How much is read depends on how many spans there are, not
//! on how long the series or the spans are.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::Meter;
use bulkhead_core::meter::Kind;
use rusqlite::{OptionalExtension, Transaction, params};

use super::series::{PEAK_SPAN, unpacked};
use super::values::Values;
use super::{number, stored};
use crate::query::{Reading, Seen, Span};

/// What each meter of a series says of the spans, which follow one another without a gap.
pub(super) fn readings(
    transaction: &Transaction<'_>,
    series: i64,
    spans: &[Span],
) -> rusqlite::Result<Vec<(Meter, Reading)>> {
    let counters = counters(transaction, series, spans)?.into_iter();
    let gauges = gauges(transaction, series, spans)?.into_iter();
    Ok(counters
        .map(|(meter, levels)| (meter, Reading::Counter(levels)))
        .chain(gauges.map(|(meter, seen)| (meter, Reading::Gauge(seen))))
        .collect())
}

/// What each counter stood at, at each edge of the spans: the highest of what was seen in the
/// windows that begin before the edge, which the last of them says; 0: it had not begun. A
/// counter may fall without fault (a disk goes and takes its share of a sum along, a clock is set
/// back): then it stands where it was until it passes that.
fn counters(
    transaction: &Transaction<'_>,
    series: i64,
    spans: &[Span],
) -> rusqlite::Result<BTreeMap<Meter, Vec<u64>>> {
    let mut last_before = transaction.prepare_cached(
        "SELECT counted FROM record WHERE series = ?1 AND window_start < ?2
         ORDER BY window_start DESC, window_length DESC LIMIT 1",
    )?;
    let edges = spans.first().map(|first| first.start).into_iter();
    let edges = edges.chain(spans.iter().map(|span| span.end));
    let mut levels: BTreeMap<Meter, Vec<u64>> = BTreeMap::new();
    for (index, edge) in edges.enumerate() {
        let before = last_before.query_row(params![series, stored(edge)], |row| unpacked(row, 0));
        for (meter, level) in before.optional()?.iter().flat_map(|values| values.of(Kind::Counter))
        {
            let of_meter = levels.entry(meter).or_insert_with(|| vec![0; spans.len() + 1]);
            if let Some(at_edge) = of_meter.get_mut(index) {
                *at_edge = level;
            }
        }
    }
    Ok(levels)
}

/// The highest and the last of each gauge in each span.
fn gauges(
    transaction: &Transaction<'_>,
    series: i64,
    spans: &[Span],
) -> rusqlite::Result<BTreeMap<Meter, Vec<Option<Seen>>>> {
    let mut gauges: BTreeMap<Meter, Vec<Option<Seen>>> = BTreeMap::new();
    for (index, span) in spans.iter().enumerate() {
        for (meter, seen) in seen(transaction, series, *span)? {
            let of_meter = gauges.entry(meter).or_insert_with(|| vec![None; spans.len()]);
            if let Some(in_span) = of_meter.get_mut(index) {
                *in_span = Some(seen);
            }
        }
    }
    Ok(gauges)
}

/// The gauges of one span: from the windows at its ends, and from the peaks of what is between.
fn seen(
    transaction: &Transaction<'_>,
    series: i64,
    span: Span,
) -> rusqlite::Result<BTreeMap<Meter, Seen>> {
    let whole = Span { start: span.start.div_ceil(PEAK_SPAN), end: span.end / PEAK_SPAN };
    let mut found = BTreeMap::new();
    if whole.start >= whole.end {
        look_back(transaction, series, span, &mut found, None)?;
        return Ok(found);
    }
    let between = Span { start: whole.start * PEAK_SPAN, end: whole.end * PEAK_SPAN };
    let (before, after) =
        (Span { end: between.start, ..span }, Span { start: between.end, ..span });
    look_back(transaction, series, after, &mut found, None)?;
    let peaks = peaks(transaction, series, whole)?;
    let missing: BTreeSet<_> =
        peaks.iter().map(|(meter, _)| meter).filter(|meter| !found.contains_key(meter)).collect();
    if !missing.is_empty() {
        look_back(transaction, series, between, &mut found, Some(missing))?;
    }
    for (meter, highest) in peaks.iter() {
        if let Some(seen) = found.get_mut(&meter) {
            seen.highest = seen.highest.max(highest);
        }
    }
    look_back(transaction, series, before, &mut found, None)?;
    Ok(found)
}

/// Takes in the gauges of the windows that begin in a span, the last first; those of spans after
/// it are in `found`. `missing`: it is enough when these were seen.
fn look_back(
    transaction: &Transaction<'_>,
    series: i64,
    span: Span,
    found: &mut BTreeMap<Meter, Seen>,
    mut missing: Option<BTreeSet<Meter>>,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "SELECT window_start, counted FROM record
         WHERE series = ?1 AND window_start >= ?2 AND window_start < ?3
         ORDER BY window_start DESC, window_length DESC",
    )?;
    let mut rows = statement.query(params![series, stored(span.start), stored(span.end)])?;
    while let Some(row) = rows.next()? {
        let last_start = number(row.get(0)?);
        for (meter, value) in unpacked(row, 1)?.of(Kind::Gauge) {
            let seen = Seen { highest: value, last: value, last_start };
            let seen = found.entry(meter).or_insert(seen);
            seen.highest = seen.highest.max(value);
            missing.as_mut().map(|missing| missing.remove(&meter));
        }
        if missing.as_ref().is_some_and(BTreeSet::is_empty) {
            break;
        }
    }
    Ok(())
}

/// The highest values of gauges in whole spans, by their numbers.
fn peaks(transaction: &Transaction<'_>, series: i64, whole: Span) -> rusqlite::Result<Values> {
    let mut statement = transaction.prepare_cached(
        "SELECT highest FROM peak WHERE series = ?1 AND span >= ?2 AND span < ?3",
    )?;
    let mut rows = statement.query(params![series, stored(whole.start), stored(whole.end)])?;
    let mut peaks = Values::default();
    while let Some(row) = rows.next()? {
        peaks.raise(unpacked(row, 0)?.iter());
    }
    Ok(peaks)
}
