//! For which time there are records: a set of spans, kept as few as they can be. The union of
//! sets does not depend on order, and adding a span twice changes nothing.

use rusqlite::{Transaction, params};

use super::{number, stored};
use crate::family::Family;

/// Adds the span from `start` up to `end`.
pub(super) fn add(
    transaction: &Transaction<'_>,
    (cluster, node, family): (u32, i64, Family),
    (mut start, mut end): (u64, u64),
) -> rusqlite::Result<()> {
    let family = family.code();
    let mut touched = Vec::new();
    {
        // Spans neither touch nor overlap, so from the last backwards their ends fall too.
        let mut earlier = transaction.prepare_cached(
            "SELECT start, end FROM coverage
             WHERE virtual_cluster = ?1 AND node = ?2 AND family = ?3 AND start <= ?4
             ORDER BY start DESC",
        )?;
        let mut rows = earlier.query(params![cluster, node, family, stored(end)])?;
        while let Some(row) = rows.next()? {
            let span = (number(row.get(0)?), number(row.get(1)?));
            if span.1 < start {
                break;
            }
            if span.0 <= start && end <= span.1 {
                return Ok(());
            }
            touched.push(span.0);
            start = start.min(span.0);
            end = end.max(span.1);
        }
    }
    for gone in touched {
        transaction
            .prepare_cached(
                "DELETE FROM coverage
                 WHERE virtual_cluster = ?1 AND node = ?2 AND family = ?3 AND start = ?4",
            )?
            .execute(params![cluster, node, family, stored(gone)])?;
    }
    transaction
        .prepare_cached("INSERT INTO coverage VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![cluster, node, family, stored(start), stored(end)])?;
    Ok(())
}
