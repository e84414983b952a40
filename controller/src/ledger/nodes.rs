//! Nodes that ever reported.

use bulkhead_proto::v1;
use prost::Message;
use rusqlite::{Transaction, params};

use super::{Ledger, LedgerError, number, stored};

/// A node as the ledger remembers it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct KnownNode {
    /// Its name.
    pub name: String,
    /// When it was last heard of, nanoseconds since the Unix epoch.
    pub last_seen: u64,
    /// What it said of itself.
    pub facts: v1::NodeFacts,
}

impl Ledger {
    /// Every node.
    pub(crate) fn nodes(&self) -> Result<Vec<KnownNode>, LedgerError> {
        self.read("list nodes", |transaction| {
            transaction
                .prepare("SELECT name, last_seen, facts FROM node ORDER BY name")?
                .query_map([], |row| {
                    let facts: Vec<u8> = row.get(2)?;
                    Ok(KnownNode {
                        name: row.get(0)?,
                        last_seen: number(row.get(1)?),
                        // Written by us; a later version may have written more.
                        facts: v1::NodeFacts::decode(facts.as_slice()).unwrap_or_default(),
                    })
                })?
                .collect()
        })
    }

    /// Remembers what a node said of itself.
    pub(crate) fn remember_node(&self, node: &KnownNode) -> Result<(), LedgerError> {
        self.write("remember a node", |transaction| {
            transaction
                .execute(
                    "INSERT INTO node (name, last_seen, facts) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen,
                                               facts = excluded.facts",
                    params![node.name, stored(node.last_seen), node.facts.encode_to_vec()],
                )
                .map(drop)
        })
    }
}

/// The number of a node, which was seen now.
pub(super) fn seen(transaction: &Transaction<'_>, name: &str, now: u64) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO node (name, last_seen, facts) VALUES (?1, ?2, x'')
             ON CONFLICT DO UPDATE SET last_seen = max(last_seen, excluded.last_seen)
             RETURNING id",
        )?
        .query_row(params![name, stored(now)], |row| row.get(0))
}
