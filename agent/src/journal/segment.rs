//! The segments of an open journal, and what its writer and its readers share.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use super::Sequence;
use super::contents::Entry;
use super::format::{Header, LAST_SEQUENCE};

/// End of the name of a segment.
pub(super) const SUFFIX: &str = ".segment";

/// A segment whose bytes up to `length` are on the disk.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its header.
    pub(super) header: Header,
    /// Its file.
    pub(super) path: PathBuf,
    /// Open, so that a reader can go on after it was replaced or removed.
    pub(super) file: Arc<File>,
    /// Bytes.
    pub(super) length: u64,
    /// Its batches, by sequence.
    pub(super) entries: Vec<Entry>,
}

impl Segment {
    /// The same segment without its batches.
    pub(super) fn clone_handle(&self) -> Self {
        Self {
            header: self.header.clone(),
            path: self.path.clone(),
            file: Arc::clone(&self.file),
            length: self.length,
            entries: Vec::new(),
        }
    }

    /// All its bytes.
    pub(super) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The last batch's sequence.
    pub(super) fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.sequence)
    }

    /// Whether it holds a batch after that one.
    pub(super) fn has_after(&self, sequence: u64) -> bool {
        self.last().is_some_and(|last| last > sequence)
    }

    /// Its batches after that one.
    pub(super) fn entries_after(&self, sequence: u64) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.sequence <= sequence)..]
    }
}

/// The name of the segment that begins with that batch.
pub(super) fn name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The base in the name of a segment; `None`: not such a name.
pub(super) fn base_of(path: &Path) -> Option<u64> {
    let base = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    base.parse().ok().filter(|number| base.len() == 20 && (1..=LAST_SEQUENCE).contains(number))
}

/// What the writer and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The journal's identity.
    pub(super) id: Uuid,
    state: Mutex<State>,
    /// The newest batch that can be read.
    pub(super) appended: watch::Sender<Sequence>,
}

/// What changes.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first; the last is the one that is written.
    pub(super) segments: Vec<Segment>,
    /// Every batch up to here is durable at the controller.
    pub(super) acknowledged: u64,
    /// Usage records that were dropped to keep the limit.
    pub(super) coarsened: u64,
}

impl State {
    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Usage records that the controller has not acknowledged.
    pub(super) fn backlog(&self) -> u64 {
        let waiting = |segment: &Segment| -> u64 {
            let entries = segment.entries_after(self.acknowledged);
            entries.iter().map(|entry| u64::from(entry.records)).sum()
        };
        self.segments.iter().map(waiting).sum()
    }
}

impl Shared {
    pub(super) fn new(id: Uuid, state: State, last: Sequence) -> Arc<Self> {
        Arc::new(Self { id, state: Mutex::new(state), appended: watch::Sender::new(last) })
    }

    /// Held for moments, never across I/O. Each change under it is complete before anything
    /// that can panic, so a panic elsewhere leaves nothing half done.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
