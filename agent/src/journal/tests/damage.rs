//! Files that are cut, changed, or not ours.

use super::*;
use crate::journal::format::{HEADER_BYTES, Header, Kind, RECORDS_AT, Record};
use prost::Message;
use std::os::unix::fs::symlink;

type Expected = fn(&JournalError) -> bool;

fn filled(appends: u64) -> TempDir {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for value in 1..=appends {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    directory
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_tail_cut_anywhere_in_the_last_record_costs_only_that() {
    let whole = filled(3);
    let path = segments(whole.path()).remove(0);
    let name = path.file_name().unwrap();
    let bytes = fs::read(&path).unwrap();
    let record_bytes = (bytes.len() - RECORDS_AT) / 3;
    let good_end = bytes.len() - record_bytes;
    for cut in good_end + 1..bytes.len() {
        let copy = copy(whole.path());
        fs::write(copy.path().join(name), &bytes[..cut]).unwrap();
        let (mut journal, recovered) = open(copy.path());
        let torn = recovered.truncated.unwrap();
        assert_eq!(torn.path.file_name(), Some(name));
        assert_eq!(torn.offset, u64::try_from(good_end).unwrap());
        assert_eq!(torn.bytes_lost, u64::try_from(cut - good_end).unwrap());
        assert_eq!(recovered.damaged, []);
        assert_eq!(fs::read(copy.path().join(name)).unwrap(), bytes[..good_end]);
        assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2]);

        // The lost batch's number is not given again, not even after another restart.
        drop(journal);
        journal = open(copy.path()).0;
        assert!(journal.append(&[record(1, 4, 4)]).unwrap() > Sequence(3));
        drop(journal);
        let (journal, recovered) = open(copy.path());
        assert_eq!(recovered.truncated, None);
        assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2, 4]);
    }
}

#[test]
fn damage_between_good_records_is_set_aside_and_the_rest_goes_on() {
    let directory = filled(30);
    let damaged = segments(directory.path()).remove(1);
    flip(&damaged, RECORDS_AT + 40);
    let before = fs::read(&damaged).unwrap();
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.truncated, None);
    let [lost] = &recovered.damaged[..] else { panic!("{:?}", recovered.damaged) };
    assert_eq!(lost.path, damaged);
    assert_eq!(fs::read(&lost.kept).unwrap(), before);
    assert!(lost.offset >= u64::try_from(RECORDS_AT).unwrap());
    let values = cpu_values(&read(&journal.reader(), Sequence(0)));
    assert_eq!(values.len(), 29);
    assert!(values.contains(&30));
    assert!(recovered.conditions()[0].contains("rm "), "{:?}", recovered.conditions());
    drop(journal);

    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.damaged, []);
    assert_eq!(recovered.kept_aside.len(), 1);
    assert_eq!(recovered.conditions().len(), 1);
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), values);
    drop(journal);
    fs::remove_file(&recovered.kept_aside[0]).unwrap();
    assert_eq!(open(directory.path()).1.conditions(), Vec::<String>::new());
}

#[test]
fn damage_before_good_records_of_the_last_segment_is_no_torn_tail() {
    let directory = filled(3);
    let path = segments(directory.path()).remove(0);
    flip(&path, RECORDS_AT + 5);
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.truncated, None);
    assert_eq!(recovered.damaged.len(), 1);
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [2, 3]);
}

#[test]
fn one_bad_header_is_mended_from_the_other() {
    for at in [0, 9, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 40] {
        let directory = filled(3);
        let id = open(directory.path()).1.journal_id;
        flip(&segments(directory.path())[0], at);
        let (journal, recovered) = open(directory.path());
        assert_eq!(recovered.journal_id, id);
        assert_eq!(recovered.damaged.len(), 1);
        assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2, 3]);
    }
}

