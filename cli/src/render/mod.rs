//! From what was answered to text: pure functions of the answer, the format and the time.

#[cfg(feature = "kubernetes")]
mod changes;
mod csv;
#[cfg(test)]
#[path = "../../tests/operators/fixture.rs"]
mod fixture;
mod grid;
mod nodes;
#[cfg(feature = "kubernetes")]
mod preflight;
#[cfg(test)]
mod tests;
mod top;
mod usage;
mod virtual_clusters;

use jiff::{Timestamp, Zoned};
use serde::Serialize;

pub(crate) use self::csv::Sheet;
pub(crate) use self::virtual_clusters::WatchTable;
use crate::args::Output;
use crate::error::{CliError, Kind};
use crate::units;

/// How a table looks.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// The time, in the zone in which times are shown.
    pub(crate) now: Zoned,
    /// More columns, and reasons in full.
    pub(crate) wide: bool,
    /// Objects were named: everything about them below the table.
    pub(crate) details: bool,
}

impl Look {
    /// A moment in the local zone, to the second.
    fn local(&self, at: Timestamp) -> String {
        let zoned = at.to_zoned(self.now.time_zone().clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// How long ago a moment was; of the future: no time.
    fn age(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(
            || grid::UNKNOWN.to_owned(),
            |at| {
                let seconds = self.now.timestamp().duration_since(at).as_secs();
                units::age(u64::try_from(seconds).unwrap_or(0))
            },
        )
    }

    /// Name of the local zone.
    fn zone(&self) -> String {
        let zone = self.now.time_zone();
        zone.iana_name().map_or_else(|| self.now.offset().to_string(), ToOwned::to_owned)
    }
}

/// An answer that every format can show.
pub(crate) trait View: Serialize {
    /// For people.
    fn table(&self, look: &Look) -> String;
    /// For spreadsheets.
    fn sheet(&self) -> Sheet;
}

/// The whole answer as one document.
pub(crate) fn document(view: &impl View, output: Output, look: &Look) -> Result<String, CliError> {
    match output {
        Output::Table | Output::Wide => Ok(view.table(look)),
        Output::Json => json(serde_json::to_string_pretty(view)),
        Output::Yaml => yaml(view),
        Output::Csv => view.sheet().text(true),
    }
}

/// One piece of an answer that goes on: a line of JSON, a YAML document, records of CSV under the
/// header of the first piece.
pub(crate) fn piece(
    view: &impl View,
    output: Output,
    look: &Look,
    first: bool,
) -> Result<String, CliError> {
    match output {
        Output::Table | Output::Wide => Ok(view.table(look)),
        Output::Json => json(serde_json::to_string(view)),
        Output::Yaml => yaml(view).map(|document| format!("---\n{document}")),
        Output::Csv => view.sheet().text(first),
    }
}

fn json(written: serde_json::Result<String>) -> Result<String, CliError> {
    let mut text = written.map_err(|error| CliError::new(Kind::Output, "write JSON", error))?;
    text.push('\n');
    Ok(text)
}

fn yaml(view: &impl Serialize) -> Result<String, CliError> {
    let written = serde_saphyr::to_string(view);
    let mut text = written.map_err(|error| CliError::new(Kind::Output, "write YAML", error))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
