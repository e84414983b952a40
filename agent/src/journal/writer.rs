//! The one writer of a journal.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_core::UsageRecord;
use bulkhead_proto::v1::{self, UsageBatch};
use prost::Message;

use super::contents::Entry;
use super::error::JournalError;
use super::format::{Header, Kind, LAST_SEQUENCE, RECORDS_AT, Record};
use super::latest::message;
use super::reader::Reader;
use super::recover::Mending;
use super::renumber::Renumbering;
use super::segment::{Segment, Shared, name};
use super::storage::{Replacement, Storage};
use super::{Limits, Sequence};
use crate::faults::{Point, reach};

/// An append is split into batches of about this many bytes, so that each fits into one message
/// of the stream to the controller.
pub(super) const BATCH_BYTES: usize = 512 << 10;

/// The journal, for the thread that owns it.
#[derive(Debug)]
pub struct Journal {
    pub(super) directory: PathBuf,
    pub(super) _lock: File,
    pub(super) storage: Box<dyn Storage>,
    pub(super) limits: Limits,
    /// Now.
    pub(super) boot: String,
    pub(super) shared: Arc<Shared>,
    /// The next batch's number.
    pub(super) next: u64,
    /// The last that is on the disk.
    pub(super) checkpoint: Option<Vec<u8>>,
    /// What waits for a new segment.
    pub(super) mendings: Vec<Mending>,
    /// The last segment may not be written any more.
    pub(super) must_rotate: bool,
    /// The disk was full when it should have been written.
    pub(super) acknowledgement_unwritten: bool,
    /// Coarsening gave too little, and nothing was acknowledged since.
    pub(super) exhausted: bool,
    /// Batches that must be appended again.
    pub(super) renumbering: Option<Renumbering>,
}

/// What will be written at once.
#[derive(Debug, Default)]
struct Writing {
    bytes: Vec<u8>,
    /// Offsets count from the beginning of the bytes.
    entries: Vec<Entry>,
}

impl Writing {
    fn add(&mut self, kind: Kind, sequence: u64, payload: &[u8]) -> Result<(), JournalError> {
        let what = if kind == Kind::Checkpoint { "a checkpoint" } else { "a usage record" };
        Record { kind, sequence, payload }
            .encode(&mut self.bytes)
            .ok_or(JournalError::TooLong { what, bytes: payload.len() })
    }

    fn add_batch(&mut self, batch: &UsageBatch) -> Result<(), JournalError> {
        let too_long = || JournalError::TooLong { what: "an append", bytes: self.bytes.len() };
        let entry = Entry {
            sequence: batch.sequence,
            offset: u32::try_from(self.bytes.len()).map_err(|_| too_long())?,
            records: u32::try_from(batch.records.len()).map_err(|_| too_long())?,
        };
        self.add(Kind::Usage, batch.sequence, &batch.encode_to_vec())?;
        self.entries.push(entry);
        Ok(())
    }
}

impl Journal {
    /// Appends records; they are on the disk when this returns. Gives the number of the last
    /// batch that they are in.
    pub fn append(&mut self, records: &[UsageRecord]) -> Result<Sequence, JournalError> {
        self.append_with(records, None)
    }

    /// Appends records and the state from which their counting goes on, both or neither.
    pub fn append_with(
        &mut self,
        records: &[UsageRecord],
        checkpoint: Option<&[u8]>,
    ) -> Result<Sequence, JournalError> {
        self.renumber()?;
        let messages = records.iter().map(message).collect();
        self.append_messages(messages, checkpoint)?;
        Ok(self.last())
    }

    /// Keeps the owner's state; the last one is there after each restart of this boot.
    pub fn put_checkpoint(&mut self, checkpoint: &[u8]) -> Result<(), JournalError> {
        self.append_messages(Vec::new(), Some(checkpoint))
    }

    /// The highest number that was given; 0: none.
    pub const fn last(&self) -> Sequence {
        Sequence(self.next - 1)
    }

