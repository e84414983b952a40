//! Any sequence of what an agent does with its journal, with little room.

use std::collections::BTreeMap;

use bulkhead_agent::journal::{Journal, Limits, Sequence};
use bulkhead_core::UsageRecord;
use tempfile::TempDir;

use super::{read, record, value_of};
use crate::choices::Choices;

const TIGHT: Limits = Limits { max_bytes: 8 << 10, segment_bytes: 1 << 10 };
/// More boots would have more series than there is room for.
const BOOTS: u8 = 4;
const MOST_OPERATIONS: usize = 32;

/// By boot and cgroup.
type Totals = BTreeMap<(String, u64), u64>;

struct World {
    directory: TempDir,
    boot: u8,
    value: u64,
    /// What was appended.
    appended: Totals,
    /// What a controller has that merges by maximum.
    merged: Totals,
    /// What it has seen.
    seen: u64,
    checkpoint: Option<Vec<u8>>,
}

/// Whatever happens, the controller ends with exactly what was appended.
pub fn any_operations(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World {
        directory,
        boot: 0,
        value: 0,
        appended: Totals::new(),
        merged: Totals::new(),
        seen: 0,
        checkpoint: None,
    };
    let mut journal = world.open();
    let mut choices = Choices::new(data);
    for _ in 0..MOST_OPERATIONS {
        if choices.is_over() {
            break;
        }
        journal = world.operate(&mut choices, journal);
        assert!(journal.reader().bytes() <= TIGHT.max_bytes, "the limit is kept");
    }
    world.deliver(&mut journal);
    assert_eq!(world.merged, world.appended);
}

impl World {
    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    fn open(&self) -> Journal {
        let path = self.directory.path();
        let (journal, found) = Journal::open(path, TIGHT, &self.boot_id()).expect("it opens");
        assert_eq!(found.conditions(), Vec::<String>::new(), "nothing was damaged");
        assert_eq!(found.truncated, None, "nothing was cut");
        assert_eq!(found.checkpoint, self.checkpoint, "the last one that was put");
        assert_eq!(found.last_sequence, journal.last());
        journal
    }

    fn operate(&mut self, choices: &mut Choices<'_>, mut journal: Journal) -> Journal {
        match choices.below(8) {
            0 | 1 => self.append(choices, &mut journal),
            2 => {
                for _ in 0..=choices.below(24) {
                    self.append(&mut Choices::new(&[1, 2]), &mut journal);
                }
            }
            3 => self.deliver(&mut journal),
            4 => {
                let part = u64::from(choices.byte());
                let upto = journal.last().0 * part / 255;
                // The controller has it before it says so.
                self.take(&journal, upto);
                journal.acknowledge(Sequence(upto.min(self.seen))).expect("it was seen");
            }
            5 => {
                // What it has of this journal is not in this copy of it.
                self.seen = self.seen.max(journal.last().0) + 1 + u64::from(choices.byte());
                journal.continue_after(Sequence(self.seen)).expect("there is room for it");
            }
            kind => {
                drop(journal);
                if kind == 6 && self.boot + 1 < BOOTS {
                    self.boot += 1;
                    self.checkpoint = None;
                }
                return self.open();
            }
        }
        journal
    }

    fn append(&mut self, choices: &mut Choices<'_>, journal: &mut Journal) {
        let count = choices.below(5);
        let records: Vec<UsageRecord> = (0..count)
            .map(|cgroup| {
                self.value += 1;
                record(u64::from(cgroup) + 1, self.value)
            })
            .collect();
        let checkpoint =
            (choices.below(3) == 1).then(|| vec![choices.byte(); usize::from(choices.byte())]);
        let before = journal.last();
        match journal.append_with(&records, checkpoint.as_deref()) {
            Ok(last) => {
                assert_eq!(last > before, !records.is_empty(), "a number for each append");
                for record in &records {
                    let value = record.window.start.0 / record.window.length_nanoseconds;
                    self.appended.insert((self.boot_id(), record.cgroup.0), value);
                }
                self.checkpoint = checkpoint.or(self.checkpoint.take());
            }
            Err(error) => assert!(error.is_full(), "{error}"),
        }
    }

    fn deliver(&mut self, journal: &mut Journal) {
        self.take(journal, u64::MAX);
        journal.acknowledge(Sequence(self.seen.min(journal.last().0))).expect("it was read");
    }

    /// The controller merges what it has not seen, up to a number.
    fn take(&mut self, journal: &Journal, upto: u64) {
        for (boot, batch) in read(&journal.reader(), self.seen) {
            if batch.sequence > upto {
                break;
            }
            self.seen = batch.sequence;
            for record in &batch.records {
                let Some(value) = value_of(record) else { continue };
                let newest = self.merged.entry((boot.clone(), record.cgroup_id)).or_default();
                *newest = value.max(*newest);
            }
        }
    }
}
