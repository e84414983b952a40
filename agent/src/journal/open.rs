//! Opening a journal.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use uuid::Uuid;

use super::error::JournalError;
use super::format::MAX_BOOT_BYTES;
use super::recover::recover;
use super::recovered::Recovered;
use super::segment::{Shared, State};
use super::storage::{Disk, Storage, sync_directory_of};
use super::writer::Journal;
use super::{Limits, Sequence};

/// The file whose lock says that the directory is in use.
const LOCK: &str = "lock";

impl Journal {
    /// Opens the journal in a directory; makes both where they are not there. `boot`: the
    /// kernel's boot id now.
    pub fn open(
        directory: &Path,
        limits: Limits,
        boot: &str,
    ) -> Result<(Self, Recovered), JournalError> {
        Self::open_on(Box::new(Disk), directory, limits, boot)
    }

    pub(super) fn open_on(
        storage: Box<dyn Storage>,
        directory: &Path,
        limits: Limits,
        boot: &str,
    ) -> Result<(Self, Recovered), JournalError> {
        let limits = limits.check()?;
        if boot.is_empty() || boot.len() > MAX_BOOT_BYTES || boot.contains('\0') {
            return Err(JournalError::Boot { boot: boot.to_owned() });
        }
        make(directory)?;
        let lock = lock(directory)?;
        let found = recover(&*storage, directory, boot)?;
        let id = found.segments.first().map_or_else(Uuid::new_v4, |first| first.header.journal);
        let last = Sequence(found.highest);
        // What damage took out of the last segment may be known from one that is removed below.
        let mended = found.truncated.is_some() || !found.damaged.is_empty();
        let must_rotate = found.segments.last().is_none_or(|active| {
            let numbers_jump = active.last().unwrap_or(active.header.base - 1) < found.highest;
            active.header.boot != boot || numbers_jump || mended
        });
        let recovered = Recovered {
            journal_id: id,
            last_sequence: last,
            acknowledged: Sequence(found.acknowledged),
            truncated: found.truncated,
            damaged: found.damaged,
            kept_aside: found.kept_aside,
            checkpoint: found.checkpoint.clone(),
            latest: found.latest,
        };
        let coarsened = found.segments.iter().map(|segment| segment.header.coarsened).sum();
        let state = State { segments: found.segments, acknowledged: found.acknowledged, coarsened };
        let mut journal = Self {
            directory: directory.to_owned(),
            _lock: lock,
            storage,
            limits,
            boot: boot.to_owned(),
            shared: Shared::new(id, state, last),
            next: last.0 + 1,
            checkpoint: found.checkpoint,
            mendings: found.mendings,
            must_rotate,
            acknowledgement_unwritten: false,
            exhausted: false,
            renumbering: None,
        };
        journal.settle()?;
        Ok((journal, recovered))
    }

    /// After recovery: begins a segment where there is none, where the last is of another boot or
    /// was mended, or where numbers go on with a gap, so that all of this is remembered and
    /// what showed it can go; then removes what was acknowledged. A full disk is no reason not to open: the segment is tried
    /// again with the next append.
    fn settle(&mut self) -> Result<(), JournalError> {
        if self.must_rotate {
            match self.rotate() {
                Err(JournalError::DiskFull { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        let acknowledged = self.shared.state().acknowledged;
        self.remove_acknowledged(acknowledged)
    }
}

fn make(directory: &Path) -> Result<(), JournalError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| sync_directory_of(directory))
        .map_err(|source| JournalError::system("make directory", directory, source))
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join(LOCK);
    let failed = |source| JournalError::system("lock", &path, source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(JournalError::Locked { directory: directory.to_owned() })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
