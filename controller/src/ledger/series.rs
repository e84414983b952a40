//! One series: the rows of the life of some counters.
//!
//! A row's counters are the highest of its own window and of all before ([`Values`]), so a record
//! that comes late raises the rows behind it, as far as they are lower. Sets of records that are
//! the same make rows that are the same, in whatever order they come.

use std::cmp::Ordering;

use bulkhead_core::meter::Kind;
use bulkhead_core::usage::UsageRecord;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::values::Values;
use super::{damaged, stored};

/// What the highest values of gauges are kept for, besides for each window: spans of so many
/// nanoseconds, an hour.
pub(super) const PEAK_SPAN: u64 = 3_600_000_000_000;

/// A row's place in its series, as SQLite orders it: start and length of its window.
type Place = (i64, i64);

/// Which series. Equal for all records of one life of counters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct SeriesKey {
    pub(super) cluster: u32,
    pub(super) boot: i64,
    pub(super) cgroup: u64,
    pub(super) epoch: u64,
}

/// A series, with its newest row at hand: nearly every record is of that window or the next.
#[derive(Clone, Debug)]
pub(super) struct Series {
    id: i64,
    newest: Option<(Place, Values)>,
    /// The highest values of gauges in one span, and the span's number.
    peaks: Option<(i64, Values)>,
}

impl Series {
    /// Finds a series, or makes it.
    pub(super) fn open(transaction: &Transaction<'_>, key: &SeriesKey) -> rusqlite::Result<Self> {
        let key = params![key.cluster, key.boot, stored(key.cgroup), stored(key.epoch)];
        let known = transaction
            .prepare_cached(
                "SELECT id FROM series
                 WHERE virtual_cluster = ?1 AND boot = ?2 AND cgroup = ?3 AND epoch = ?4",
            )?
            .query_row(key, |row| row.get(0))
            .optional()?;
        if let Some(id) = known {
            let newest = transaction
                .prepare_cached(
                    "SELECT window_start, window_length, counted FROM record WHERE series = ?1
                     ORDER BY window_start DESC, window_length DESC LIMIT 1",
                )?
                .query_row([id], placed)
                .optional()?;
            return Ok(Self { id, newest, peaks: None });
        }
        let id = transaction
            .prepare_cached(
                "INSERT INTO series (virtual_cluster, boot, cgroup, epoch)
                 VALUES (?1, ?2, ?3, ?4) RETURNING id",
            )?
            .query_row(key, |row| row.get(0))?;
        Ok(Self { id, newest: None, peaks: None })
    }

    /// Takes in a record. `packed` is room to work in.
    pub(super) fn take(
        &mut self,
        transaction: &Transaction<'_>,
        record: &UsageRecord,
        packed: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        let window = record.window;
        let place = (stored(window.start.0), stored(window.length_nanoseconds));
        let counted = record.values.iter().map(|(meter, value)| (*meter, *value));
        self.take_peaks(transaction, record, packed)?;
        let Some((newest, values)) = &mut self.newest else {
            let mut values = Values::default();
            values.raise(counted);
            insert(transaction, self.id, place, &values, packed)?;
            self.newest = Some((place, values));
            return Ok(());
        };
        match place.cmp(newest) {
            Ordering::Greater => {
                *values = std::mem::take(values).carried();
                values.raise(counted);
                *newest = place;
                insert(transaction, self.id, place, values, packed)
            }
            Ordering::Equal => {
                if values.raise(counted) {
                    update(transaction, self.id, place, values, packed)?;
                }
                Ok(())
            }
            Ordering::Less => self.take_late(transaction, place, record, packed),
        }
    }

