//! What opening a journal found, for whoever must be told.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::contents::Contents;
use super::latest::Latest;
use super::{Sequence, format};

/// What opening a journal found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The journal's identity; a new journal has a new one.
    pub journal_id: Uuid,
    /// The newest batch; 0: none was ever written.
    pub last_sequence: Sequence,
    /// Every batch up to here is durable at the controller; 0: none.
    pub acknowledged: Sequence,
    /// What a crash cut; it is no longer there once the disk has room for a new segment.
    pub truncated: Option<TornTail>,
    /// What bad storage took; an operator must know.
    pub damaged: Vec<Damaged>,
    /// Damaged segments that earlier runs kept aside and that nobody has removed yet.
    pub kept_aside: Vec<PathBuf>,
    /// The owner's state as last put in this boot. `None`: none was.
    pub checkpoint: Option<Vec<u8>>,
    /// The newest values in the batches that are still there and were counted in this boot.
    pub latest: Latest,
}

impl Recovered {
    /// What an operator must know and can mend, one sentence each. Empty: all is well.
    pub fn conditions(&self) -> Vec<String> {
        let damaged = self.damaged.iter().map(ToString::to_string);
        let aside = self.kept_aside.iter().map(|path| {
            format!(
                "{path} is a damaged segment of the journal, kept aside earlier; look at the disk, \
                 then remove it: `rm {path}`",
                path = path.display()
            )
        });
        damaged.chain(aside).collect()
    }
}

/// The end of a segment that a crash cut. What was in it had not been promised to anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where its good records end, in bytes.
    pub offset: u64,
    /// Bytes that were cut off.
    pub bytes_lost: u64,
}

impl TornTail {
    pub(super) fn new(path: &Path, offset: usize, bytes_lost: usize) -> Self {
        Self { path: path.to_owned(), offset: number(offset), bytes_lost: number(bytes_lost) }
    }
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was cut in the middle of a record at byte {}: {} bytes of an unfinished append are \
             dropped, everything before them is there",
            self.path.display(),
            self.offset,
            self.bytes_lost
        )
    }
}

/// A segment that bad storage changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// The segment; it holds the good records now, where there were any.
    pub path: PathBuf,
    /// Where it is kept as it was found.
    pub kept: PathBuf,
    /// Where the first damage begins, in bytes.
    pub offset: u64,
    /// Bytes that hold no good record.
    pub bytes_lost: u64,
}

impl Damaged {
    pub(super) fn new(path: &Path, kept: PathBuf, contents: &Contents) -> Self {
        let lost = contents.damage.iter().map(ExactSizeIterator::len).sum();
        let offset = contents.damage.first().map_or(0, |range| range.start);
        Self { path: path.to_owned(), kept, offset: number(offset), bytes_lost: number(lost) }
    }

    pub(super) fn whole(path: &Path, kept: PathBuf, length: usize) -> Self {
        let lost = length.saturating_sub(format::RECORDS_AT);
        Self { path: path.to_owned(), kept, offset: 0, bytes_lost: number(lost) }
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was damaged from byte {} on: {} bytes could not be read, newer records make up for \
             them where their cgroups still live; look at the disk, then remove what was kept: \
             `rm {}`",
            self.path.display(),
            self.offset,
            self.bytes_lost,
            self.kept.display()
        )
    }
}

fn number(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
