//! What was used, and by whom: one SQLite file.
//!
//! Counters are kept cumulative, one row for each series (node, boot, virtual cluster, cgroup,
//! epoch) and window, with all its meters; a counter in it is the highest that was seen so far.
//! Merging is by maximum, so what is sent twice, late or out of order changes nothing; a batch
//! and the number up to which its journal is acknowledged become durable in one transaction, or
//! neither does.

mod coverage;
mod error;
mod file;
mod known;
mod levels;
mod memory;
mod merge;
mod nodes;
mod read;
mod schema;
mod series;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_core::VirtualClusterName;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::faults::{self, Point, reach};
use crate::identities::IdentityError;
use known::Known;

pub use error::LedgerError;
pub(crate) use memory::GoodFile;
pub use merge::{Batch, Merged, StreamKey};
pub(crate) use nodes::KnownNode;
pub(crate) use read::{Names, Selection, Unknown};

/// Name of the file below the data directory.
pub(crate) const FILE: &str = "ledger.db";

/// The ledger. Calls block: from async code they go through `spawn_blocking`.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    writer: Mutex<Writer>,
    /// Names that agents know by other numbers, and of which the log says so already.
    renumbered: Mutex<BTreeSet<VirtualClusterName>>,
    /// Held for as long as we are: a second controller cannot write beside us. `None`: in memory.
    lock: Option<fs::File>,
}

/// Who writes.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    known: Known,
}

impl Ledger {
    /// Opens the ledger of a data directory; makes both where they are not there.
    /// `page_limit`: most pages (4,096 bytes each) that the file may have; `None`: as many as
    /// the disk has room for.
    pub fn open(directory: &Path, page_limit: Option<u32>) -> Result<Self, LedgerError> {
        let path = directory.join(FILE);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| {
            LedgerError::File { operation: "make directory", path: directory.to_owned(), source }
        })?;
        let lock = file::lock(directory)?;
        file::check_is_ours(&path)?;
        file::keep_private(&path)?;
        let connection = Connection::open_with_flags(&path, flags(true));
        Self::prepared(path, connection, page_limit, Some(lock))
    }

    /// A ledger that nothing is left of: to measure how it merges without a disk.
    pub fn in_memory() -> Result<Self, LedgerError> {
        Self::prepared(PathBuf::from(":memory:"), Connection::open_in_memory(), None, None)
    }

    fn prepared(
        path: PathBuf,
        connection: rusqlite::Result<Connection>,
        page_limit: Option<u32>,
        lock: Option<fs::File>,
    ) -> Result<Self, LedgerError> {
        let mut connection =
            connection.map_err(|source| LedgerError::sqlite("open", &path, source))?;
        schema::prepare(&mut connection, page_limit)
            .map_err(|source| LedgerError::sqlite("prepare", &path, source))?;
        faults::pass(Point::LedgerPrepared);
        let writer = Mutex::new(Writer { connection, known: Known::default() });
        Ok(Self { path, writer, renumbered: Mutex::default(), lock })
    }

    /// Runs `work` in one transaction: all of it is durable after, or none of it is done.
    fn write<T, E: Into<Refusal>>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, LedgerError> {
        self.write_knowing(operation, |transaction, _| work(transaction))
    }

    /// As [`Ledger::write`], with what is known of the tables.
    fn write_knowing<T, E: Into<Refusal>>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>, &mut Known) -> Result<T, E>,
    ) -> Result<T, LedgerError> {
        let mut writer = self.writer();
        let Writer { connection, known } = &mut *writer;
        let failed = |source| LedgerError::sqlite(operation, &self.path, source);
        reach(Point::LedgerBegin).map_err(failed)?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // What is not committed is not known: it is put back only then.
        let mut learnt = std::mem::take(known);
        match work(&transaction, &mut learnt).map_err(Into::into) {
            Ok(done) => {
                reach(Point::LedgerCommit).map_err(failed)?;
                transaction.commit().map_err(failed)?;
                faults::pass(Point::LedgerCommitted);
                *known = learnt;
                Ok(done)
            }
            // Dropping the transaction takes everything back.
            Err(Refusal::Sqlite(source)) => Err(failed(source)),
            Err(Refusal::Identity(conflict)) => Err(LedgerError::Identity(conflict)),
        }
    }

    /// Runs `work` on what is there now; later writes are not seen by it.
    fn read<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let failed = |source| LedgerError::sqlite(operation, &self.path, source);
        if self.lock.is_none() {
            let mut writer = self.writer();
            let transaction = writer.connection.transaction().map_err(failed)?;
            return work(&transaction).map_err(failed);
        }
        let mut reader = Connection::open_with_flags(&self.path, flags(false)).map_err(failed)?;
        let transaction = reader.transaction().map_err(failed)?;
        work(&transaction).map_err(failed)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic in between has rolled its transaction back.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flags(write: bool) -> OpenFlags {
    let access = if write {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Why a transaction was not done.
pub(crate) enum Refusal {
    Sqlite(rusqlite::Error),
    Identity(IdentityError),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

/// What cannot be what we wrote, as SQLite itself says it.
fn damaged() -> rusqlite::Error {
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(error, Some("values that were not packed by us".to_owned()))
}

/// A number as SQLite keeps it: the same 64 bits. Numbers from 2⁶³ on look negative there, so SQL
/// that compares numbers which can be that high says so.
const fn stored(number: u64) -> i64 {
    number.cast_signed()
}

/// The number that [`stored`] keeps.
const fn number(stored: i64) -> u64 {
    stored.cast_unsigned()
}

#[cfg(test)]
mod tests;
