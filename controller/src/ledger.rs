//! What was used, and by whom: one SQLite file.
//!
//! Counters are kept as they were sent: cumulative, one row for each series (node, boot, virtual
//! cluster, cgroup, epoch, meter) and window. Merging is by maximum, so what is sent twice, late
//! or out of order changes nothing; a batch and the number up to which its journal is
//! acknowledged become durable in one transaction, or neither does.

mod coverage;
mod error;
mod file;
mod memory;
mod merge;
mod nodes;
mod read;
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_core::VirtualClusterName;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::identities::IdentityError;

pub use error::LedgerError;
pub(crate) use memory::GoodFile;
pub(crate) use merge::{Batch, StreamKey};
pub(crate) use nodes::KnownNode;
pub(crate) use read::{Selection, Unknown};

/// Name of the file below the data directory.
pub(crate) const FILE: &str = "ledger.db";

/// The ledger. Calls block: from async code they go through `spawn_blocking`.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Names that agents know by other numbers, and of which the log says so already.
    renumbered: Mutex<BTreeSet<VirtualClusterName>>,
    /// Held for as long as we are: a second controller cannot write beside us.
    _lock: fs::File,
}

impl Ledger {
    /// Opens the ledger of a data directory; makes both where they are not there.
    /// `page_limit`: most pages (4,096 bytes each) that the file may have; `None`: as many as
    /// the disk has room for.
    pub(crate) fn open(directory: &Path, page_limit: Option<u32>) -> Result<Self, LedgerError> {
        let path = directory.join(FILE);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| {
            LedgerError::File { operation: "make directory", path: directory.to_owned(), source }
        })?;
        let lock = file::lock(directory)?;
        file::check_is_ours(&path)?;
        let mut writer = Connection::open_with_flags(&path, flags(true))
            .map_err(|source| LedgerError::sqlite("open", &path, source))?;
        schema::prepare(&mut writer, page_limit)
            .map_err(|source| LedgerError::sqlite("prepare", &path, source))?;
        Ok(Self { path, writer: Mutex::new(writer), renumbered: Mutex::default(), _lock: lock })
    }

    /// Runs `work` in one transaction: all of it is durable after, or none of it is done.
    fn write<T, E: Into<Refusal>>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, LedgerError> {
        let mut writer = self.writer();
        let failed = |source| LedgerError::sqlite(operation, &self.path, source);
        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        match work(&transaction).map_err(Into::into) {
            Ok(done) => {
                transaction.commit().map_err(failed)?;
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
        let mut reader = Connection::open_with_flags(&self.path, flags(false)).map_err(failed)?;
        let transaction = reader.transaction().map_err(failed)?;
        work(&transaction).map_err(failed)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
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
