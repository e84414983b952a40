//! Why the ledger did not do something.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::identities::IdentityError;

/// Why the ledger did not do something. Whatever it was, nothing is half done.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is something else.
    #[error("{path} is no ledger of Bulkhead ({found}); move it away, or give another --data-dir")]
    NotOurs {
        /// The file, which was not touched.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },
    /// The file is of a later version.
    #[error("{path} has ledger version {version}, this program knows up to {known}; update it")]
    Newer {
        /// The file, which was not touched.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that we know.
        known: u32,
    },
    /// The file is of a version that was never released.
    #[error(
        "{path} has ledger version {version}, this program knows {known} only; move it away, or \
         give another --data-dir"
    )]
    Older {
        /// The file, which was not touched.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The version that we know.
        known: u32,
    },
    /// Another controller has it.
    #[error("another controller uses {path}; stop it, or give another --data-dir")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// There is no room.
    #[error("{operation}: no room for {path}; free some, what is waiting is taken then")]
    Full {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// It cannot be written.
    #[error("{operation}: {path} cannot be written; mount it writable, and give it to this user")]
    ReadOnly {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is damaged.
    #[error("{operation}: {path} is damaged; restore it from its backup")]
    Damaged {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// SQLite says something else.
    #[error("{operation} {path}")]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file system refused.
    #[error("{operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A name has no number.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl LedgerError {
    /// What SQLite refused, by what would mend it.
    pub(super) fn sqlite(operation: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { operation, path, source },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { operation, path, source }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { operation, path, source }
            }
            _ => Self::Sqlite { operation, path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn what_would_mend_it_is_told() {
        let told = |code| {
            let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            LedgerError::sqlite("store usage", Path::new("/data/ledger.db"), source).to_string()
        };
        let full = "store usage: no room for /data/ledger.db; free some, what is waiting is taken \
                    then";
        assert_eq!(told(ffi::SQLITE_FULL), full);
        assert!(told(ffi::SQLITE_READONLY).contains("writable"));
        assert!(told(ffi::SQLITE_CORRUPT).contains("backup"));
        assert_eq!(told(ffi::SQLITE_BUSY), "store usage /data/ledger.db");
    }
}
