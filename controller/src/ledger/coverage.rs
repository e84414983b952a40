//! For which time there are records: sets of spans, kept as few as they can be. The union of
//! sets does not depend on order, and adding a span twice changes nothing. There is a set for
//! each combination of families that came in one record; a family is covered by the union of the
//! sets that it is in.

use rusqlite::{Transaction, params};

use super::known::PairNumbers;
use super::{number, stored};
use crate::family::Families;

/// A half-open span, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Gives the last span of a set, which is known by its start, a later end.
pub(super) fn lengthen(
    transaction: &Transaction<'_>,
    ((cluster, node), families): (PairNumbers, Families),
    last: Stretch,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE coverage SET end = ?5
             WHERE virtual_cluster = ?1 AND node = ?2 AND families = ?3 AND start = ?4",
        )?
        .execute(params![cluster, node, families.code(), stored(last.start), stored(last.end)])
        .map(drop)
}

/// Adds a span to a set, and gives the last span that it has then.
pub(super) fn add(
    transaction: &Transaction<'_>,
    ((cluster, node), families): (PairNumbers, Families),
    Stretch { mut start, mut end }: Stretch,
) -> rusqlite::Result<Stretch> {
    let families = families.code();
    let mut touched = Vec::new();
    let mut is_there = false;
    {
        // Spans neither touch nor overlap, so from the last backwards their ends fall too.
        let mut earlier = transaction.prepare_cached(
            "SELECT start, end FROM coverage
             WHERE virtual_cluster = ?1 AND node = ?2 AND families = ?3 AND start <= ?4
             ORDER BY start DESC",
        )?;
        let mut rows = earlier.query(params![cluster, node, families, stored(end)])?;
        while let Some(row) = rows.next()? {
            let span = (number(row.get(0)?), number(row.get(1)?));
            if span.1 < start {
                break;
            }
            if span.0 <= start && end <= span.1 {
                is_there = true;
                break;
            }
            touched.push(span.0);
            start = start.min(span.0);
            end = end.max(span.1);
        }
    }
    if !is_there {
        for gone in touched {
            transaction
                .prepare_cached(
                    "DELETE FROM coverage
                     WHERE virtual_cluster = ?1 AND node = ?2 AND families = ?3 AND start = ?4",
                )?
                .execute(params![cluster, node, families, stored(gone)])?;
        }
        transaction
            .prepare_cached(
                "INSERT INTO coverage VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET end = excluded.end",
            )?
            .execute(params![cluster, node, families, stored(start), stored(end)])?;
    }
    transaction
        .prepare_cached(
            "SELECT start, end FROM coverage
             WHERE virtual_cluster = ?1 AND node = ?2 AND families = ?3
             ORDER BY start DESC LIMIT 1",
        )?
        .query_row(params![cluster, node, families], |row| {
            Ok(Stretch { start: number(row.get(0)?), end: number(row.get(1)?) })
        })
}
