//! Keeping a journal below its limit while the controller is away.

use std::fs;
use std::io;
use std::sync::Arc;

use bulkhead_proto::v1::UsageBatch;
use prost::Message;

use super::coarsen::Coarsener;
use super::contents::Contents;
use super::error::JournalError;
use super::format::{Header, Kind, RECORDS_AT, Record};
use super::recover::link_aside;
use super::segment::Segment;
use super::storage::Replacement;
use super::writer::{Journal, size};
use crate::faults::{Point, reach};

/// Coarsening must leave this part of the limit free, so that it is not needed again at once.
const ROOM: u64 = 8;
/// So many full segments are coarsened together: this bounds the memory that it takes.
const TOGETHER: u64 = 4;

impl Journal {
    /// Makes sure that `bytes` more keep the limit. First the older half is told in fewer
    /// records, then, where that is too little, everything.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        let max = self.limits.max_bytes;
        // The next segment's beginning counts too.
        let bytes = bytes + size(self.checkpoint.as_ref().map_or(0, Vec::len) + 2 * RECORDS_AT);
        let mut held = self.shared.state().bytes();
        if held + bytes <= max {
            return Ok(());
        }
        let mut oldest = held / 2;
        while !self.exhausted {
            self.compact(oldest)?;
            let before = held;
            held = self.shared.state().bytes();
            if held + bytes <= max - max / ROOM {
                return Ok(());
            }
            self.exhausted = oldest == u64::MAX && held + max / ROOM > before;
            oldest = u64::MAX;
            self.rotate()?;
        }
        Err(JournalError::Full { directory: self.directory.clone(), max_bytes: max })
    }

    /// Coarsens the oldest segments that have `bytes` together, each boot for itself.
    fn compact(&mut self, bytes: u64) -> Result<(), JournalError> {
        let mut oldest: Vec<Segment> = Vec::new();
        {
            let state = self.shared.state();
            let sealed = state.segments.len().saturating_sub(1);
            let mut taken = 0;
            for segment in &state.segments[..sealed] {
                if taken >= bytes {
                    break;
                }
                taken += segment.length;
                oldest.push(segment.clone_handle());
            }
        }
        for run in self.runs(&oldest) {
            self.compact_run(run)?;
        }
        Ok(())
    }

    /// Neighbours of one boot and of bounded size.
    fn runs<'a>(&self, mut segments: &'a [Segment]) -> Vec<&'a [Segment]> {
        let limit = TOGETHER * self.limits.segment_bytes;
        let mut runs = Vec::new();
        while let Some(first) = segments.first() {
            let mut bytes = 0;
            let joins = |segment: &&Segment| {
                bytes += segment.length;
                segment.header.boot == first.header.boot && bytes <= limit
            };
            let count = segments.iter().take_while(joins).count().max(1);
            let (run, rest) = segments.split_at(count);
            runs.push(run);
            segments = rest;
        }
        runs
    }

    /// Puts one segment in the place of several of one boot.
    fn compact_run(&mut self, run: &[Segment]) -> Result<(), JournalError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let failed = |source| JournalError::system("coarsen", &first.path, source);
        let acknowledged = self.shared.state().acknowledged;
        let mut coarsener = Coarsener::default();
        for segment in run {
            if each_batch(segment, acknowledged, |batch| coarsener.note(&batch)).map_err(failed)? {
                link_aside(&segment.path).map_err(failed)?;
            }
        }
        let mut header = Header {
            covers: last.header.base.max(last.header.covers),
            coarsened: run.iter().map(|segment| segment.header.coarsened).sum(),
            ..first.header.clone()
        };
        let before = header.coarsened;
        let reduced = reduce(run, acknowledged, &coarsener, &mut header).map_err(failed)?;
        let mut shorter = Replacement::begin(&*self.storage, &first.path).map_err(failed)?;
        shorter.write(&reduced).map_err(failed)?;
        let length = shorter.length();
        let file = Arc::new(shorter.finish().map_err(failed)?);
        let after = first.header.base - 1;
        let entries = Contents::read(&reduced, after, |_| {}).entries;
        let dropped = header.coarsened - before;
        let segment = Segment { header, path: first.path.clone(), file, length, entries };
        {
            let mut state = self.shared.state();
            state.segments.retain(|old| run.iter().all(|new| new.path != old.path));
            let at = state.segments.partition_point(|old| old.header.base < segment.header.base);
            state.segments.insert(at, segment);
            state.coarsened += dropped;
        }
        for old in run.iter().skip(1) {
            reach(Point::JournalCoarsened)
                .and_then(|()| fs::remove_file(&old.path))
                .map_err(|source| JournalError::system("remove", &old.path, source))?;
        }
        Ok(())
    }
}

/// Calls with each batch of a segment that is not acknowledged. Gives whether there is damage.
fn each_batch(
    segment: &Segment,
    acknowledged: u64,
    mut each: impl FnMut(UsageBatch),
) -> io::Result<bool> {
    let bytes = segment.read_all()?;
    let contents = Contents::read(&bytes, segment.header.base - 1, |batch| {
        if batch.sequence > acknowledged {
            each(batch.clone());
        }
    });
    Ok(!contents.damage.is_empty())
}

fn reduce(
    run: &[Segment],
    acknowledged: u64,
    coarsener: &Coarsener,
    header: &mut Header,
) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    for segment in run {
        each_batch(segment, acknowledged, |mut batch| {
            header.coarsened += coarsener.reduce(&mut batch);
            if !batch.records.is_empty() {
                let payload = batch.encode_to_vec();
                let record =
                    Record { kind: Kind::Usage, sequence: batch.sequence, payload: &payload };
                // Shorter than the one that was read, so it is not too long.
                let _ = record.encode(&mut records);
            }
        })?;
    }
    let mut bytes = header.encode().to_vec();
    bytes.append(&mut records);
    Ok(bytes)
}
