//! The report of `preflight` as a table and as records.

use std::fmt::Write as _;

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::{Look, View};
use crate::preflight::{Level, Line, NodeReport, Report};
use crate::units;

impl View for Report {
    fn table(&self, _: &Look) -> String {
        let columns = ["NODE", "ABOUT", "STATE", "FOUND", "MEANS"].map(Column::Text);
        let rows = self.lines().into_iter().map(|(node, line)| {
            vec![
                node.unwrap_or(UNKNOWN).to_owned(),
                line.about.to_owned(),
                format!("{:?}", line.level),
                line.found.clone(),
                line.means.clone(),
            ]
        });
        let mut text = Grid::new(columns.to_vec(), rows.collect()).text();
        text.push_str("\nOn every node (overlay placement):\n");
        for line in self.overlay {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str(&mends(&self.lines()));
        let _ = writeln!(text, "\n{}", told(self.level));
        text
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(&self.lines(), &(None, &Line::default()), |(node, line)| {
            let mut fields = Fields::default();
            fields.maybe("node", *node);
            fields.put("about", line.about);
            fields.put("level", format!("{:?}", line.level));
            fields.put("found", &line.found);
            fields.put("means", &line.means);
            fields.maybe("mend", line.mend.as_ref());
            fields
        })
    }
}

impl Report {
    /// Every line, with its node; the cluster's first.
    fn lines(&self) -> Vec<(Option<&str>, &Line)> {
        let cluster = self.cluster.iter().map(|line| (None, line));
        cluster.chain(self.nodes.iter().flat_map(lines_of)).collect()
    }
}

fn lines_of(node: &NodeReport) -> Vec<(Option<&str>, &Line)> {
    node.lines.iter().map(|line| (Some(node.name.as_str()), line)).collect()
}

/// Each mend once, with whom it would mend.
fn mends(lines: &[(Option<&str>, &Line)]) -> String {
    let mut mends: Vec<(&str, Vec<String>)> = Vec::new();
    for (node, line) in lines {
        let Some(mend) = &line.mend else { continue };
        let whose = match node {
            Some(node) => format!("{node} ({})", line.about),
            None => line.about.to_owned(),
        };
        match mends.iter_mut().find(|(known, _)| *known == mend.as_str()) {
            Some((_, who)) if who.contains(&whose) => {}
            Some((_, who)) => who.push(whose),
            None => mends.push((mend, vec![whose])),
        }
    }
    let mut text = String::new();
    for (mend, who) in mends {
        let _ = writeln!(text, "\nTo mend {}:", units::plain(&who.join(", ")));
        for line in mend.lines() {
            let _ = writeln!(text, "  {}", units::plain(line));
        }
    }
    text
}

fn told(level: Level) -> &'static str {
    match level {
        Level::Good | Level::Note => "Everything that overlay placement offers will be enforced.",
        Level::NotEnforced => "It can be installed; something will not be enforced: see above.",
        Level::CannotInstall => "It cannot be installed everywhere: see above.",
    }
}
