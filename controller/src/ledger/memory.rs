//! What the controller itself must not forget: numbers, the generation, the last good files.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{VirtualClusterName, VirtualClusterNumber};
use rusqlite::params;

use super::{Ledger, LedgerError, Refusal, number};
use crate::identities;

/// A file that was part of the last state in which everything was valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GoodFile {
    /// Its name.
    pub name: String,
    /// What it held.
    pub content: String,
}

impl Ledger {
    /// The numbers of these names; new names get new numbers, which are durable when this
    /// returns.
    pub(crate) fn numbers(
        &self,
        names: &BTreeSet<VirtualClusterName>,
    ) -> Result<BTreeMap<VirtualClusterName, VirtualClusterNumber>, LedgerError> {
        self.write("number virtual clusters", |transaction| -> Result<_, Refusal> {
            names
                .iter()
                .map(|name| Ok((name.clone(), identities::number(transaction, name)?)))
                .collect()
        })
    }

    /// Counts so many generations that no snapshot had before; gives the last of them.
    pub(crate) fn count_generations(&self, count: u64) -> Result<u64, LedgerError> {
        self.write("count generations", |transaction| {
            transaction.query_row(
                "UPDATE generation SET value = value + ?1 RETURNING value",
                [count.cast_signed()],
                |row| row.get(0).map(number),
            )
        })
    }

    /// Remembers the files of a state in which everything was valid.
    pub(crate) fn remember_files(&self, files: &[GoodFile]) -> Result<(), LedgerError> {
        self.write("remember the objects", |transaction| -> rusqlite::Result<()> {
            transaction.execute("DELETE FROM good_file", [])?;
            let mut insert = transaction.prepare("INSERT INTO good_file VALUES (?1, ?2)")?;
            for file in files {
                insert.execute(params![file.name, file.content])?;
            }
            Ok(())
        })
    }

    /// The files that [`Ledger::remember_files`] kept; none: there were never any.
    pub(crate) fn good_files(&self) -> Result<Vec<GoodFile>, LedgerError> {
        self.read("read the remembered objects", |transaction| {
            transaction
                .prepare("SELECT name, content FROM good_file ORDER BY name")?
                .query_map([], |row| Ok(GoodFile { name: row.get(0)?, content: row.get(1)? }))?
                .collect()
        })
    }
}