    /// A handle for other threads.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The controller has everything up to `sequence` on its disk. Lower than before: nothing
    /// happens. After [`JournalError::DiskFull`] it is known and segments are removed, but it is
    /// written only with the next append.
    pub fn acknowledge(&mut self, sequence: Sequence) -> Result<(), JournalError> {
        if sequence > self.last() {
            return Err(JournalError::NeverWritten { sequence, last: self.last() });
        }
        {
            let mut state = self.shared.state();
            if sequence.0 <= state.acknowledged {
                return Ok(());
            }
            state.acknowledged = sequence.0;
        }
        // First this: it may be what makes room for the record.
        self.remove_acknowledged(sequence.0)?;
        self.acknowledgement_unwritten = true;
        self.append_messages(Vec::new(), None)?;
        // The record may have begun a segment, and left one that nobody needs.
        self.remove_acknowledged(sequence.0)
    }

    /// Whether a batch can have that number.
    pub(super) fn can_give(&self, sequence: u64) -> Result<(), JournalError> {
        if sequence <= LAST_SEQUENCE {
            return Ok(());
        }
        Err(JournalError::OutOfNumbers { directory: self.directory.clone(), last: LAST_SEQUENCE })
    }

    pub(super) fn append_messages(
        &mut self,
        records: Vec<v1::UsageRecord>,
        checkpoint: Option<&[u8]>,
    ) -> Result<(), JournalError> {
        let mut writing = Writing::default();
        if self.acknowledgement_unwritten {
            writing.add(Kind::Acknowledged, self.shared.state().acknowledged, &[])?;
        }
        for (sequence, records) in (self.next..).zip(split(records)) {
            writing.add_batch(&UsageBatch { sequence, records })?;
        }
        let last = writing.entries.last().map_or(self.next - 1, |entry| entry.sequence);
        self.can_give(last)?;
        if let Some(checkpoint) = checkpoint {
            writing.add(Kind::Checkpoint, last, checkpoint)?;
        }
        if writing.bytes.is_empty() {
            return Ok(());
        }
        // An acknowledgement is short, and what makes room again.
        if !writing.entries.is_empty() || checkpoint.is_some() {
            self.make_room(size(writing.bytes.len()))?;
        }
        self.rotate_if(self.must_rotate || self.is_due(size(writing.bytes.len())))?;
        self.write(&writing)?;
        self.acknowledgement_unwritten = false;
        if let Some(checkpoint) = checkpoint {
            self.checkpoint = Some(checkpoint.to_vec());
        }
        self.publish(writing, last);
        Ok(())
    }

    /// Whether the next write would make the last segment longer than it should be, and a new
    /// one would be shorter.
    fn is_due(&self, bytes: u64) -> bool {
        let state = self.shared.state();
        let Some(active) = state.segments.last() else {
            return true;
        };
        let carried = self.checkpoint.as_ref().map_or(0, Vec::len) + RECORDS_AT;
        active.length + bytes > self.limits.segment_bytes && active.length > 2 * size(carried)
    }

    fn write(&mut self, writing: &Writing) -> Result<(), JournalError> {
        let (path, file, length) = {
            let state = self.shared.state();
            let Some(active) = state.segments.last() else {
                let missing = io::ErrorKind::NotFound.into();
                return Err(JournalError::system("append to", &self.directory, missing));
            };
            (active.path.clone(), Arc::clone(&active.file), active.length)
        };
        let written = self.storage.write_at(&file, &writing.bytes, length);
        let synced = written.and_then(|()| {
            // What the system still holds of a file whose sync failed is unknown, and a second
            // sync would succeed without writing it: this file is done.
            self.storage.sync(&file).inspect_err(|_| self.must_rotate = true)
        });
        let Err(source) = synced else { return Ok(()) };
        if self.storage.truncate(&file, length).is_err() {
            // Whole records may stay behind the end; no others may have their numbers.
            self.must_rotate = true;
            self.next += u64::try_from(writing.entries.len()).unwrap_or(u64::MAX);
        }
        Err(JournalError::system("append to", &path, source))
    }

