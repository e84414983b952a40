//! Changes of mode as tables and records.

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::{Look, View};
use crate::break_glass::{Off, Switched};
use crate::view::change::{Change, Changes, Outcome};

impl View for Changes {
    fn table(&self, _: &Look) -> String {
        let columns = ["NAME", "BEFORE", "MODE", "OUTCOME", "MESSAGE"].map(Column::Text);
        let row = |it: &Change| {
            vec![
                it.name.clone(),
                it.before.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
                it.mode.clone(),
                format!("{:?}", it.outcome),
                it.message.clone(),
            ]
        };
        Grid::new(columns.to_vec(), self.items.iter().map(row).collect()).text()
    }

    fn sheet(&self) -> Sheet {
        let empty = Change {
            name: String::new(),
            before: None,
            mode: String::new(),
            outcome: Outcome::Pending,
            message: String::new(),
            would_deny: None,
        };
        Sheet::new(&self.items, &empty, |it| {
            let flows = || it.would_deny.iter().flat_map(|found| found.flows.iter().flatten());
            let known = it.would_deny.as_ref().is_some_and(|found| found.flows.is_some());
            let mut fields = Fields::default();
            fields.put("name", &it.name);
            fields.maybe("before", it.before.as_ref());
            fields.put("mode", &it.mode);
            fields.put("outcome", format!("{:?}", it.outcome));
            fields.put("message", &it.message);
            let packets: u64 = flows().map(|flow| flow.would_deny_packets).sum();
            let connects: u64 = flows().map(|flow| flow.would_deny_connects).sum();
            fields.maybe("would_deny_packets", known.then_some(packets));
            fields.maybe("would_deny_connects", known.then_some(connects));
            fields.coverage("would_deny", it.would_deny.as_ref().map(|found| found.coverage));
            fields
        })
    }
}

impl View for Off {
    fn table(&self, _: &Look) -> String {
        self.told()
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(&self.virtual_clusters, &Switched::default(), |it| {
            let mut fields = Fields::default();
            fields.put("name", &it.name);
            fields.maybe("before", it.before.as_ref());
            fields.put("outcome", format!("{:?}", it.outcome));
            fields.put("message", &it.message);
            fields
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Zoned;
    use serde_json::Value;

    use super::*;
    use crate::args::Output;
    use crate::breakage::tests::known;
    use crate::render::document;

    fn changes() -> Changes {
        let change = |name: &str, outcome, message: &str, would_deny| Change {
            name: name.to_owned(),
            before: Some("Observe".to_owned()),
            mode: "Enforce".to_owned(),
            outcome,
            message: message.to_owned(),
            would_deny,
        };
        let items = vec![
            change("team-a", Outcome::Applied, "on all 2 nodes", Some(known(1_000))),
            change("team-b", Outcome::Pending, "AgentMissing: worker-2", None),
        ];
        Changes { items }
    }

    fn shown(output: Output) -> String {
        let look = Look { now: Zoned::default(), wide: false, details: false };
        document(&changes(), output, &look).expect("text")
    }

    #[test]
    fn changes_of_mode() {
        insta::assert_snapshot!("changes-table", shown(Output::Table));
        insta::assert_snapshot!("changes-csv", shown(Output::Csv));
        insta::assert_snapshot!("changes-json", shown(Output::Json));
    }

    #[test]
    fn what_was_not_asked_is_null_and_not_zero() {
        let value: Value = serde_json::from_str(&shown(Output::Json)).expect("JSON");
        assert_eq!(value["virtual_clusters"][1]["would_deny"], Value::Null);
    }
}
