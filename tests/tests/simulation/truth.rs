//! What was really counted, and what of it must be in the ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use bulkhead_core::Meter;
use bulkhead_core::meter::NetworkUnit;
use bulkhead_proto::v1;
use rusqlite::{Connection, OpenFlags};

use crate::kernel::Sampled;

/// A journal: the node's number and the journal's identity.
pub(crate) type JournalKey = (usize, String);

/// What one counter counts: node, boot, virtual cluster, cgroup, epoch, meter.
type Counter = (usize, String, String, u64, u64, u32);

/// Usage of one virtual cluster on one node: at least, and at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

/// Node's number, virtual cluster, meter.
pub(crate) type Total = (usize, String, u32);

/// What was really counted. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth(Arc<Mutex<BTreeMap<JournalKey, Log>>>);

/// Everything that was in a journal.
#[derive(Debug, Default)]
struct Log {
    batches: Vec<Logged>,
    /// The highest number that was ever given.
    highest: u64,
}

/// A batch that was in a journal, durable.
#[derive(Clone, Debug)]
struct Logged {
    number: u64,
    boot: String,
    records: Vec<v1::UsageRecord>,
    fate: Fate,
    /// The agent heard that the controller has it: the journal may forget it.
    acknowledged: bool,
    /// A batch that a fault took had its number or a higher one, and the journal could not know:
    /// the controller may take it for one that it has.
    again: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The ledger must have it in the end.
    Due,
    /// A fault took it, perhaps after the ledger had got it.
    Lost,
    /// It is in the journal under another number, too.
    Moved,
}

/// A journal that was opened again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reopened<'a> {
    /// The numbers of its batches that are not acknowledged.
    pub(crate) there: &'a [u64],
    /// Most batches that faults can have taken from its end.
    pub(crate) may_lack: usize,
    /// Numbers go on behind this one.
    pub(crate) last: u64,
    /// It noticed that something is missing or damaged.
    pub(crate) noticed: bool,
}

impl Truth {
    fn all(&self) -> MutexGuard<'_, BTreeMap<JournalKey, Log>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is in a journal.
    pub(crate) fn journaled(&self, journal: &JournalKey, boot: &str, batch: v1::UsageBatch) {
        let (number, boot, records) = (batch.sequence, boot.to_owned(), batch.records);
        let mut all = self.all();
        let log = all.entry(journal.clone()).or_default();
        let again = number <= log.highest;
        log.highest = log.highest.max(number);
        let logged = Logged { number, boot, records, fate: Fate::Due, acknowledged: false, again };
        log.batches.push(logged);
    }

    /// The controller has a journal up to here.
    pub(crate) fn acknowledged(&self, journal: &JournalKey, sequence: u64) {
        let mut all = self.all();
        let log = all.entry(journal.clone()).or_default();
        for batch in log.batches.iter_mut().filter(|batch| batch.number <= sequence) {
            batch.acknowledged = true;
        }
    }

    /// A journal was opened again. Gives how many batches are gone.
    pub(crate) fn reopened(&self, journal: &JournalKey, found: Reopened<'_>) -> Result<usize> {
        let Reopened { there, may_lack, last, noticed } = found;
        let mut all = self.all();
        let log = all.entry(journal.clone()).or_default();
        for number in there {
            let known = log.batches.iter().any(|batch| batch.number == *number);
            ensure!(known, "batch {number} of the journal was never appended");
        }
        let mut gone = 0;
        for batch in log.due() {
            let number = batch.number;
            if there.contains(&number) {
                ensure!(gone == 0, "the journal lost a batch before batch {number}");
                continue;
            }
            batch.fate = Fate::Lost;
            gone += 1;
        }
        ensure!(gone <= may_lack, "the journal lost {gone} batches, of {may_lack} at most");
        // What ends exactly behind a batch looks as if nothing had ever been behind it.
        let unknowing = may_lack > 0 && !noticed;
        ensure!(
            last >= log.highest || unknowing,
            "numbers up to {} were given, and the journal goes on after {last}",
            log.highest
        );
        Ok(gone)
    }

    /// What is due of a journal got new numbers, which are `there` now.
    pub(crate) fn renumbered(
        &self,
        journal: &JournalKey,
        there: Vec<(String, v1::UsageBatch)>,
    ) -> Result<()> {
        {
            let records: Vec<_> = there.iter().flat_map(|(_, batch)| &batch.records).collect();
            let mut all = self.all();
            for batch in all.entry(journal.clone()).or_default().due() {
                batch.fate = Fate::Moved;
                let lost = batch.records.iter().find(|record| !records.contains(record));
                ensure!(lost.is_none(), "batch {} got no new number: {lost:?}", batch.number);
            }
        }
        for (boot, batch) in there {
            self.journaled(journal, &boot, batch);
        }
        Ok(())
    }

    /// The ledger was put back: what a journal had in it up to `before` it has up to `after` now.
    pub(crate) fn restored(&self, before: &Marks, after: &Marks) {
        for (journal, log) in self.all().iter_mut() {
            let after = after.get(journal).copied().unwrap_or(0);
            let before = before.get(journal).copied().unwrap_or(0);
            for batch in &mut log.batches {
                if batch.number > after && batch.number <= before {
                    batch.fate = Fate::Lost;
                }
            }
        }
    }