    fn publish(&mut self, writing: Writing, last: u64) {
        self.next = last + 1;
        {
            let mut state = self.shared.state();
            let Some(active) = state.segments.last_mut() else {
                return;
            };
            let begin = u32::try_from(active.length).unwrap_or(u32::MAX);
            active.length += size(writing.bytes.len());
            let moved =
                |entry: Entry| Entry { offset: entry.offset.saturating_add(begin), ..entry };
            active.entries.extend(writing.entries.into_iter().map(moved));
        }
        self.shared.appended.send_if_modified(|newest| {
            let grown = newest.0 < last;
            newest.0 = last;
            grown
        });
    }

    pub(super) fn rotate_if(&mut self, due: bool) -> Result<(), JournalError> {
        if due { self.rotate() } else { Ok(()) }
    }

    /// Begins a new segment, which carries on what the others may be removed without.
    pub(super) fn rotate(&mut self) -> Result<(), JournalError> {
        self.can_give(self.next)?;
        let header = Header {
            journal: self.shared.id,
            base: self.next,
            covers: 0,
            coarsened: 0,
            boot: self.boot.clone(),
        };
        let path = self.directory.join(name(self.next));
        let mut begin = Writing { bytes: header.encode().to_vec(), entries: Vec::new() };
        let acknowledged = self.shared.state().acknowledged;
        if acknowledged > 0 {
            begin.add(Kind::Acknowledged, acknowledged, &[])?;
        }
        if let Some(checkpoint) = &self.checkpoint {
            begin.add(Kind::Checkpoint, self.next - 1, checkpoint)?;
        }
        let file = create(&*self.storage, &path, &begin.bytes)
            .map_err(|source| JournalError::system("begin segment", &path, source))?;
        let length = size(begin.bytes.len());
        let segment = Segment { header, path, file: Arc::new(file), length, entries: Vec::new() };
        self.go_on_in(segment);
        self.must_rotate = false;
        self.acknowledgement_unwritten = false;
        while let Some(mending) = self.mendings.last() {
            mending.carry_out(&*self.storage)?;
            self.mendings.pop();
        }
        Ok(())
    }

    fn go_on_in(&self, segment: Segment) {
        let mut state = self.shared.state();
        // One without batches has the same number, so its file has just been replaced.
        state.segments.retain(|other| other.header.base != segment.header.base);
        state.segments.push(segment);
    }

    pub(super) fn remove_acknowledged(&mut self, acknowledged: u64) -> Result<(), JournalError> {
        let removed: Vec<Segment> = {
            let mut state = self.shared.state();
            let sealed = state.segments.len().saturating_sub(1);
            let waiting = |segment: &Segment| segment.has_after(acknowledged);
            let done = state.segments[..sealed].iter().position(waiting).unwrap_or(sealed);
            state.segments.drain(..done).collect()
        };
        self.exhausted &= removed.is_empty();
        for segment in removed {
            // If this fails, or a crash undoes it, it is done when the journal is opened again.
            reach(Point::JournalRemove)
                .and_then(|()| fs::remove_file(&segment.path))
                .and_then(|()| reach(Point::JournalRemoved))
                .map_err(|source| JournalError::system("remove", &segment.path, source))?;
        }
        Ok(())
    }
}

fn create(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = Replacement::begin(storage, path)?;
    file.write(bytes)?;
    file.finish()
}

/// Batches of bounded size, each of one record at least.
fn split(records: Vec<v1::UsageRecord>) -> Vec<Vec<v1::UsageRecord>> {
    let mut batches: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        // With the field's tag and length.
        let length = record.encoded_len() + 8;
        bytes += length;
        match batches.last_mut() {
            Some(batch) if bytes <= BATCH_BYTES => batch.push(record),
            _ => {
                bytes = length;
                batches.push(vec![record]);
            }
        }
    }
    batches
}

pub(super) fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
