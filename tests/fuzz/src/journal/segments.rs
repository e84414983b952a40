//! Segments that no journal ever wrote, with checksums that are right.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use bulkhead_agent::journal::{Journal, JournalError, Recovered};
use bulkhead_proto::v1::{MeterValue, UsageBatch, UsageRecord};
use prost::Message;

use super::{BOOT, ROOMY, content, read, record};
use crate::choices::Choices;
use crate::wire::{self, ACKNOWLEDGED, CHECKPOINT, Header, USAGE};

/// A directory is opened, or refused with nothing in it changed. What was opened can be read,
/// goes on, and is found again as it was.
pub fn any_segments(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut choices = Choices::new(data);
    let mut base = 1;
    for _ in 0..=choices.below(3) {
        base = segment(&mut choices, directory, base);
    }
    let before = content(directory);
    let (mut journal, found) = match Journal::open(directory, ROOMY, BOOT) {
        Ok(opened) => opened,
        // Known only when everything was read and mended.
        Err(JournalError::OutOfNumbers { .. }) => return,
        Err(_) => {
            assert_eq!(content(directory), before, "a refused journal is left alone");
            return;
        }
    };
    check(&before, &found);
    let batches = read(&journal.reader(), 0);
    let last = journal.last();
    assert_eq!(last, found.last_sequence);
    assert!(batches.iter().all(|(_, batch)| batch.sequence <= last.0));
    let after = last.0.max(found.acknowledged.0);
    let appended = match journal.append_with(&[record(1, 1)], Some(b"state")) {
        Ok(sequence) => {
            assert!(sequence.0 > after, "{sequence} is a new number after {after}");
            true
        }
        Err(JournalError::OutOfNumbers { .. }) => return,
        Err(error) => {
            assert!(error.is_full(), "{error}");
            false
        }
    };
    let written = read(&journal.reader(), 0);
    let (id, last) = (journal.reader().journal_id(), journal.last());
    drop(journal);

    let (journal, again) = Journal::open(directory, ROOMY, BOOT).expect("it was open before");
    assert_eq!((again.journal_id, again.damaged, again.truncated), (id, Vec::new(), None));
    assert_eq!(again.last_sequence, last);
    assert!(!appended || again.checkpoint.as_deref() == Some(b"state"), "it was put");
    let kept = written.iter().filter(|(_, batch)| batch.sequence > again.acknowledged.0);
    let found_again = read(&journal.reader(), again.acknowledged.0);
    assert!(found_again.iter().eq(kept), "what was there is there again");
}

/// Nothing is found that nobody wrote.
fn check(before: &BTreeMap<OsString, Vec<u8>>, found: &Recovered) {
    if let Some(checkpoint) = &found.checkpoint {
        let holds = |file: &Vec<u8>| {
            checkpoint.is_empty() || file.windows(checkpoint.len()).any(|part| part == checkpoint)
        };
        assert!(before.values().any(holds), "a checkpoint that nobody put");
    }
    assert_eq!(found.conditions().len(), found.damaged.len() + found.kept_aside.len());
}

/// Writes one; gives a base for the next.
fn segment(choices: &mut Choices<'_>, directory: &Path, base: u64) -> u64 {
    let base = if choices.below(8) == 1 { choices.number() } else { base };
    let header = Header {
        version: if choices.below(32) == 1 { 2 } else { 1 },
        journal: [if choices.below(32) == 1 { 9 } else { 7 }; 16],
        base: if choices.below(32) == 1 { choices.number() } else { base },
        covers: if choices.below(8) == 1 { choices.number() } else { 0 },
        coarsened: choices.byte().into(),
        boot: if choices.below(4) == 1 { b"another".to_vec() } else { BOOT.into() },
    };
    let mut copies = [header.copy(), header.copy()];
    let damage = choices.byte();
    if damage & 1 == 1 {
        copies[usize::from(damage >> 1 & 1)][usize::from(damage >> 2)] ^= 1;
    }
    let mut bytes = copies.concat();
    let mut sequence = base;
    for _ in 0..choices.below(10) {
        bytes.extend(piece(choices, &mut sequence));
    }
    let length = bytes.len();
    if choices.below(8) == 1 {
        bytes.truncate(length.saturating_sub(usize::from(choices.byte())));
    }
    fs::write(directory.join(format!("{base:020}.segment")), bytes).expect("write a segment");
    sequence.saturating_add(1)
}

/// A record, or something in its place.
fn piece(choices: &mut Choices<'_>, sequence: &mut u64) -> Vec<u8> {
    let numbered = if choices.below(8) == 1 { choices.number() } else { *sequence };
    let count = usize::from(choices.below(64));
    match choices.below(8) {
        0..=2 => {
            *sequence = numbered.saturating_add(1);
            let own = if choices.below(16) == 1 { choices.number() } else { numbered };
            wire::record(USAGE, numbered, &batch(choices, own).encode_to_vec())
        }
        3 => wire::record(USAGE, numbered, choices.bytes(count)),
        4 => wire::record(CHECKPOINT, numbered, choices.bytes(count)),
        5 => wire::record(ACKNOWLEDGED, numbered, &[]),
        6 => wire::record(choices.byte().into(), numbered, choices.bytes(count)),
        _ => choices.bytes(count).to_vec(),
    }
}

fn batch(choices: &mut Choices<'_>, sequence: u64) -> UsageBatch {
    let record = |choices: &mut Choices<'_>| UsageRecord {
        virtual_cluster: choices.of(["a", "b", "", "../a"]).to_owned(),
        virtual_cluster_number: choices.byte().into(),
        cgroup_id: choices.byte().into(),
        epoch: choices.byte().into(),
        window_start_unix_nanoseconds: choices.number(),
        window_nanoseconds: choices.number(),
        values: vec![MeterValue { meter: choices.byte().into(), value: choices.number() }],
    };
    let records = (0..choices.below(3)).map(|_| record(choices)).collect();
    UsageBatch { sequence, records }
}