    /// What was used, as far as the ledger can know it.
    pub(crate) fn totals(&self) -> BTreeMap<Total, Bounds> {
        let mut counters: BTreeMap<Counter, Bounds> = BTreeMap::new();
        for ((node, _), log) in self.all().iter() {
            for batch in &log.batches {
                for record in &batch.records {
                    for value in &record.values {
                        let name = record.virtual_cluster.clone();
                        let series = (record.cgroup_id, record.epoch, value.meter);
                        let key = (*node, batch.boot.clone(), name, series.0, series.1, series.2);
                        let bounds = counters.entry(key).or_default();
                        bounds.most = bounds.most.max(value.value);
                        if batch.fate == Fate::Due && !batch.again {
                            bounds.least = bounds.least.max(value.value);
                        }
                    }
                }
            }
        }
        let mut totals: BTreeMap<Total, Bounds> = BTreeMap::new();
        for ((node, _, name, _, _, meter), bounds) in counters {
            let total = totals.entry((node, name, meter)).or_default();
            total.least += bounds.least;
            total.most += bounds.most;
        }
        totals
    }
}

impl Log {
    /// Batches that must still be in the journal.
    fn due(&mut self) -> impl Iterator<Item = &mut Logged> {
        let due = |batch: &&mut Logged| !batch.acknowledged && batch.fate == Fate::Due;
        self.batches.iter_mut().filter(due)
    }
}

/// The meters that are compared.
pub(crate) fn meters() -> [u32; 3] {
    [Meter::CPU_USAGE, Meter::MEMORY_BYTE_SECONDS, sent()].map(Meter::code)
}

fn sent() -> Meter {
    Meter::network(0, 0, 0, NetworkUnit::Bytes).unwrap_or(Meter::CPU_USAGE)
}

/// Whether a turn put into the journal what the kernel had counted.
pub(crate) fn check_turn(sampled: &[Sampled], appended: &[v1::UsageBatch]) -> Result<()> {
    let records: Vec<_> = appended.iter().flat_map(|batch| &batch.records).collect();
    let value = |name: &str, cgroup: u64, epoch: Option<u64>, meter: Meter| {
        let mine = records.iter().filter(|record| {
            record.virtual_cluster == name
                && record.cgroup_id == cgroup
                && epoch.is_none_or(|epoch| record.epoch == epoch)
        });
        let mut values = mine.flat_map(|record| &record.values);
        values.find(|value| value.meter == meter.code()).map(|value| value.value)
    };
    for seen in sampled {
        let name = seen.name.as_str();
        let cpu = value(name, seen.cgroup, None, Meter::CPU_USAGE);
        ensure!(cpu == Some(seen.cpu), "{seen:?} is {cpu:?} in the journal");
        let bytes = value(name, seen.cgroup, Some(seen.network_epoch), sent());
        ensure!(bytes == Some(seen.sent_bytes), "{seen:?} sent {bytes:?} in the journal");
    }
    Ok(())
}

/// Up to where each journal is durable.
pub(crate) type Marks = BTreeMap<JournalKey, u64>;

/// Opens a ledger's file beside the controller; what it sees is committed.
pub(crate) fn look(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags).context("look into the ledger")
}

/// Up to where each journal is durable.
pub(crate) fn marks(ledger: &Connection) -> Result<Marks> {
    let mut statement = ledger.prepare_cached(
        "SELECT node.name, journal, acknowledged FROM stream JOIN node ON node.id = stream.node",
    )?;
    let rows = statement.query_map([], |row| {
        let node: String = row.get(0)?;
        let number = node.strip_prefix("node-").and_then(|number| number.parse().ok());
        Ok(((number.unwrap_or(usize::MAX), row.get(1)?), row.get::<_, i64>(2)?.cast_unsigned()))
    })?;
    rows.collect::<rusqlite::Result<Marks>>().context("read the marks of the ledger")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(truth: &Truth, journal: &JournalKey, number: u64, value: u64) {
        let value = v1::MeterValue { meter: Meter::CPU_USAGE.code(), value };
        let record = v1::UsageRecord {
            virtual_cluster: "blue".to_owned(),
            values: vec![value],
            ..v1::UsageRecord::default()
        };
        let batch = v1::UsageBatch { sequence: number, records: vec![record] };
        truth.journaled(journal, "boot", batch);
    }

    /// What came first under those numbers is in the ledger, and nothing is known of the others.
    #[test]
    fn numbers_that_are_given_again_are_of_other_batches() {
        let (truth, journal) = (Truth::default(), (0, "journal".to_owned()));
        count(&truth, &journal, 1, 10);
        count(&truth, &journal, 2, 20);
        truth.acknowledged(&journal, 2);
        let cut = Reopened { there: &[], may_lack: 9, last: 0, noticed: false };
        truth.reopened(&journal, Reopened { noticed: true, ..cut }).unwrap_err();
        assert_eq!(truth.reopened(&journal, cut).expect("nobody could know"), 0);
        count(&truth, &journal, 1, 30);
        count(&truth, &journal, 2, 40);
        count(&truth, &journal, 3, 50);
        let bounds = |truth: &Truth| truth.totals().into_values().collect::<Vec<_>>();
        assert_eq!(bounds(&truth), [Bounds { least: 50, most: 50 }]);
        let gone = truth.reopened(&journal, Reopened { last: u64::MAX, ..cut });
        assert_eq!(gone.expect("so many it may lack"), 3);
        assert_eq!(bounds(&truth), [Bounds { least: 20, most: 50 }]);
    }
}