    /// Takes in a record of a window before the newest.
    fn take_late(
        &mut self,
        transaction: &Transaction<'_>,
        place: Place,
        record: &UsageRecord,
        packed: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        let counted = record.values.iter().map(|(meter, value)| (*meter, *value));
        let before = transaction
            .prepare_cached(
                "SELECT window_start, window_length, counted FROM record
                 WHERE series = ?1 AND (window_start, window_length) <= (?2, ?3)
                 ORDER BY window_start DESC, window_length DESC LIMIT 1",
            )?
            .query_row(params![self.id, place.0, place.1], placed)
            .optional()?;
        let values = match before {
            Some((at, mut values)) if at == place => {
                if !values.raise(counted) {
                    return Ok(());
                }
                update(transaction, self.id, place, &values, packed)?;
                values
            }
            before => {
                let mut values = before.map(|(_, values)| values.carried()).unwrap_or_default();
                values.raise(counted);
                insert(transaction, self.id, place, &values, packed)?;
                values
            }
        };
        self.raise_after(transaction, place, &values, packed)
    }

    /// Raises the counters of the rows after `place`. The first that is as high already ends it:
    /// none after it is lower.
    fn raise_after(
        &mut self,
        transaction: &Transaction<'_>,
        mut place: Place,
        values: &Values,
        packed: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        loop {
            let next = transaction
                .prepare_cached(
                    "SELECT window_start, window_length, counted FROM record
                     WHERE series = ?1 AND (window_start, window_length) > (?2, ?3)
                     ORDER BY window_start, window_length LIMIT 1",
                )?
                .query_row(params![self.id, place.0, place.1], placed)
                .optional()?;
            let Some((at, mut later)) = next else {
                return Ok(());
            };
            if !later.raise(values.of(Kind::Counter)) {
                return Ok(());
            }
            update(transaction, self.id, at, &later, packed)?;
            place = at;
            if let Some((newest, known)) = &mut self.newest
                && *newest == at
            {
                *known = later;
            }
        }
    }

    /// Keeps the highest values of gauges in the span that the record's window begins in.
    fn take_peaks(
        &mut self,
        transaction: &Transaction<'_>,
        record: &UsageRecord,
        packed: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        let span = stored(record.window.start.0 / PEAK_SPAN);
        let gauges = record.values.iter().filter(|(meter, _)| meter.kind() == Kind::Gauge);
        let mut gauges = gauges.map(|(meter, value)| (*meter, *value)).peekable();
        if gauges.peek().is_none() {
            return Ok(());
        }
        if self.peaks.as_ref().is_none_or(|(known, _)| *known != span) {
            let known = transaction
                .prepare_cached("SELECT highest FROM peak WHERE series = ?1 AND span = ?2")?
                .query_row([self.id, span], |row| unpacked(row, 0))
                .optional()?;
            self.peaks = Some((span, known.unwrap_or_default()));
        }
        if let Some((_, peaks)) = &mut self.peaks
            && peaks.raise(gauges)
        {
            peaks.pack(packed);
            transaction
                .prepare_cached(
                    "INSERT INTO peak VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET highest = excluded.highest",
                )?
                .execute(params![self.id, span, packed.as_slice()])?;
        }
        Ok(())
    }
}

fn insert(
    transaction: &Transaction<'_>,
    series: i64,
    place: Place,
    values: &Values,
    packed: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    values.pack(packed);
    transaction
        .prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![series, place.0, place.1, packed.as_slice()])
        .map(drop)
}

fn update(
    transaction: &Transaction<'_>,
    series: i64,
    place: Place,
    values: &Values,
    packed: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    values.pack(packed);
    transaction
        .prepare_cached(
            "UPDATE record SET counted = ?4
             WHERE series = ?1 AND window_start = ?2 AND window_length = ?3",
        )?
        .execute(params![series, place.0, place.1, packed.as_slice()])
        .map(drop)
}

/// A row of window start, window length, values.
fn placed(row: &Row<'_>) -> rusqlite::Result<(Place, Values)> {
    Ok(((row.get(0)?, row.get(1)?), unpacked(row, 2)?))
}

/// Packed values in a column.
pub(super) fn unpacked(row: &Row<'_>, column: usize) -> rusqlite::Result<Values> {
    Values::unpack(row.get_ref(column)?.as_blob()?).ok_or_else(damaged)
}
