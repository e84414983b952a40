//! From what the ledger holds to rows: pure functions, integers all the way.
//!
//! The usage of a window belongs, whole, to the span in which the window begins. What a counter
//! stood at, at an edge of a span, is the highest that was seen in the windows that begin before
//! that edge (0 where it had not begun); usage in a span is the difference between its two
//! edges, and never negative. So the usage of spans that follow one another adds up to that of the whole, exactly,
//! and since every series is of one virtual cluster on one node, so does that of groups.

mod columns;
mod page;
mod question;

use std::collections::BTreeMap;

use bulkhead_core::Meter;
use bulkhead_proto::v1;

use crate::family::Family;

pub(crate) use page::{cut, plan};
pub(crate) use question::{Grouping, Position, Question, QuestionError};

/// A half-open span of time, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Span {
    /// Its first instant.
    pub start: u64,
    /// The first instant after it.
    pub end: u64,
}

impl Span {
    /// How much of `other` is in it, nanoseconds.
    fn common(self, other: Self) -> u64 {
        self.end.min(other.end).saturating_sub(self.start.max(other.start))
    }
}

/// A virtual cluster on a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PairKey {
    /// The virtual cluster.
    pub virtual_cluster: String,
    /// The node.
    pub node: String,
}

/// A virtual cluster that was seen on a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    /// Which.
    pub key: PairKey,
    /// The start of the first window in which it was seen.
    pub first_start: u64,
}

/// What a series of records measures, and of whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Series {
    /// Of whom.
    pub key: PairKey,
    /// What.
    pub meter: Meter,
}

/// What a series says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// What it stood at, at each edge: one more than there are spans, and none below the one before.
    Counter(Vec<u64>),
    /// What was seen in each span; `None`: nothing.
    Gauge(Vec<Option<Seen>>),
}

/// What was seen of a gauge in a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// Its highest value.
    pub highest: u64,
    /// Its value in the last window.
    pub last: u64,
    /// When that window began.
    pub last_start: u64,
}

/// Everything that rows are made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts {
    /// Who was seen where.
    pub pairs: Vec<Pair>,
    /// Series with records in the range.
    pub series: Vec<(Series, Reading)>,
    /// For which time there are records: spans that do not touch, in order.
    pub coverage: BTreeMap<(PairKey, Family), Vec<Span>>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// A sum does not fit.
    #[error(
        "{meter} of {group} from {start} to {end} (unix nanoseconds) is more than 64 bits hold; \
         ask for a shorter range or step"
    )]
    Overflow {
        /// The meter.
        meter: String,
        /// Whose row.
        group: String,
        /// The row's start.
        start: u64,
        /// The row's end.
        end: u64,
    },
}

/// The rows of some spans with the index of each one's span, by span, then virtual cluster, then
/// node. A group has rows from its first record on.
pub(crate) fn rows(
    spans: &[Span],
    grouping: Grouping,
    facts: &Facts,
) -> Result<Vec<(usize, v1::UsageRow)>, QueryError> {
    let mut groups: BTreeMap<PairKey, Vec<&Pair>> = BTreeMap::new();
    for pair in &facts.pairs {
        groups.entry(grouping.of(&pair.key)).or_default().push(pair);
    }
    let mut by_group: BTreeMap<PairKey, Vec<&(Series, Reading)>> = BTreeMap::new();
    for series in &facts.series {
        by_group.entry(grouping.of(&series.0.key)).or_default().push(series);
    }
    let mut rows = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        for (group, pairs) in &groups {
            if pairs.iter().all(|pair| pair.first_start >= span.end) {
                continue;
            }
            let series = by_group.get(group).map_or(&[][..], Vec::as_slice);
            let mut row = columns::row(index, *span, group, series)?;
            columns::cover(&mut row, *span, pairs, &facts.coverage)?;
            rows.push((index, row));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
