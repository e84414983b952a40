//! Taking in what agents report.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bulkhead_core::usage::UsageRecord;
use bulkhead_core::{VirtualClusterName, VirtualClusterNumber};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Ledger, LedgerError, Refusal, nodes, number, stored};
use crate::faults::{Point, reach};

/// A journal on a node, and the boot in which its usage was counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamKey {
    /// The node.
    pub node: String,
    /// The journal.
    pub journal: String,
    /// The kernel's boot id: cgroup ids mean nothing without it.
    pub boot: String,
}

/// Some records of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Its number in the journal, from 1 on.
    pub sequence: u64,
    /// What it holds.
    pub records: Vec<UsageRecord>,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Merged {
    /// Every batch of the journal up to here is durable.
    pub acknowledged: u64,
    /// Whether the batch was one that we had already.
    pub duplicate: bool,
}

impl Ledger {
    /// The number up to which a journal is durable; 0: nothing of it is here.
    pub(crate) fn acknowledged(&self, stream: &StreamKey) -> Result<u64, LedgerError> {
        self.read("look up a journal", |transaction| acknowledged(transaction, stream))
    }

    /// The other node that a journal's usage is booked to, if there is one.
    pub(crate) fn other_node(&self, stream: &StreamKey) -> Result<Option<String>, LedgerError> {
        self.read("look up whose a journal is", |transaction| {
            transaction
                .prepare(
                    "SELECT node.name FROM stream JOIN node ON node.id = stream.node
                     WHERE journal = ?1 AND node.name <> ?2 ORDER BY 1 LIMIT 1",
                )?
                .query_row([&stream.journal, &stream.node], |row| row.get(0))
                .optional()
        })
    }

    /// Takes in a batch, whole or not at all, and the journal's mark with it. One at or below the
    /// mark is here already and changes nothing. `now`: nanoseconds since the Unix epoch.
    pub fn merge(
        &self,
        stream: &StreamKey,
        batch: &Batch,
        now: u64,
    ) -> Result<Merged, LedgerError> {
        reach(Point::UsageMerge)
            .map_err(|source| LedgerError::sqlite("store usage", &self.path, source))?;
        let mut renumbered = BTreeMap::new();
        let merged =
            self.write_knowing("store usage", |transaction, known| -> Result<_, Refusal> {
                known.bound();
                let mark = acknowledged(transaction, stream)?;
                if batch.sequence <= mark {
                    return Ok(Merged { acknowledged: mark, duplicate: true });
                }
                let node = nodes::seen(transaction, &stream.node, now)?;
                let boot = boot(transaction, node, &stream.boot)?;
                for record in &batch.records {
                    let cluster = known.number(transaction, record)?;
                    if cluster != record.number {
                        renumbered.insert(&record.virtual_cluster, (cluster, record.number));
                    }
                    known.take(transaction, ((cluster.get(), node), boot), record)?;
                }
                transaction
                    .prepare_cached(
                        "INSERT INTO stream VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET acknowledged = excluded.acknowledged",
                    )?
                    .execute(params![node, stream.journal, stored(batch.sequence)])?;
                Ok(Merged { acknowledged: batch.sequence, duplicate: false })
            })?;
        self.tell_renumbered(&stream.node, renumbered);
        Ok(merged)
    }

    /// Logs, once for each name, that an agent numbers it otherwise.
    fn tell_renumbered(
        &self,
        node: &str,
        renumbered: BTreeMap<&VirtualClusterName, (VirtualClusterNumber, VirtualClusterNumber)>,
    ) {
        let mut told = self.renumbered.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (ours, theirs)) in renumbered {
            if told.insert(name.clone()) {
                tracing::warn!(
                    node,
                    "virtual cluster \"{name}\" has number {ours} here and {theirs} at the agent, \
                     which another data directory numbered; its usage is booked by its name"
                );
            }
        }
    }
}

fn acknowledged(transaction: &Transaction<'_>, stream: &StreamKey) -> rusqlite::Result<u64> {
    let mark = transaction
        .prepare_cached(
            "SELECT acknowledged FROM stream JOIN node ON node.id = stream.node
             WHERE node.name = ?1 AND journal = ?2",
        )?
        .query_row([&stream.node, &stream.journal], |row| row.get(0))
        .optional()?;
    Ok(mark.map_or(0, number))
}

fn boot(transaction: &Transaction<'_>, node: i64, boot: &str) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO boot (node, boot_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![node, boot])?;
    transaction
        .prepare_cached("SELECT id FROM boot WHERE node = ?1 AND boot_id = ?2")?
        .query_row(params![node, boot], |row| row.get(0))
}
