//! What outlives a restart of the agent, and what must not outlive one of the machine.

use super::*;
use crate::journal::Series;

const NEXT_BOOT: &str = "0d0c1f6e-95a3-4f0b-9f63-3a1df2b6a3c7";

fn series(cgroup: u64) -> Series {
    Series {
        virtual_cluster: format!("team-{cgroup}").parse().unwrap(),
        cgroup: CgroupId(cgroup),
        epoch: Epoch(0),
    }
}

#[test]
fn the_newest_values_are_there_after_a_restart() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for value in 1..=20 {
        journal.append(&[record(1, 1, value), record(2, 1, 100 * value)]).unwrap();
    }
    drop(journal);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered.latest.get(&series(1), Meter::CPU_USAGE), Some(20));
    assert_eq!(recovered.latest.get(&series(2), Meter::CPU_USAGE), Some(2_000));
    assert_eq!(recovered.latest.get(&series(2), Meter::OOM_KILLS), None);
    assert_eq!(recovered.latest.iter().count(), 2);
}

#[test]
fn a_checkpoint_outlives_everything_else() {
    let directory = directory();
    let (mut journal, recovered) = open(directory.path());
    assert_eq!(recovered.checkpoint, None);
    journal.put_checkpoint(b"first").unwrap();
    journal.append_with(&[record(1, 1, 1)], Some(b"second")).unwrap();
    for value in 2..=100 {
        let last = journal.append(&[record(1, 1, value)]).unwrap();
        journal.acknowledge(last).unwrap();
    }
    assert_eq!(segments(directory.path()).len(), 1);
    drop(journal);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered.checkpoint.as_deref(), Some(&b"second"[..]));
}

#[test]
fn a_checkpoint_longer_than_a_segment_is_kept() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    for byte in 0..50_u8 {
        journal.append_with(&[record(1, 1, 1)], Some(&[byte; 5_000])).unwrap();
    }
    drop(journal);
    assert_eq!(open(directory.path()).1.checkpoint, Some(vec![49; 5_000]));
}

#[test]
fn another_boot_has_its_own_cgroups() {
    let directory = directory();
    let (mut journal, first) = open(directory.path());
    journal.append_with(&[record(1, 1, 1)], Some(b"of the first boot")).unwrap();
    drop(journal);
    let (mut journal, second) = Journal::open(directory.path(), SMALL, NEXT_BOOT).unwrap();
    assert_eq!(second.journal_id, first.journal_id);
    assert_eq!(second.checkpoint, None);
    assert_eq!(second.latest.iter().count(), 0);
    assert_eq!(journal.append(&[record(1, 1, 7)]).unwrap(), Sequence(2));

    let reader = journal.reader();
    assert_eq!(reader.boot_after(Sequence(0)).as_deref(), Some(BOOT));
    let chunk = reader.read_after(Sequence(0), usize::MAX).unwrap();
    assert_eq!((chunk.boot.as_str(), sequences(&chunk.batches)), (BOOT, vec![1]));
    let chunk = reader.read_after(Sequence(1), usize::MAX).unwrap();
    assert_eq!((chunk.boot.as_str(), sequences(&chunk.batches)), (NEXT_BOOT, vec![2]));
    assert_eq!(reader.boot_after(Sequence(2)), None);
}

#[test]
fn new_numbers_keep_the_boot() {
    let directory = directory();
    let (mut journal, _) = open(directory.path());
    journal.append_with(&[record(1, 1, 1)], Some(b"old")).unwrap();
    drop(journal);
    let (mut journal, _) = Journal::open(directory.path(), SMALL, NEXT_BOOT).unwrap();
    journal.append_with(&[record(1, 1, 2)], Some(b"new")).unwrap();
    journal.continue_after(Sequence(10)).unwrap();
    journal.append(&[record(1, 1, 3)]).unwrap();
    let reader = journal.reader();
    for (after, boot, value) in [(10, BOOT, 1), (11, NEXT_BOOT, 2), (12, NEXT_BOOT, 3)] {
        assert_eq!(reader.boot_after(Sequence(after)).as_deref(), Some(boot));
        let chunk = reader.read_after(Sequence(after), 1).unwrap();
        assert_eq!((chunk.boot.as_str(), cpu_values(&chunk.batches)), (boot, vec![value]));
    }
    drop(journal);
    let (_, recovered) = Journal::open(directory.path(), SMALL, NEXT_BOOT).unwrap();
    assert_eq!(recovered.checkpoint.as_deref(), Some(&b"new"[..]));
}

#[test]
fn what_is_no_boot_id_is_refused() {
    let directory = directory();
    for boot in ["", "a\0b", &"x".repeat(41)] {
        let error = Journal::open(directory.path(), SMALL, boot).unwrap_err();
        assert!(matches!(error, JournalError::Boot { .. }), "{error}");
    }
}
