//! Random operations, crashes and damage.

use super::disk::{Crashes, SmallDisk};
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// What happens to a journal at its limit.
#[derive(Clone, Copy, Debug)]
enum Tight {
    Append {
        cgroup: u64,
        times: u64,
    },
    /// The controller is there for a moment.
    Deliver,
    Reopen,
    AppendOnFullDisk {
        left: u64,
    },
    /// The controller turns out to be ahead.
    Renumber {
        by: u64,
    },
}

fn tight() -> impl Strategy<Value = Tight> {
    prop_oneof![
        8 => (0..6u64, 1..60u64).prop_map(|(cgroup, times)| Tight::Append { cgroup, times }),
        1 => Just(Tight::Deliver),
        1 => Just(Tight::Reopen),
        2 => (0..9_000u64).prop_map(|left| Tight::AppendOnFullDisk { left }),
        1 => (1..100u64).prop_map(|by| Tight::Renumber { by }),
    ]
}

/// A controller that merges by maximum.
#[derive(Debug, Default)]
struct Merged {
    newest: BTreeMap<u64, u64>,
    high_water: u64,
}

impl Merged {
    fn deliver(&mut self, journal: &mut Journal) {
        for batch in read(&journal.reader(), Sequence(self.high_water)) {
            assert!(batch.sequence > self.high_water);
            self.high_water = batch.sequence;
            for record in &batch.records {
                let value =
                    record.values.iter().find(|value| value.meter == Meter::CPU_USAGE.code());
                let Some(value) = value else { continue };
                let newest = self.newest.entry(record.cgroup_id).or_default();
                *newest = value.value.max(*newest);
            }
        }
        journal.acknowledge(Sequence(self.high_water)).unwrap();
    }
}

fn run_tight(operations: Vec<Tight>) {
    let limits = Limits { max_bytes: 8 << 10, segment_bytes: 1 << 10 };
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), limits);
    let (mut merged, mut expected, mut value) = (Merged::default(), BTreeMap::new(), 0);
    for operation in operations {
        match operation {
            Tight::Append { cgroup, times } => {
                for _ in 0..times {
                    value += 1;
                    journal.append(&[record(cgroup, value, value)]).unwrap();
                    expected.insert(cgroup, value);
                }
            }
            Tight::Deliver => merged.deliver(&mut journal),
            Tight::Reopen => {
                drop(journal);
                let (reopened, recovered) = disk.open(directory.path(), limits);
                assert_eq!(recovered.conditions(), Vec::<String>::new());
                journal = reopened;
            }
            Tight::AppendOnFullDisk { left } => {
                disk.leave(left);
                value += 1;
                if journal.append(&[record(9, value, value)]).is_ok() {
                    expected.insert(9, value);
                }
                disk.leave(u64::MAX);
            }
            Tight::Renumber { by } => {
                merged.high_water = merged.high_water.max(journal.last().0) + by;
                journal.continue_after(Sequence(merged.high_water)).unwrap();
            }
        }
        assert!(journal.reader().bytes() <= limits.max_bytes);
    }
    merged.deliver(&mut journal);
    assert_eq!(merged.newest, expected);
}

#[derive(Clone, Debug)]
enum Operation {
    Append {
        records: u64,
        checkpoint: Option<u8>,
    },
    Acknowledge(Index),
    Reopen,
    /// Appends on a disk with so few bytes left.
    AppendOnFullDisk {
        left: u64,
    },
    /// Ends between write and sync; how much of what was written survives.
    Crash(Index),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..6u64, prop::option::of(any::<u8>()))
            .prop_map(|(records, checkpoint)| Operation::Append { records, checkpoint }),
        2 => any::<Index>().prop_map(Operation::Acknowledge),
        1 => Just(Operation::Reopen),
        1 => (0..500u64).prop_map(|left| Operation::AppendOnFullDisk { left }),
        1 => any::<Index>().prop_map(Operation::Crash),
    ]
}

/// What was promised.
#[derive(Debug, Default)]
struct Model {
    /// Values by batch.
    confirmed: BTreeMap<u64, Vec<u64>>,
    acknowledged: u64,
    checkpoint: Option<Vec<u8>>,
    /// Each record has its own.
    value: u64,
}

impl Model {
    fn records(&mut self, count: u64) -> Vec<UsageRecord> {
        let values = self.value + 1..=self.value + count;
        self.value += count;
        values.map(|value| record(value % 4, value, value)).collect()
    }

    fn append(
        &mut self,
        journal: &mut Journal,
        records: &[UsageRecord],
        checkpoint: Option<Vec<u8>>,
    ) -> Result<(), JournalError> {
        let last = journal.append_with(records, checkpoint.as_deref())?;
        if !records.is_empty() {
            let values = records.iter().map(|record| record.values[&Meter::CPU_USAGE]);
            assert_eq!(self.confirmed.insert(last.0, values.collect()), None);
        }
        self.checkpoint = checkpoint.or(self.checkpoint.take());
        Ok(())
    }

    /// Exactly once, in order, nothing else; but for what was being appended in a crash.
    fn check(&self, journal: &Journal, crashed: bool) {
        let batches = read(&journal.reader(), Sequence(self.acknowledged));
        let expected: Vec<(u64, Vec<u64>)> = self
            .confirmed
            .range(self.acknowledged + 1..)
            .map(|(sequence, values)| (*sequence, values.clone()))
            .collect();
        let mut found: Vec<(u64, Vec<u64>)> = batches
            .iter()
            .map(|batch| (batch.sequence, cpu_values(std::slice::from_ref(batch))))
            .collect();
        if crashed && found.len() == expected.len() + 1 {
            found.pop();
        }
        assert_eq!(found, expected);
        assert_eq!(journal.reader().acknowledged(), Sequence(self.acknowledged));
    }

