//! What came of the checks, for programs (JSON) and for people.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The report of one demo.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Every check was ok, and there was one.
    pub ok: bool,
    /// Where it ran: "host (kernel 6.18.1)".
    pub on: String,
    /// In the order in which they ran.
    pub checks: Vec<Outcome>,
    /// What this machine cannot show, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What was broken on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<String>,
}

/// What came of one check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What must be seen.
    pub expected: String,
    /// What was seen, with numbers.
    pub seen: String,
    /// Whether that is the same.
    pub ok: bool,
    /// How long the check took.
    pub milliseconds: u64,
}

/// What came of every sabotage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SabotageReport {
    /// Each turned exactly its own check red.
    pub ok: bool,
    /// Where it ran.
    pub on: String,
    /// In the order in which they ran.
    pub sabotages: Vec<SabotageOutcome>,
}

/// What came of one sabotage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SabotageOutcome {
    /// What was broken.
    pub name: String,
    /// The one check that must turn red.
    pub expected: String,
    /// The checks that did, each with what it saw.
    pub red: Vec<Outcome>,
    /// How many checks ran.
    pub ran: usize,
    /// Whether exactly the expected check turned red, and others were there to stay green.
    pub ok: bool,
}

impl Report {
    /// The report of these checks.
    pub fn new(on: String, checks: Vec<Outcome>, left_out: Vec<String>) -> Self {
        let ok = !checks.is_empty() && checks.iter().all(|check| check.ok);
        Self { ok, on, checks, left_out, sabotage: None }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("Demo on {}\n\n", self.on);
        for check in &self.checks {
            let mark = if check.ok { "ok " } else { "RED" };
            let seconds = tenths(check.milliseconds);
            let _ = writeln!(text, "{mark}  {}  ({seconds} s)", check.name);
            let _ = writeln!(text, "       expected  {}", check.expected);
            let _ = writeln!(text, "       seen      {}", check.seen);
        }
        for reason in &self.left_out {
            let _ = writeln!(text, "left out: {reason}");
        }
        let red = self.red().count();
        let green = self.checks.len() - red;
        let _ = writeln!(text, "\n{green} of {} checks ok", self.checks.len());
        text
    }

    /// The checks that are not ok.
    pub fn red(&self) -> impl Iterator<Item = &Outcome> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

impl SabotageOutcome {
    /// Judges the report of a demo in which `name` was broken, which must show in `expected`.
    pub fn judge(name: &str, expected: &str, report: &Report) -> Self {
        let red: Vec<Outcome> = report.red().cloned().collect();
        let exactly = red.len() == 1 && red[0].name == expected;
        Self {
            name: name.to_owned(),
            expected: expected.to_owned(),
            ok: exactly && report.checks.len() > 1,
            red,
            ran: report.checks.len(),
        }
    }

    /// One line for people, and one for each check that turned red.
    pub fn lines(&self) -> String {
        let mark = if self.ok { "ok " } else { "BAD" };
        let names: Vec<&str> = self.red.iter().map(|check| check.name.as_str()).collect();
        let red = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let mut text = format!(
            "{mark}  {}: must turn {} red; of {} checks turned red: {red}",
            self.name, self.expected, self.ran
        );
        for check in &self.red {
            let _ = write!(text, "\n       {} saw  {}", check.name, check.seen);
        }
        text
    }
}

impl SabotageReport {
    /// The report of these sabotages.
    pub fn new(on: String, sabotages: Vec<SabotageOutcome>) -> Self {
        let ok = !sabotages.is_empty() && sabotages.iter().all(|sabotage| sabotage.ok);
        Self { ok, on, sabotages }
    }
}

/// Milliseconds as seconds with one decimal.
fn tenths(milliseconds: u64) -> String {
    format!("{}.{}", milliseconds / 1000, milliseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, ok: bool) -> Outcome {
        Outcome {
            name: name.to_owned(),
            expected: "1".to_owned(),
            seen: "2".to_owned(),
            ok,
            milliseconds: 1_250,
        }
    }

    fn report(checks: &[(&str, bool)]) -> Report {
        let checks = checks.iter().map(|(name, ok)| outcome(name, *ok)).collect();
        Report::new("host".to_owned(), checks, vec![])
    }

    #[test]
    fn a_report_without_checks_is_not_ok() {
        assert!(!report(&[]).ok);
        assert!(report(&[("a", true)]).ok);
        assert!(!report(&[("a", true), ("b", false)]).ok);
    }

    #[test]
    fn a_sabotage_must_turn_exactly_its_check_red() {
        let judge = |checks: &[(&str, bool)]| SabotageOutcome::judge("s", "a", &report(checks)).ok;
        assert!(judge(&[("a", false), ("b", true)]));
        assert!(!judge(&[("a", true), ("b", true)]));
        assert!(!judge(&[("a", false), ("b", false)]));
        assert!(!judge(&[("a", true), ("b", false)]));
        // Alone it proves nothing: everything may be red.
        assert!(!judge(&[("a", false)]));
    }

    #[test]
    fn the_json_has_the_promised_fields_and_comes_back() {
        let report = report(&[("a", true)]);
        let json = serde_json::to_value(&report).expect("serializes");
        assert_eq!(json["ok"], true);
        assert_eq!(json["on"], "host");
        assert_eq!(json["checks"][0]["expected"], "1");
        assert_eq!(json["checks"][0]["seen"], "2");
        assert_eq!(serde_json::from_value::<Report>(json).expect("deserializes"), report);
    }

    #[test]
    fn the_table_names_what_is_red() {
        let table = report(&[("a", true), ("b", false)]).table();
        assert!(table.contains("ok   a  (1.2 s)"), "{table}");
        assert!(table.contains("RED  b"), "{table}");
        assert!(table.contains("1 of 2 checks ok"), "{table}");
    }
}
