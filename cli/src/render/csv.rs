//! CSV: flat records, raw integers, the field names of JSON joined by `_`.

use std::fmt::Display;

use crate::error::{CliError, Kind};
use crate::view::Coverage;

/// A header and records.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    header: Vec<String>,
    records: Vec<Vec<String>>,
}

impl Sheet {
    /// One record for each of `items`; the names of `empty`'s fields are the header, also where
    /// there is no item.
    pub(crate) fn new<T>(items: &[T], empty: &T, fields: impl Fn(&T) -> Fields) -> Self {
        let values = |item| fields(item).0.into_iter().map(|(_, value)| value).collect();
        Self {
            header: fields(empty).0.into_iter().map(|(name, _)| name).collect(),
            records: items.iter().map(values).collect(),
        }
    }

    /// As text.
    pub(crate) fn text(&self, with_header: bool) -> Result<String, CliError> {
        let failed = |problem: String| CliError::new(Kind::Output, "write CSV", problem);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = with_header.then_some(&self.header);
        for record in header.into_iter().chain(&self.records) {
            writer.write_record(record).map_err(|error| failed(error.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
    }
}

/// Names and values of one record, in order.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// One field.
    pub(crate) fn put(&mut self, name: impl Into<String>, value: impl Display) {
        self.0.push((name.into(), value.to_string()));
    }

    /// One field, empty where there is nothing.
    pub(crate) fn maybe(&mut self, name: impl Into<String>, value: Option<impl Display>) {
        self.0.push((name.into(), value.map(|value| value.to_string()).unwrap_or_default()));
    }

    /// The fields of another record, after these.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// A meter: `NAME_FIELD` for each of its fields, and its coverage. All empty where the server
    /// does not have it.
    pub(crate) fn meter(
        &mut self,
        name: &str,
        known: bool,
        fields: &[(&'static str, u64)],
        coverage: Coverage,
    ) {
        for (field, value) in fields {
            self.maybe(format!("{name}_{field}"), known.then_some(value));
        }
        self.coverage(name, known.then_some(coverage));
    }

    /// `NAME_covered_nanoseconds` and `NAME_wanted_nanoseconds`.
    pub(crate) fn coverage(&mut self, name: &str, coverage: Option<Coverage>) {
        let covered = coverage.map(|coverage| coverage.covered_nanoseconds);
        let wanted = coverage.map(|coverage| coverage.wanted_nanoseconds);
        self.maybe(format!("{name}_covered_nanoseconds"), covered);
        self.maybe(format!("{name}_wanted_nanoseconds"), wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(items: &[&str]) -> Sheet {
        Sheet::new(items, &"", |item| {
            let mut fields = Fields::default();
            fields.put("name", item);
            fields.maybe("class", None::<u64>);
            fields
        })
    }

    #[test]
    fn the_header_stands_without_records_too() {
        assert_eq!(sheet(&[]).text(true).expect("text"), "name,class\n");
        assert_eq!(sheet(&[]).text(false).expect("text"), "");
    }

    #[test]
    fn commas_and_quotes_are_quoted() {
        assert_eq!(sheet(&["a,\"b\""]).text(false).expect("text"), "\"a,\"\"b\"\"\",\n");
    }
}
