//! Whose file it is, before SQLite touches it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::LedgerError;
use super::schema::{APPLICATION_ID, VERSION};

/// What every SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Who may read and write the file: its owner.
const PRIVATE: u32 = 0o600;
const HEADER_BYTES: usize = 100;
const USER_VERSION: usize = 60;
const APPLICATION: usize = 68;

/// Refuses a file that is no ledger of ours or of another version. It only reads the header:
/// SQLite itself would already leave files beside a foreign database. Nothing there, or an empty
/// file, is a new ledger.
pub(super) fn check_is_ours(path: &Path) -> Result<(), LedgerError> {
    let failed =
        |operation| move |source| LedgerError::File { operation, path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("open")(source)),
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let most = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut header).map_err(failed("read"))?;
    let not_ours =
        |found: &str| LedgerError::NotOurs { path: path.to_owned(), found: found.into() };
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(not_ours("it is no SQLite database"));
    }
    let word =
        |at: usize| header[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    if word(APPLICATION) != APPLICATION_ID {
        return Err(not_ours("it is an SQLite database of another program"));
    }
    match word(USER_VERSION) {
        VERSION => Ok(()),
        version if version > VERSION => {
            Err(LedgerError::Newer { path: path.to_owned(), version, known: VERSION })
        }
        version => Err(LedgerError::Older { path: path.to_owned(), version, known: VERSION }),
    }
}

/// Makes the file, where it is not there, so that only its owner reads it: what somebody used is
/// nobody else's business. SQLite gives the files beside it the same mode.
pub(super) fn keep_private(path: &Path) -> Result<(), LedgerError> {
    let failed =
        |operation| move |source| LedgerError::File { operation, path: path.to_owned(), source };
    let mode = Permissions::from_mode(PRIVATE);
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(_) => Ok(()),
        Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {
            let known = fs::metadata(path).map_err(failed("look at"))?.permissions();
            if known.mode() & 0o777 == PRIVATE {
                return Ok(());
            }
            fs::set_permissions(path, mode).map_err(failed("restrict to its owner"))
        }
        Err(source) => Err(failed("make")(source)),
    }
}

/// Takes the data directory for this process.
pub(super) fn lock(directory: &Path) -> Result<File, LedgerError> {
    let path = directory.join("lock");
    let failed = |source| LedgerError::File { operation: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
