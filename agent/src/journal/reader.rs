//! Reading a journal from other threads than its writer's.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bulkhead_proto::v1::UsageBatch;
use tokio::sync::watch;
use uuid::Uuid;

use super::Sequence;
use super::contents::{Entry, entry};
use super::error::JournalError;
use super::format::{Kind, Piece, Scan};
use super::segment::{Segment, Shared};

/// A handle for reading. Cheap to clone; it stays good while segments are removed or replaced,
/// and after the journal is closed.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Some batches in a row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chunk {
    /// The boot in which they were counted.
    pub boot: String,
    /// By sequence. Empty: there are none after the one that was given.
    pub batches: Vec<UsageBatch>,
    /// What could not be read between them, because storage damaged it since the journal was
    /// opened; one sentence each. It is mended when the journal is opened again.
    pub unreadable: Vec<String>,
}

impl Reader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The journal's identity.
    pub fn journal_id(&self) -> Uuid {
        self.shared.id
    }

    /// The highest number that was given; 0: none.
    pub fn last(&self) -> Sequence {
        *self.shared.appended.borrow()
    }

    /// Changes with each append.
    pub fn appended(&self) -> watch::Receiver<Sequence> {
        self.shared.appended.subscribe()
    }

    /// Every batch up to here is durable at the controller.
    pub fn acknowledged(&self) -> Sequence {
        Sequence(self.shared.state().acknowledged)
    }

    /// Usage records that the controller has not acknowledged.
    pub fn backlog_records(&self) -> u64 {
        self.shared.state().backlog()
    }

    /// Usage records that were dropped to keep the limit, because newer ones say the same and
    /// more.
    pub fn compacted_records(&self) -> u64 {
        self.shared.state().coarsened
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    /// The boot of the first batch after that one; `None`: there is none.
    pub fn boot_after(&self, after: Sequence) -> Option<String> {
        let state = self.shared.state();
        let segment = state.segments.iter().find(|segment| segment.has_after(after.0))?;
        Some(segment.header.boot.clone())
    }

    /// The batches that follow, up to about `max_bytes`, but one at least.
    pub fn read_after(&self, after: Sequence, max_bytes: usize) -> Result<Chunk, JournalError> {
        let mut after = after.0;
        let mut unreadable = Vec::new();
        loop {
            let Some((segment, begin, end, last)) = self.stretch(after, max_bytes) else {
                return Ok(Chunk { unreadable, ..Chunk::default() });
            };
            let mut chunk = read(&segment, begin, end)?;
            chunk.unreadable.splice(..0, unreadable);
            if !chunk.batches.is_empty() {
                return Ok(chunk);
            }
            // All of it is damaged: go on behind it.
            after = last;
            unreadable = chunk.unreadable;
        }
    }

    /// Where the next batches are: the segment, first and last byte, and the last's number.
    fn stretch(&self, after: u64, max_bytes: usize) -> Option<(Segment, u64, u64, u64)> {
        let state = self.shared.state();
        let segment = state.segments.iter().find(|segment| segment.has_after(after))?;
        let entries = segment.entries_after(after);
        let begin = u64::from(entries.first()?.offset);
        let limit = begin.saturating_add(u64::try_from(max_bytes).unwrap_or(u64::MAX));
        // A batch ends where the next begins.
        let next = entries.iter().skip(1).map(|next| u64::from(next.offset));
        let mut ends = next.chain([segment.length]);
        let taken = ends.clone().take_while(|end| *end <= limit).count().max(1);
        let end = ends.nth(taken - 1)?;
        let last = entries.get(taken - 1)?.sequence;
        Some((segment.clone_handle(), begin, end, last))
    }
}

fn read(segment: &Segment, begin: u64, end: u64) -> Result<Chunk, JournalError> {
    let failed = |source| JournalError::system("read", &segment.path, source);
    let length = usize::try_from(end.saturating_sub(begin)).unwrap_or(0);
    let mut bytes = vec![0; length];
    segment.file.read_exact_at(&mut bytes, begin).map_err(failed)?;
    let mut chunk = Chunk { boot: segment.header.boot.clone(), ..Chunk::default() };
    let damaged = |chunk: &mut Chunk, offset: usize, end: usize| {
        let at = begin + u64::try_from(offset).unwrap_or(0);
        chunk.unreadable.push(format!(
            "{} is damaged at byte {at}: {} bytes cannot be read; restart the agent to have it \
             mended, and look at the disk",
            segment.path.display(),
            end - offset
        ));
    };
    for piece in Scan::new(&bytes) {
        match piece {
            Piece::Damage { offset, end } => damaged(&mut chunk, offset, end),
            Piece::Record { record, .. } if record.kind != Kind::Usage => {}
            Piece::Record { offset, end, record } => match entry(offset, &record) {
                Some((Entry { .. }, batch)) => chunk.batches.push(batch),
                None => damaged(&mut chunk, offset, end),
            },
        }
    }
    Ok(chunk)
}
