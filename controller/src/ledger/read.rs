//! Fetching what a question about usage needs, and no more.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use super::{Ledger, LedgerError, levels, number, stored};
use crate::family::{Families, Family};
use crate::query::{Facts, Pair, PairKey, Series, Span};

/// Of which virtual clusters and nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Selection {
    /// Names of virtual clusters.
    pub virtual_clusters: Names,
    /// Names of nodes.
    pub nodes: Names,
}

/// Some of what has names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Names {
    /// All.
    #[default]
    All,
    /// These, which may be none.
    These(Vec<String>),
}

impl Names {
    /// What a question means: no name is all.
    pub(crate) fn asked(names: Vec<String>) -> Self {
        if names.is_empty() { Self::All } else { Self::These(names) }
    }

    /// Those that are named.
    pub(crate) fn named(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::These(names) => names,
        }
    }
}

/// A part of a question that names nothing that there ever was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    /// A virtual cluster.
    VirtualCluster(String),
    /// A node.
    Node(String),
}

impl Ledger {
    /// The first name of a selection that there never was.
    pub(crate) fn unknown(&self, selection: &Selection) -> Result<Option<Unknown>, LedgerError> {
        self.read("look up names", |transaction| {
            let has = |table: &str, name: &String| -> rusqlite::Result<bool> {
                let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE name = ?1)");
                transaction.query_row(&sql, [name], |row| row.get(0))
            };
            for name in selection.virtual_clusters.named() {
                if !has("identity", name)? {
                    return Ok(Some(Unknown::VirtualCluster(name.clone())));
                }
            }
            for name in selection.nodes.named() {
                if !has("node", name)? {
                    return Ok(Some(Unknown::Node(name.clone())));
                }
            }
            Ok(None)
        })
    }

    /// Which virtual clusters were seen on which nodes, and since when.
    pub(crate) fn pairs(&self, selection: &Selection) -> Result<Vec<Pair>, LedgerError> {
        self.read("list who was seen where", |transaction| pairs(transaction, selection))
    }

    /// What is known of the selection, for rows with these spans. The spans follow one another
    /// without a gap; there is one at least.
    pub(crate) fn facts(
        &self,
        selection: &Selection,
        spans: &[Span],
    ) -> Result<Facts, LedgerError> {
        self.read("read usage", |transaction| {
            let mut facts = Facts { pairs: pairs(transaction, selection)?, ..Facts::default() };
            let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
                return Ok(facts);
            };
            let whole = Span { start: first.start, end: last.end };
            facts.coverage = coverage(transaction, selection, whole)?;
            for entry in live_series(transaction, selection, whole)? {
                let readings = levels::readings(transaction, entry.id, spans)?;
                let of = |meter| Series { key: entry.key.clone(), meter };
                facts.series.extend(readings.into_iter().map(|(meter, said)| (of(meter), said)));
            }
            Ok(facts)
        })
    }
}

/// Whether a name is selected: the parameters are two JSON lists, or null for all.
const SELECTED: &str = "(?1 = 'null' OR identity.name IN (SELECT value FROM json_each(?1)))
     AND (?2 = 'null' OR node.name IN (SELECT value FROM json_each(?2)))";

fn lists(selection: &Selection) -> (String, String) {
    // Names of virtual clusters and nodes hold nothing that JSON would escape, and others were
    // refused before.
    let list = |names: &Names| match names {
        Names::All => "null".to_owned(),
        Names::These(names) if names.is_empty() => "[]".to_owned(),
        Names::These(names) => format!("[\"{}\"]", names.join("\",\"")),
    };
    (list(&selection.virtual_clusters), list(&selection.nodes))
}

fn pairs(transaction: &Transaction<'_>, selection: &Selection) -> rusqlite::Result<Vec<Pair>> {
    let (clusters, nodes) = lists(selection);
    transaction
        .prepare(&format!(
            "SELECT identity.name, node.name, first_start FROM pair
             JOIN identity ON identity.number = virtual_cluster JOIN node ON node.id = node
             WHERE {SELECTED} ORDER BY 1, 2"
        ))?
        .query_map(params![clusters, nodes], |row| {
            let key = PairKey { virtual_cluster: row.get(0)?, node: row.get(1)? };
            Ok(Pair { key, first_start: number(row.get(2)?) })
        })?
        .collect()
}

fn coverage(
    transaction: &Transaction<'_>,
    selection: &Selection,
    whole: Span,
) -> rusqlite::Result<BTreeMap<(PairKey, Family), Vec<Span>>> {
    let (clusters, nodes) = lists(selection);
    let mut statement = transaction.prepare(&format!(
        "SELECT identity.name, node.name, families, start, end FROM coverage
         JOIN identity ON identity.number = virtual_cluster JOIN node ON node.id = node
         WHERE {SELECTED} AND start < ?3 AND end > ?4 ORDER BY start"
    ))?;
    let mut rows =
        statement.query(params![clusters, nodes, stored(whole.end), stored(whole.start)])?;
    let mut found: BTreeMap<_, Vec<Span>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let key = PairKey { virtual_cluster: row.get(0)?, node: row.get(1)? };
        let span = Span { start: number(row.get(3)?), end: number(row.get(4)?) };
        for family in Families::from_code(row.get(2)?).iter() {
            add(found.entry((key.clone(), family)).or_default(), span);
        }
    }
    Ok(found)
}

/// Adds a span that begins no earlier than those before it; spans that touch are one.
fn add(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
        _ => spans.push(span),
    }
}

struct Entry {
    id: i64,
    key: PairKey,
}

/// Series that have records in the range. Of others no usage changes in it.
fn live_series(
    transaction: &Transaction<'_>,
    selection: &Selection,
    whole: Span,
) -> rusqlite::Result<Vec<Entry>> {
    let (clusters, nodes) = lists(selection);
    transaction
        .prepare(&format!(
            "SELECT series.id, identity.name, node.name FROM series
             JOIN identity ON identity.number = series.virtual_cluster
             JOIN boot ON boot.id = series.boot JOIN node ON node.id = boot.node
             WHERE {SELECTED} AND EXISTS (
                 SELECT 1 FROM record
                 WHERE series = series.id AND window_start >= ?4 AND window_start < ?3)"
        ))?
        .query_map(params![clusters, nodes, stored(whole.end), stored(whole.start)], |row| {
            let key = PairKey { virtual_cluster: row.get(1)?, node: row.get(2)? };
            Ok(Entry { id: row.get(0)?, key })
        })?
        .collect()
}
