//! Appending, reading, acknowledging.

use super::*;
use std::thread;

#[test]
fn what_was_appended_is_read_in_order_also_after_a_restart() {
    let directory = directory();
    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.last_sequence, Sequence(0));
    assert_eq!(recovered.conditions(), Vec::<String>::new());
    for value in 1..=40 {
        assert_eq!(journal.append(&[record(1, 1, value)]).unwrap(), Sequence(value));
    }
    let expected: Vec<u64> = (1..=40).collect();
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), expected);
    assert_eq!(journal.reader().backlog_records(), 40);
    assert!(segments(directory.path()).len() > 2);
    drop(journal);

    let (mut journal, again) = open(directory.path());
    assert_eq!(again.journal_id, recovered.journal_id);
    assert_eq!(again.last_sequence, Sequence(40));
    assert_eq!(again.truncated, None);
    let batches = read(&journal.reader(), Sequence(0));
    assert_eq!(cpu_values(&batches), expected);
    assert_eq!(sequences(&batches), expected);
    assert_eq!(sequences(&read(&journal.reader(), Sequence(38))), [39, 40]);
    assert_eq!(journal.append(&[record(1, 1, 41)]).unwrap(), Sequence(41));
}

#[test]
fn a_new_journal_has_a_new_identity() {
    let (one, another) = (directory(), directory());
    let one = open(one.path()).1.journal_id;
    assert_ne!(open(another.path()).1.journal_id, one);
}

#[test]
fn nothing_to_append_gives_no_batch() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    assert_eq!(journal.append(&[]).unwrap(), Sequence(0));
    assert_eq!(read(&journal.reader(), Sequence(0)), Vec::new());
}

#[test]
fn a_big_append_becomes_several_batches_that_fit_into_messages() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Limits::default(), BOOT).unwrap();
    let records: Vec<UsageRecord> = (0..30_000).map(|cgroup| record(cgroup, 1, cgroup)).collect();
    let last = journal.append(&records).unwrap();
    assert!(last > Sequence(2));
    let chunk = journal.reader().read_after(Sequence(0), usize::MAX).unwrap();
    assert_eq!(chunk.batches.iter().map(|batch| batch.records.len()).sum::<usize>(), 30_000);
    for batch in &chunk.batches {
        assert!(prost::Message::encoded_len(batch) < 600 << 10);
    }
    let first = journal.reader().read_after(Sequence(0), 1).unwrap();
    assert_eq!(first.batches.len(), 1);
}

#[test]
fn acknowledged_segments_go_and_the_number_stays() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for value in 1..=40 {
        journal.append(&[record(1, 1, value)]).unwrap();
    }
    let before = segments(directory.path()).len();
    journal.acknowledge(Sequence(30)).unwrap();
    assert!(segments(directory.path()).len() < before);
    assert_eq!(journal.reader().backlog_records(), 10);
    journal.acknowledge(Sequence(20)).unwrap();
    assert_eq!(journal.reader().acknowledged(), Sequence(30));
    let beyond = journal.acknowledge(Sequence(41)).unwrap_err();
    assert!(matches!(beyond, JournalError::NeverWritten { last: Sequence(40), .. }), "{beyond}");
    drop(journal);

    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.acknowledged, Sequence(30));
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(30))), (31..=40).collect::<Vec<_>>());
    journal.acknowledge(Sequence(40)).unwrap();
    drop(journal);
    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.acknowledged, Sequence(40));
    assert_eq!(journal.append(&[record(1, 1, 41)]).unwrap(), Sequence(41));
}

#[test]
fn a_reader_goes_on_while_the_writer_writes_and_removes() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    let reader = journal.reader();
    let consumer = thread::spawn(move || {
        let mut seen: Vec<UsageBatch> = Vec::new();
        while seen.len() < 300 {
            let last = seen.last().map_or(Sequence(0), |batch| Sequence(batch.sequence));
            seen.extend(reader.read_after(last, 500).unwrap().batches);
        }
        seen
    });
    let reader = journal.reader();
    for value in 1..=300 {
        journal.append(&[record(1, 1, value)]).unwrap();
        // Behind what the consumer surely has not read yet would be wrong; so a copy of what
        // the controller does: acknowledge only what can be read.
        if value % 50 == 0 {
            assert_eq!(reader.last(), Sequence(value));
        }
    }
    let seen = consumer.join().unwrap();
    assert_eq!(sequences(&seen), (1..=300).collect::<Vec<_>>());
    journal.acknowledge(Sequence(300)).unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
}

#[test]
fn readers_are_told_of_appends() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    let appended = journal.reader().appended();
    assert!(!appended.has_changed().unwrap());
    journal.append(&[record(1, 1, 1)]).unwrap();
    assert!(appended.has_changed().unwrap());
    assert_eq!(*appended.borrow(), Sequence(1));
}

#[test]
fn a_second_agent_is_refused() {
    let directory = directory();
    let (journal, _) = open(directory.path());
    let error = refused(directory.path());
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    drop(journal);
    open(directory.path());
}

#[test]
fn limits_that_do_not_fit_are_refused() {
    let directory = directory();
    for (max_bytes, segment_bytes) in [(1 << 20, 1_000), (4_000, 1_024), (1 << 33, 1 << 20)] {
        let limits = Limits { max_bytes, segment_bytes };
        let error = Journal::open(directory.path(), limits, BOOT).unwrap_err();
        assert!(matches!(error, JournalError::Limits { .. }), "{error}");
    }
}

#[test]
fn numbers_go_on_behind_what_the_controller_knows() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for value in 1..=30 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    journal.acknowledge(Sequence(10)).unwrap();
    journal.continue_after(Sequence(500)).unwrap();
    let batches = read(&journal.reader(), Sequence(500));
    assert_eq!(cpu_values(&batches), (11..=30).collect::<Vec<_>>());
    assert_eq!(journal.reader().acknowledged(), Sequence(30));
    assert_eq!(journal.reader().backlog_records(), 20);
    drop(journal);

    let (mut journal, _) = open(directory.path());
    assert_eq!(read(&journal.reader(), Sequence(500)), batches);
    let next = journal.append(&[record(1, 31, 31)]).unwrap();
    assert!(next.0 > batches.last().unwrap().sequence);
    journal.continue_after(Sequence(3)).unwrap();
    assert_eq!(journal.last(), next);
}
