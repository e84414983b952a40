//! Breaking the controller's ledger, for sabotage only. It is an SQLite database; who broke it
//! by hand would use `sqlite3`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params};

use super::agent::Frozen;

/// Its name in the controller's data directory.
const FILE: &str = "ledger.db";

/// How long to wait for the controller to finish a transaction.
const BUSY: Duration = Duration::from_secs(10);

fn open(data: &Path) -> Result<Connection> {
    let path = data.join(FILE);
    let connection = Connection::open(&path);
    let connection = connection.with_context(|| format!("open {}", path.display()))?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Two virtual clusters' rows, swapped, with the agent stopped for as long.
#[derive(Debug)]
pub(crate) struct Swapped {
    data: PathBuf,
    names: [&'static str; 2],
    _frozen: Frozen,
}

impl Swapped {
    /// Swaps the rows.
    pub(crate) fn swap(data: &Path, names: [&'static str; 2], frozen: Frozen) -> Result<Self> {
        exchange(data, names)?;
        Ok(Self { data: data.to_owned(), names, _frozen: frozen })
    }

    /// Swaps them again, and lets the agent go on.
    pub(crate) fn swap_back(self) -> Result<()> {
        exchange(&self.data, self.names)
    }
}

/// Gives each of two virtual clusters the counters of the other.
fn exchange(data: &Path, [a, b]: [&str; 2]) -> Result<()> {
    let connection = open(data)?;
    let number = |name: &str| -> Result<i64> {
        connection
            .query_row("SELECT number FROM identity WHERE name = ?1", [name], |row| row.get(0))
            .with_context(|| format!("virtual cluster {name} is not in the ledger"))
    };
    let changed = connection.execute(
        "UPDATE series SET virtual_cluster = ?1 + ?2 - virtual_cluster
         WHERE virtual_cluster IN (?1, ?2)",
        params![number(a)?, number(b)?],
    )?;
    ensure!(changed > 0, "the ledger has no series of {a} and {b}");
    Ok(())
}

/// Books everything once more, as if it had been counted in another life of the same counters.
pub(crate) fn double(data: &Path) -> Result<()> {
    let mut connection = open(data)?;
    let transaction = connection.transaction()?;
    let first: i64 = transaction.query_row("SELECT max(id) FROM series", [], |row| row.get(0))?;
    transaction.execute(
        "INSERT INTO series (id, virtual_cluster, boot, cgroup, epoch)
         SELECT id + ?1, virtual_cluster, boot, cgroup, epoch + 1 FROM series",
        [first],
    )?;
    transaction.execute(
        "INSERT INTO record
         SELECT series + ?1, window_start, window_length, counted FROM record",
        [first],
    )?;
    transaction.commit()?;
    Ok(())
}
