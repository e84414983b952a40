//! What the writer remembers of the tables, so that it need not look it up for each record: all
//! of it is committed, and without it the same is written.

use std::collections::HashMap;

use bulkhead_core::usage::UsageRecord;
use bulkhead_core::{VirtualClusterName, VirtualClusterNumber};
use rusqlite::{Transaction, params};

use super::series::{Series, SeriesKey};
use super::{Refusal, coverage, stored};
use crate::family::{Families, Family};
use crate::identities;

/// Most series that are remembered; each takes up to about 600 bytes. With more, all is
/// forgotten and looked up again.
const MOST_SERIES: usize = 1 << 16;

/// A virtual cluster on a node, by their numbers.
pub(super) type PairNumbers = (u32, i64);

/// What the writer remembers.
#[derive(Debug, Default)]
pub(super) struct Known {
    numbers: HashMap<VirtualClusterName, VirtualClusterNumber>,
    /// Starts of the first window.
    pairs: HashMap<PairNumbers, i64>,
    /// The last span of each.
    coverage: HashMap<(PairNumbers, Families), coverage::Stretch>,
    series: HashMap<SeriesKey, Series>,
    packed: Vec<u8>,
}

impl Known {
    /// Forgets all where it is too much.
    pub(super) fn bound(&mut self) {
        if self.series.len() > MOST_SERIES {
            *self = Self::default();
        }
    }

    /// Our number of the virtual cluster of a record.
    pub(super) fn number(
        &mut self,
        transaction: &Transaction<'_>,
        record: &UsageRecord,
    ) -> Result<VirtualClusterNumber, Refusal> {
        if let Some(number) = self.numbers.get(&record.virtual_cluster) {
            return Ok(*number);
        }
        let number = identities::adopt(transaction, &record.virtual_cluster, record.number)?;
        self.numbers.insert(record.virtual_cluster.clone(), number);
        Ok(number)
    }

    /// Takes in a record of a virtual cluster on a node.
    pub(super) fn take(
        &mut self,
        transaction: &Transaction<'_>,
        (pair, boot): (PairNumbers, i64),
        record: &UsageRecord,
    ) -> rusqlite::Result<()> {
        self.see(transaction, pair, stored(record.window.start.0))?;
        let (cgroup, epoch) = (record.cgroup.0, record.epoch.0);
        let key = SeriesKey { cluster: pair.0, boot, cgroup, epoch };
        let series = match self.series.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let series = Series::open(transaction, new.key())?;
                new.insert(series)
            }
        };
        series.take(transaction, record, &mut self.packed)?;
        let mut families = Family::none();
        record.values.keys().for_each(|meter| families.add(*meter));
        self.cover(transaction, (pair, families), record)
    }

    /// Keeps since when the pair is seen.
    fn see(
        &mut self,
        transaction: &Transaction<'_>,
        pair: PairNumbers,
        start: i64,
    ) -> rusqlite::Result<()> {
        if self.pairs.get(&pair).is_some_and(|first| *first <= start) {
            return Ok(());
        }
        let first = transaction
            .prepare_cached(
                "INSERT INTO pair VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET first_start = min(first_start, excluded.first_start)
                 RETURNING first_start",
            )?
            .query_row(params![pair.0, pair.1, start], |row| row.get(0))?;
        self.pairs.insert(pair, first);
        Ok(())
    }

    /// Keeps for which time there are records. Nearly every window is in the last span already,
    /// or makes it longer.
    fn cover(
        &mut self,
        transaction: &Transaction<'_>,
        what: (PairNumbers, Families),
        record: &UsageRecord,
    ) -> rusqlite::Result<()> {
        if what.1.is_empty() {
            return Ok(());
        }
        let start = record.window.start.0;
        let end = start.saturating_add(record.window.length_nanoseconds);
        if let Some(last) = self.coverage.get_mut(&what)
            && last.start <= start
            && start <= last.end
        {
            if last.end < end {
                last.end = end;
                coverage::lengthen(transaction, what, *last)?;
            }
            return Ok(());
        }
        let last = coverage::add(transaction, what, coverage::Stretch { start, end })?;
        self.coverage.insert(what, last);
        Ok(())
    }
}