    fn check_reopened(&self, journal: &Journal, recovered: &Recovered, crashed: bool) {
        assert_eq!(recovered.damaged, []);
        if !crashed {
            assert_eq!(recovered.truncated, None);
            assert_eq!(recovered.checkpoint, self.checkpoint);
        }
        self.check(journal, crashed);
    }
}

/// A crash in the middle of an append. Gives the directory as it is found after it.
fn crash(model: &mut Model, journal: &mut Journal, disk: &SmallDisk, of: &Path, cut: Index) {
    *disk.crashes.lock().unwrap() = Some(Crashes::new(of));
    let records = model.records(3);
    let appended = journal.append(&records);
    appended.unwrap();
    let crashes = disk.crashes.lock().unwrap().take().unwrap();
    assert_eq!(crashes.unsynced(), Vec::<PathBuf>::new());
    for copy in crashes.copies {
        // What was on the disk before stays, of the rest a part.
        let bytes = fs::read(&copy.syncing).unwrap();
        let length = copy.synced + cut.index(bytes.len() - copy.synced + 1);
        fs::write(&copy.syncing, &bytes[..length]).unwrap();
        let (journal, recovered) = SmallDisk::new().open(copy.directory.path(), SMALL);
        model.check_reopened(&journal, &recovered, true);
    }
    let values = records.iter().map(|record| record.values[&Meter::CPU_USAGE]).collect();
    model.confirmed.insert(journal.last().0, values);
}

fn run(operations: Vec<Operation>) {
    let (directory, disk) = (directory(), SmallDisk::new());
    let mut model = Model::default();
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    for operation in operations {
        match operation {
            Operation::Append { records, checkpoint } => {
                let records = model.records(records);
                let checkpoint = checkpoint.map(|byte| vec![byte; usize::from(byte)]);
                model.append(&mut journal, &records, checkpoint).unwrap();
            }
            Operation::Acknowledge(index) => {
                let last = usize::try_from(journal.last().0).unwrap();
                let sequence = u64::try_from(index.index(last + 1)).unwrap();
                journal.acknowledge(Sequence(sequence)).unwrap();
                model.acknowledged = model.acknowledged.max(sequence);
            }
            Operation::Reopen => {
                drop(journal);
                let (reopened, recovered) = disk.open(directory.path(), SMALL);
                model.check_reopened(&reopened, &recovered, false);
                journal = reopened;
            }
            Operation::AppendOnFullDisk { left } => {
                disk.leave(left);
                let records = model.records(3);
                if let Err(error) = model.append(&mut journal, &records, None) {
                    assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
                }
                disk.leave(u64::MAX);
            }
            Operation::Crash(cut) => {
                crash(&mut model, &mut journal, &disk, directory.path(), cut);
            }
        }
        model.check(&journal, false);
    }
    // No operation left a gap.
    let numbers: Vec<u64> = model.confirmed.keys().copied().collect();
    assert_eq!(numbers, (1..=journal.last().0).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_confirmed_is_read_once_and_in_order(
        operations in prop::collection::vec(operation(), 1..40)
    ) {
        run(operations);
    }

    #[test]
    fn totals_are_exact_at_a_tight_limit(operations in prop::collection::vec(tight(), 1..30)) {
        run_tight(operations);
    }

    #[test]
    fn a_flipped_bit_costs_one_record_at_most(file: Index, at: Index, bit in 0..8u8) {
        let directory = directory();
        let (mut journal, _) = SmallDisk::new().open(directory.path(), SMALL);
        for value in 1..=20 {
            journal.append_with(&[record(1, value, value)], Some(b"state")).unwrap();
        }
        drop(journal);
        let files = segments(directory.path());
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(path, &bytes).unwrap();

        let (mut journal, recovered) = SmallDisk::new().open(directory.path(), SMALL);
        prop_assert_eq!(recovered.damaged.len() + usize::from(recovered.truncated.is_some()), 1);
        prop_assert_eq!(recovered.checkpoint.as_deref(), Some(&b"state"[..]));
        let values = cpu_values(&read(&journal.reader(), Sequence(0)));
        prop_assert!(values.len() >= 19);
        prop_assert!(values.is_sorted_by(|one, next| one < next));
        prop_assert!(journal.append(&[record(1, 21, 21)]).unwrap() > Sequence(20));
    }

    #[test]
    fn a_file_cut_anywhere_keeps_everything_before_and_in_other_files(file: Index, at: Index) {
        let directory = directory();
        let (mut journal, _) = SmallDisk::new().open(directory.path(), SMALL);
        for value in 1..=20 {
            journal.append(&[record(1, value, value)]).unwrap();
        }
        drop(journal);
        let files = segments(directory.path());
        let path = &files[file.index(files.len())];
        let bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        let bases = files.iter().map(|path| crate::journal::segment::base_of(path).unwrap());
        let bases: Vec<u64> = bases.chain([21]).collect();
        let cut = file.index(files.len());
        fs::write(path, &bytes[..at]).unwrap();

        let (journal, recovered) = SmallDisk::new().open(directory.path(), SMALL);
        let values = cpu_values(&read(&journal.reader(), Sequence(0)));
        let elsewhere = (1..=20).filter(|value| *value < bases[cut] || *value >= bases[cut + 1]);
        for value in elsewhere {
            prop_assert!(values.contains(&value), "{value} is lost: {recovered:?}");
        }
        prop_assert!(values.is_sorted_by(|one, next| one < next));
    }
}
