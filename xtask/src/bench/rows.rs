//! The rows of the report, as `bulkhead_tests::bench::Row` has them, and what they belong to.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::what::What;

/// One measured goal.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) ours: f64,
    pub(super) peer: Option<f64>,
    pub(super) peer_name: Option<String>,
    pub(super) ratio: Option<f64>,
    pub(super) goal: String,
    pub(super) met: Option<bool>,
    pub(super) spread: String,
    pub(super) machine: String,
    pub(super) note: String,
    /// Where `ours` goes; empty: not told apart.
    pub(super) profile: String,
    /// What was measured, as `git describe` tells it: rows of one report can be of several.
    pub(super) commit: String,
}

/// The commit of a row that does not say.
pub(super) const UNKNOWN: &str = "unknown";

/// Reads a row.
pub(super) fn parse(value: &Value) -> Result<Row> {
    let text = |field: &str| {
        let text = value[field].as_str().with_context(|| format!("a row has no {field}"));
        text.map(str::to_owned)
    };
    Ok(Row {
        name: text("name")?,
        unit: text("unit")?,
        ours: value["ours"].as_f64().context("a row has no number of ours")?,
        peer: value["peer"].as_f64(),
        peer_name: value["peer_name"].as_str().map(str::to_owned),
        ratio: value["ratio"].as_f64(),
        goal: text("goal")?,
        met: value["met"].as_bool(),
        spread: text("spread")?,
        machine: text("machine")?,
        note: text("note")?,
        profile: value["profile"].as_str().unwrap_or_default().to_owned(),
        commit: value["commit"].as_str().unwrap_or(UNKNOWN).to_owned(),
    })
}

impl Row {
    fn to_json(&self, what: What) -> Value {
        json!({
            "what": what.name(),
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "peer_name": self.peer_name,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
            "spread": self.spread,
            "machine": self.machine,
            "note": self.note,
            "profile": self.profile,
            "commit": self.commit,
        })
    }
}

/// All rows, in the order of [`What::ALL`].
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Rows(Vec<(What, Row)>);

impl Rows {
    /// Those of a report; none where there is no report.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .with_context(|| format!("{} is no report: remove it", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text)?;
        let rows = report["rows"].as_array().context("it has no rows")?;
        let row = |value: &Value| {
            let name = value["what"].as_str().context("a row belongs to nothing")?;
            let what = What::ALL.into_iter().find(|what| what.name() == name);
            Ok((what.with_context(|| format!("nothing is called {name}"))?, parse(value)?))
        };
        Ok(Self(rows.iter().map(row).collect::<Result<_>>()?))
    }

    /// Writes a report.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let rows: Vec<Value> = self.0.iter().map(|(what, row)| row.to_json(*what)).collect();
        let text = serde_json::to_string_pretty(&json!({ "rows": rows }))?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// Puts new rows in the place of old ones.
    pub(super) fn replace(&mut self, what: What, rows: Vec<Row>) {
        let old = std::mem::take(&mut self.0);
        let others: Vec<_> = old.into_iter().filter(|(of, _)| *of != what).collect();
        let mut all: Vec<_> =
            others.into_iter().chain(rows.into_iter().map(|row| (what, row))).collect();
        all.sort_by_key(|(what, _)| What::ALL.iter().position(|other| other == what));
        self.0 = all;
    }

    /// Those of one thing.
    pub(super) fn of(&self, what: What) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(move |(of, _)| *of == what).map(|(_, row)| row)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().map(|(_, row)| row)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn row(name: &str) -> Row {
        Row {
            name: name.to_owned(),
            unit: "ns".to_owned(),
            ours: 101.5,
            peer: Some(250.25),
            peer_name: Some("a peer 1.0".to_owned()),
            ratio: Some(0.4056),
            goal: "≤ 0.5 × the peer".to_owned(),
            met: Some(true),
            spread: "15 rounds".to_owned(),
            machine: "a machine".to_owned(),
            note: "hot".to_owned(),
            profile: String::new(),
            commit: "c0ffee1".to_owned(),
        }
    }

    #[test]
    fn new_rows_take_the_place_of_old_ones_and_stand_in_order() {
        let mut rows = Rows::default();
        rows.replace(What::Ledger, vec![row("l")]);
        rows.replace(What::Network, vec![row("old")]);
        rows.replace(What::Network, vec![row("n1"), row("n2")]);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "l"]);
        rows.replace(What::Network, Vec::new());
        assert_eq!(rows.of(What::Network).count(), 0);
        assert_eq!(rows.of(What::Ledger).count(), 1);
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.json");
        assert_eq!(Rows::read(&path).expect("no report yet"), Rows::default());
        let mut rows = Rows::default();
        let unsure = Row { peer: None, peer_name: None, ratio: None, met: None, ..row("unsure") };
        rows.replace(What::Change, vec![row("sure"), unsure]);
        rows.write(&path).expect("write");
        assert_eq!(Rows::read(&path).expect("read"), rows);
        fs::write(&path, "{}").expect("write");
        assert!(Rows::read(&path).is_err());
    }
}
