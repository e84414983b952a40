//! A journal at its limit while the controller is away.

use super::disk::SmallDisk;
use super::*;

const TIGHT: Limits = Limits { max_bytes: 16 << 10, segment_bytes: 1 << 10 };

fn tight(directory: &Path, boot: &str) -> (Journal, Recovered) {
    SmallDisk::new().open_in_boot(directory, TIGHT, boot)
}

/// The newest CPU time of each cgroup.
fn totals(batches: &[UsageBatch]) -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    for record in batches.iter().flat_map(|batch| &batch.records) {
        for value in record.values.iter().filter(|value| value.meter == Meter::CPU_USAGE.code()) {
            totals.insert(record.cgroup_id, value.value);
        }
    }
    totals
}

fn on_disk(directory: &Path) -> u64 {
    segments(directory).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn totals_stay_exact_below_the_limit() {
    let directory = directory();
    let (mut journal, _) = tight(directory.path(), BOOT);
    let mut expected = BTreeMap::new();
    for window in 1..=1_000 {
        let cgroup = window % 5;
        journal.append(&[record(cgroup, window, window * 10)]).unwrap();
        expected.insert(cgroup, window * 10);
        assert!(on_disk(directory.path()) <= TIGHT.max_bytes);
        assert_eq!(on_disk(directory.path()), journal.reader().bytes());
    }
    // One that ended long ago is told too.
    journal.append(&[record(77, 1_001, 5)]).unwrap();
    expected.insert(77, 5);
    for window in 1_002..=2_000 {
        journal.append(&[record(1, window, window * 10)]).unwrap();
        expected.insert(1, window * 10);
    }
    let reader = journal.reader();
    let batches = read(&reader, Sequence(0));
    assert_eq!(totals(&batches), expected);
    let numbers = sequences(&batches);
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.last(), Some(&2_000));
    assert_eq!(reader.compacted_records(), 2_000 - reader.backlog_records());
    let compacted = reader.compacted_records();
    assert!(compacted > 1_000);
    drop(journal);

    let (mut journal, recovered) = tight(directory.path(), BOOT);
    assert_eq!(recovered.conditions(), Vec::<String>::new());
    assert_eq!(read(&journal.reader(), Sequence(0)), batches);
    assert_eq!(journal.reader().compacted_records(), compacted);
    // Any number can be acknowledged, also that of a batch that is told no more.
    journal.acknowledge(Sequence(777)).unwrap();
    let rest: Vec<u64> = numbers.into_iter().filter(|number| *number > 777).collect();
    assert_eq!(sequences(&read(&journal.reader(), Sequence(777))), rest);
    journal.acknowledge(Sequence(2_000)).unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
}

#[test]
fn what_cannot_be_told_in_less_is_refused_until_the_controller_is_back() {
    let directory = directory();
    let (mut journal, _) = tight(directory.path(), BOOT);
    let mut expected = BTreeMap::new();
    let mut refused = 0;
    for cgroup in 1..=1_000 {
        match journal.append(&[record(cgroup, 1, cgroup)]) {
            Ok(_) => {
                expected.insert(cgroup, cgroup);
            }
            Err(error) => {
                assert!(matches!(error, JournalError::Full { .. }), "{error}");
                assert!(error.is_full());
                refused += 1;
            }
        }
    }
    assert!(refused > 500);
    assert!(on_disk(directory.path()) <= TIGHT.max_bytes);
    assert_eq!(totals(&read(&journal.reader(), Sequence(0))), expected);
    let last = journal.last();
    journal.acknowledge(last).unwrap();
    assert_eq!(journal.append(&[record(1, 2, 2)]).unwrap(), Sequence(last.0 + 1));
}

#[test]
fn boots_are_never_told_together() {
    let directory = directory();
    let other = "0d0c1f6e-95a3-4f0b-9f63-3a1df2b6a3c7";
    let (mut journal, _) = tight(directory.path(), BOOT);
    for window in 1..=50 {
        journal.append(&[record(1, window, 1_000 + window)]).unwrap();
    }
    drop(journal);
    let (mut journal, _) = tight(directory.path(), other);
    for window in 51..=1_000 {
        journal.append(&[record(1, window, window)]).unwrap();
    }
    let reader = journal.reader();
    assert!(reader.compacted_records() > 500);
    let chunk = reader.read_after(Sequence(0), usize::MAX).unwrap();
    assert_eq!(chunk.boot, BOOT);
    assert_eq!(cpu_values(&chunk.batches).last(), Some(&1_050));
    let last = Sequence(chunk.batches.last().unwrap().sequence);
    assert_eq!(reader.boot_after(last).as_deref(), Some(other));
    assert_eq!(totals(&read(&reader, last)), BTreeMap::from([(1, 1_000)]));
}

#[test]
fn a_crash_before_the_longer_segments_are_removed_changes_nothing() {
    let directory = directory();
    let (mut journal, _) = tight(directory.path(), BOOT);
    let mut before = BTreeMap::new();
    let mut window = 0;
    while journal.reader().compacted_records() == 0 {
        before = content(directory.path());
        window += 1;
        journal.append(&[record(window % 3, window, window)]).unwrap();
    }
    let expected = read(&journal.reader(), Sequence(0));
    drop(journal);
    let mut put_back = 0;
    for (path, bytes) in before {
        if !path.exists() {
            fs::write(path, bytes).unwrap();
            put_back += 1;
        }
    }
    assert!(put_back > 0);
    let (journal, recovered) = tight(directory.path(), BOOT);
    assert_eq!(recovered.conditions(), Vec::<String>::new());
    assert_eq!(read(&journal.reader(), Sequence(0)), expected);
}
