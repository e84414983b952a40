//! The journal: what was measured and the controller does not have yet, on disk.
//!
//! One directory, one writer ([`Journal`]), any number of [`Reader`]s in other threads. An
//! append is durable when it returns. Batches have sequence numbers, which only grow; the
//! controller acknowledges by number, and segments with nothing else in them are removed.
//!
//! Records are cumulative, and that decides what happens when something is short or broken:
//!
//! - *The disk is full*: the append fails, nothing of it stays, and the next one that succeeds
//!   has the next number. Only resolution is lost, never totals.
//! - *The journal has reached its limit*: the older batches are told in fewer records, see
//!   `coarsen.rs`. Numbers stay as they are, with gaps.
//! - *A crash cut an append*: it is cut off, and told.
//! - *Storage damaged a segment*: its good records are kept, the damaged file is set aside, and
//!   this is told until the file is gone.
//!
//! Sequence numbers have gaps after coarsening, and after damage or a torn tail: there they go on
//! behind every number that the lost batches could have had, since the controller may have those.
//!
//! Cgroup ids begin again with each boot, so every segment names the boot that it is of, and a
//! [`Chunk`] is always of one boot.
//!
//! A checkpoint is the owner's own state as bytes: the last one is there after each restart of
//! the same boot, however much was acknowledged and removed since it was put.

mod coarsen;
mod compact;
mod contents;
mod error;
mod format;
mod latest;
mod open;
mod reader;
mod recover;
mod recovered;
mod renumber;
mod segment;
pub(crate) mod storage;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

pub use error::JournalError;
pub use latest::{Latest, Series};
pub use reader::{Chunk, Reader};
pub use recovered::{Damaged, Recovered, TornTail};
pub use writer::Journal;

/// The number of a batch; the first is 1, and 0 stands for "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a journal may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of all segments, in bytes: at least 4 segments, at most 4 GiB. While a segment is being
    /// replaced by a shorter one, both are there.
    pub max_bytes: u64,
    /// A segment that would grow beyond this is followed by a new one. At least 1 KiB.
    pub segment_bytes: u64,
}

impl Default for Limits {
    /// 256 MiB in segments of 4 MiB.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, segment_bytes: 4 << 20 }
    }
}

impl Limits {
    const fn check(self) -> Result<Self, JournalError> {
        let Self { max_bytes, segment_bytes } = self;
        if segment_bytes < 1 << 10 || max_bytes / 4 < segment_bytes || max_bytes > u32::MAX as u64 {
            return Err(JournalError::Limits { max_bytes, segment_bytes });
        }
        Ok(self)
    }
}
