//! The peer: one table, one row for each value, the higher one stays.

use std::path::Path;

use anyhow::{Context, Result};
use bulkhead_core::Meter;
use rusqlite::{Connection, params};

use super::load::Turn;

/// Numbers stand for names already, which spares it their look-up.
const TABLE: &str = "
CREATE TABLE usage (
    node INTEGER NOT NULL, virtual_cluster INTEGER NOT NULL, cgroup INTEGER NOT NULL,
    epoch INTEGER NOT NULL, meter INTEGER NOT NULL, window_start INTEGER NOT NULL,
    window_length INTEGER NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (node, virtual_cluster, cgroup, epoch, meter, window_start, window_length)
) STRICT, WITHOUT ROWID;
CREATE TABLE mark (node INTEGER PRIMARY KEY, acknowledged INTEGER NOT NULL) STRICT;";

/// The table.
pub(super) struct Table(Connection);

impl Table {
    pub(super) fn in_memory() -> Result<Self> {
        Self::prepared(Connection::open_in_memory().context("make a database in memory")?)
    }

    pub(super) fn create(path: &Path) -> Result<Self> {
        let connection = Connection::open(path);
        Self::prepared(connection.with_context(|| format!("make {}", path.display()))?)
    }

    /// The settings are those of the ledger.
    fn prepared(connection: Connection) -> Result<Self> {
        connection.execute_batch(TABLE).context("make the peer's tables")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "cache_size", -(64 << 10))?;
        connection.pragma_update(None, "wal_autocheckpoint", 16 << 10)?;
        Ok(Self(connection))
    }

    /// One transaction, as it is with the ledger.
    pub(super) fn merge(&mut self, turn: &Turn) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT DO UPDATE SET value = excluded.value WHERE excluded.value > value",
            )?;
            for record in &turn.batch.records {
                let (cluster, cgroup) = (record.number.get(), record.cgroup.0.cast_signed());
                let epoch = record.epoch.0.cast_signed();
                let start = record.window.start.0.cast_signed();
                let length = record.window.length_nanoseconds.cast_signed();
                for (meter, value) in &record.values {
                    let (meter, value) = (meter.code(), value.cast_signed());
                    let node = turn.node;
                    insert.execute(params![
                        node, cluster, cgroup, epoch, meter, start, length, value
                    ])?;
                }
            }
            transaction
                .prepare_cached(
                    "INSERT INTO mark VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET acknowledged = excluded.acknowledged",
                )?
                .execute(params![turn.node, turn.batch.sequence.cast_signed()])?;
        }
        transaction.commit().context("commit the peer's batch")
    }

    /// CPU time of all, nanoseconds.
    pub(super) fn cpu_time(&self) -> Result<u64> {
        let sum: i64 = self.0.query_row(
            "SELECT sum(highest) FROM (
                 SELECT max(value) AS highest FROM usage WHERE meter = ?1
                 GROUP BY node, virtual_cluster, cgroup, epoch)",
            [Meter::CPU_USAGE.code()],
            |row| row.get(0),
        )?;
        Ok(sum.cast_unsigned())
    }

    /// What every series used in each span of so many nanoseconds between two instants: the
    /// highest value before each edge says what a counter stood at. Gives the CPU time of all.
    pub(super) fn ask(&self, (start, end): (u64, u64), step: u64) -> Result<u64> {
        let mut statement = self.0.prepare_cached(
            "SELECT node, virtual_cluster, cgroup, epoch, meter,
                    CASE WHEN window_start < ?1 THEN -1 ELSE (window_start - ?1) / ?3 END AS span,
                    max(value)
             FROM usage WHERE window_start < ?2 GROUP BY 1, 2, 3, 4, 5, 6",
        )?;
        let range = params![start.cast_signed(), end.cast_signed(), step.cast_signed()];
        let mut rows = statement.query(range)?;
        let (mut before, mut after) = (0, 0);
        while let Some(row) = rows.next()? {
            let (meter, span, highest): (u32, i64, i64) = (row.get(4)?, row.get(5)?, row.get(6)?);
            if meter == Meter::CPU_USAGE.code() {
                if span < 0 {
                    before = highest;
                }
                after = after.max(highest);
            }
        }
        Ok((after - before).cast_unsigned())
    }
}