#[test]
fn a_segment_without_any_header_is_set_aside_whole() {
    let directory = filled(30);
    let damaged = segments(directory.path()).remove(1);
    flip(&damaged, 30);
    flip(&damaged, HEADER_BYTES + 30);
    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.damaged.len(), 1);
    assert!(!damaged.exists());
    let values = cpu_values(&read(&journal.reader(), Sequence(0)));
    assert!(values.len() > 10 && values.contains(&30));
    assert_eq!(journal.append(&[record(1, 1, 1)]).unwrap(), Sequence(31));
}

#[test]
fn a_damaged_last_segment_leaves_its_numbers_unused() {
    let directory = filled(3);
    let path = segments(directory.path()).remove(0);
    flip(&path, 30);
    flip(&path, HEADER_BYTES + 30);
    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.damaged.len(), 1);
    assert!(journal.append(&[record(1, 1, 1)]).unwrap() > Sequence(3));
}

/// Wherever the file ends now, its end was on the disk once, and the controller may have had it;
/// but for an end just behind a batch, which looks like that of a file that lost nothing.
#[test]
fn a_journal_that_sees_that_it_was_cut_gives_no_number_twice() {
    let whole = filled(8);
    let path = segments(whole.path()).remove(0);
    let name = path.file_name().unwrap();
    let bytes = fs::read(&path).unwrap();
    let record_bytes = (bytes.len() - RECORDS_AT) / 8;
    for cut in 1..bytes.len() {
        let copy = copy(whole.path());
        fs::write(copy.path().join(name), &bytes[..cut]).unwrap();
        let (mut journal, recovered) = open(copy.path());
        let is_seen = recovered.truncated.is_some() || !recovered.damaged.is_empty();
        let looks_whole = cut >= RECORDS_AT && (cut - RECORDS_AT).is_multiple_of(record_bytes);
        assert_eq!(is_seen, !looks_whole, "cut at {cut}");
        if is_seen {
            drop(journal);
            journal = open(copy.path()).0;
            let next = journal.append(&[record(1, 9, 9)]).unwrap();
            assert!(next > Sequence(8), "cut at {cut}: {next} is given again");
        }
    }
}

#[test]
fn damage_while_it_is_open_is_told_by_the_reader() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for value in 1..=3 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    flip(&segments(directory.path())[0], RECORDS_AT + 40);
    let chunk = journal.reader().read_after(Sequence(0), usize::MAX).unwrap();
    assert_eq!(sequences(&chunk.batches), [2, 3]);
    assert_eq!(chunk.unreadable.len(), 1);
    let chunk = journal.reader().read_after(Sequence(0), 1).unwrap();
    assert_eq!(sequences(&chunk.batches), [2]);
    assert_eq!(chunk.unreadable.len(), 1);
}

#[test]
fn what_is_not_ours_is_named_and_left_alone() {
    let foreign = filled(30);
    fs::write(&segments(foreign.path())[1], b"SQLite format 3\0 and more").unwrap();
    let newer = filled(30);
    for copy in [0, HEADER_BYTES] {
        let path = &segments(newer.path())[1];
        let mut bytes = fs::read(path).unwrap();
        bytes[copy + 8] = 9;
        fs::write(path, bytes).unwrap();
    }
    let mixed = filled(30);
    let other = filled(30);
    fs::copy(&segments(other.path())[1], &segments(mixed.path())[1]).unwrap();
    let misnamed = filled(30);
    let path = &segments(misnamed.path())[1];
    fs::rename(path, misnamed.path().join("00000000000000000999.segment")).unwrap();
    let linked = filled(30);
    let path = &segments(linked.path())[1];
    fs::rename(path, linked.path().join("elsewhere")).unwrap();
    symlink(linked.path().join("elsewhere"), path).unwrap();

    let cases: [(TempDir, Expected); 5] = [
        (foreign, |error| matches!(error, JournalError::Foreign { .. })),
        (newer, |error| matches!(error, JournalError::NewerVersion { version: 9, .. })),
        (mixed, |error| matches!(error, JournalError::Mixed { .. })),
        (misnamed, |error| matches!(error, JournalError::Misnamed { .. })),
        (linked, |error| matches!(error, JournalError::Foreign { .. })),
    ];
    for (directory, expected) in cases {
        // A cut tail elsewhere is not mended either before all is known to be ours.
        let last = segments(directory.path()).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
        let before = content(directory.path());
        let error = refused(directory.path());
        assert!(expected(&error), "{error:?}");
        assert!(error.to_string().contains(".segment"), "{error}");
        assert_eq!(content(directory.path()), before);
    }
}

