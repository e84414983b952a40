//! Which spans a page needs, and where it ends.

use std::collections::BTreeMap;

use bulkhead_proto::v1;

use super::{Grouping, Pair, PairKey, Position, Span};

/// The spans of `range` that one page needs, and the index of the first. Enough of them for a
/// page of `page_size` rows after `position`; spans before the first record are left out.
pub(crate) fn plan(
    range: Span,
    step: Option<u64>,
    grouping: Grouping,
    pairs: &[Pair],
    position: Option<&Position>,
    page_size: usize,
) -> (u64, Vec<Span>) {
    let step = step.unwrap_or(range.end - range.start);
    let mut firsts: BTreeMap<PairKey, u64> = BTreeMap::new();
    for pair in pairs {
        let first = firsts.entry(grouping.of(&pair.key)).or_insert(pair.first_start);
        *first = (*first).min(pair.first_start);
    }
    let Some(&oldest) = firsts.values().min() else {
        return (0, Vec::new());
    };
    let first_index = oldest.saturating_sub(range.start) / step;
    let index = position.map_or(first_index, |position| position.index.max(first_index));
    let mut spans = Vec::new();
    // The first span may have rows that were on the page before.
    let mut missing = page_size.saturating_add(if position.is_some() { firsts.len() } else { 0 });
    for index in index.. {
        let Some(span) = span(range, step, index).filter(|_| missing > 0) else {
            break;
        };
        let rows = firsts.values().filter(|first| **first < span.end).count();
        missing = missing.saturating_sub(rows);
        spans.push(span);
    }
    (index, spans)
}

/// The span of a range with that index; `None` behind its end.
fn span(range: Span, step: u64, index: u64) -> Option<Span> {
    let start = range.start.checked_add(step.checked_mul(index)?)?;
    let end = start.saturating_add(step).min(range.end);
    (start < range.end).then_some(Span { start, end })
}

/// A page, cut out of the rows of the spans that [`plan`] chose.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cut {
    /// Its rows.
    pub rows: Vec<v1::UsageRow>,
    /// Where it ends; `None`: it is the last.
    pub end: Option<Position>,
}

/// Cuts a page out of rows with the index of each one's span.
pub(crate) fn cut(
    range: Span,
    (first_index, spans): (u64, &[Span]),
    position: Option<&Position>,
    page_size: usize,
    rows: Vec<(usize, v1::UsageRow)>,
) -> Cut {
    let mut page: Vec<(u64, v1::UsageRow)> = Vec::new();
    let mut more = spans.last().is_some_and(|last| last.end < range.end);
    for (index, row) in rows {
        let index = first_index.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
        let on_a_page_before = position.is_some_and(|position| {
            (index, &row.virtual_cluster, &row.node)
                <= (position.index, &position.virtual_cluster, &position.node)
        });
        if on_a_page_before {
            continue;
        }
        if page.len() == page_size {
            more = true;
            break;
        }
        page.push((index, row));
    }
    let end = page.last().filter(|_| more).map(|(index, row)| Position {
        start: range.start,
        end: range.end,
        index: *index,
        virtual_cluster: row.virtual_cluster.clone(),
        node: row.node.clone(),
    });
    Cut { rows: page.into_iter().map(|(_, row)| row).collect(), end }
}
