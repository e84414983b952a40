//! What the bytes of one segment hold: the good records, and where there is damage. No I/O.

use std::ops::Range;

use bulkhead_proto::v1::UsageBatch;
use prost::Message;

use super::format::{Kind, LAST_SEQUENCE, Piece, RECORDS_AT, Record, Scan};

/// Where a usage batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The batch's.
    pub(super) sequence: u64,
    /// Of its record in the segment, in bytes. A journal has 4 GiB at most.
    pub(super) offset: u32,
    /// Usage records in the batch.
    pub(super) records: u32,
}

/// What a segment holds. Offsets are bytes from its beginning.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Contents {
    /// Its batches, by sequence.
    pub(super) entries: Vec<Entry>,
    /// Payload of the last checkpoint.
    pub(super) checkpoint: Option<Range<usize>>,
    /// The highest acknowledged sequence that it tells of.
    pub(super) acknowledged: u64,
    /// Good records in a row, each range one.
    pub(super) good: Vec<Range<usize>>,
    /// Everything else.
    pub(super) damage: Vec<Range<usize>>,
}

impl Contents {
    /// Reads a segment. `after`: the last sequence of the segments before it; a batch that does
    /// not come after it is damage too, for it cannot be told apart from the one that has its
    /// number. `each` sees every good batch.
    pub(super) fn read(bytes: &[u8], after: u64, mut each: impl FnMut(&UsageBatch)) -> Self {
        let mut contents = Self::default();
        let mut last = after;
        for piece in Scan::new(bytes.get(RECORDS_AT..).unwrap_or_default()) {
            match piece {
                Piece::Damage { offset, end } => {
                    extend(&mut contents.damage, offset + RECORDS_AT..end + RECORDS_AT);
                }
                Piece::Record { offset, end, record } => {
                    let range = offset + RECORDS_AT..end + RECORDS_AT;
                    let good = contents.take(range.clone(), &record, &mut last, &mut each);
                    extend(if good { &mut contents.good } else { &mut contents.damage }, range);
                }
            }
        }
        contents
    }

    /// The last batch's sequence.
    pub(super) fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.sequence)
    }

    /// Whether anything behind the last batch is damaged.
    pub(super) fn is_damaged_after_last(&self) -> bool {
        let last = self.entries.last().and_then(|entry| usize::try_from(entry.offset).ok());
        self.damage.iter().any(|range| last.is_none_or(|last| range.start > last))
    }

    fn take(
        &mut self,
        range: Range<usize>,
        record: &Record<'_>,
        last: &mut u64,
        each: &mut impl FnMut(&UsageBatch),
    ) -> bool {
        if record.sequence > LAST_SEQUENCE {
            return false;
        }
        match record.kind {
            Kind::Checkpoint => {
                self.checkpoint = Some(range.end - record.payload.len()..range.end);
            }
            Kind::Acknowledged => self.acknowledged = self.acknowledged.max(record.sequence),
            Kind::Usage => {
                let Some((entry, batch)) =
                    entry(range.start, record).filter(|_| record.sequence > *last)
                else {
                    return false;
                };
                *last = entry.sequence;
                self.entries.push(entry);
                each(&batch);
            }
        }
        true
    }
}

/// The batch of a record and where it is; `None`: the payload is not what its record says.
pub(super) fn entry(offset: usize, record: &Record<'_>) -> Option<(Entry, UsageBatch)> {
    let batch = UsageBatch::decode(record.payload).ok()?;
    let entry = Entry {
        sequence: record.sequence,
        offset: u32::try_from(offset).ok()?,
        records: u32::try_from(batch.records.len()).ok()?,
    };
    (batch.sequence == record.sequence).then_some((entry, batch))
}

fn extend(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