#[test]
fn files_that_are_no_segments_are_left_alone() {
    let directory = filled(3);
    fs::write(directory.path().join("README"), b"x").unwrap();
    fs::write(directory.path().join("7.segment"), b"x").unwrap();
    fs::write(directory.path().join("00000000000000000002.segment.tmp"), b"x").unwrap();
    let (journal, _) = open(directory.path());
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2, 3]);
    assert!(directory.path().join("README").exists());
    assert!(directory.path().join("7.segment").exists());
    assert_eq!(files(directory.path(), ".tmp"), Vec::<PathBuf>::new());
}

#[test]
fn numbers_that_no_ledger_can_keep_are_neither_read_nor_given() {
    let directory = filled(1);
    let path = segments(directory.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    for kind in [Kind::Acknowledged, Kind::Usage] {
        let batch = UsageBatch { sequence: u64::MAX, records: Vec::new() };
        let payload = if kind == Kind::Usage { batch.encode_to_vec() } else { Vec::new() };
        Record { kind, sequence: u64::MAX, payload: &payload }.encode(&mut bytes).unwrap();
    }
    fs::write(&path, bytes).unwrap();
    let (mut journal, recovered) = open(directory.path());
    assert!(recovered.truncated.is_some());
    assert_eq!(recovered.acknowledged, Sequence(0));
    let next = journal.append(&[record(1, 2, 2)]).unwrap();
    assert!(next > Sequence(1) && next < Sequence(1 << 33), "{next}");

    let error = journal.continue_after(Sequence(u64::MAX)).unwrap_err();
    assert!(matches!(error, JournalError::OutOfNumbers { .. }), "{error}");
    assert_eq!(journal.append(&[record(1, 3, 3)]).unwrap(), Sequence(next.0 + 1));
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2, 3]);
}

#[test]
fn a_segment_that_says_to_stand_for_later_ones_does_not_take_them_away() {
    let directory = filled(1);
    let path = segments(directory.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let (header, _) = Header::decode(&bytes).unwrap();
    let header = Header { covers: 50, ..header };
    bytes[..RECORDS_AT].copy_from_slice(&header.encode());
    fs::write(&path, bytes).unwrap();
    let (mut journal, _) = open(directory.path());
    journal.append(&[record(1, 2, 2)]).unwrap();
    drop(journal);
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.conditions(), Vec::<String>::new());
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 2]);
}

#[test]
fn what_damage_took_from_the_last_segment_is_still_known_after_the_others_are_gone() {
    let directory = filled(1);
    let (mut journal, _) = open(directory.path());
    journal.put_checkpoint(b"state").unwrap();
    for value in 2..=30 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    journal.acknowledge(Sequence(5)).unwrap();
    drop(journal);
    // The last segment begins with both; each is in the one before, too.
    let path = segments(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[RECORDS_AT..RECORDS_AT + 30].fill(0);
    fs::write(&path, bytes).unwrap();
    for _ in 0..3 {
        let (mut journal, recovered) = open(directory.path());
        assert_eq!(recovered.checkpoint.as_deref(), Some(&b"state"[..]));
        let last = journal.last();
        assert!(recovered.acknowledged >= Sequence(5) && last >= Sequence(30));
        journal.acknowledge(Sequence(last.0 - 1)).unwrap();
    }
}
