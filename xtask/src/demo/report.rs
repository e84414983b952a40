//! What the demo reports, as far as it is judged here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A report: of a demo, or of sabotages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// Where it ran.
    pub(crate) on: String,
    /// Names of what is well.
    pub(crate) good: Vec<String>,
    /// Names of what is not, with what was seen.
    pub(crate) bad: Vec<(String, String)>,
    ok: bool,
}

impl Report {
    /// Reads it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no report", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let parts = value["checks"].as_array().or(value["sabotages"].as_array());
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for part in parts.context("it has neither checks nor sabotages")? {
            let name = part["name"].as_str().context("one has no name")?.to_owned();
            if part["ok"].as_bool().context("one has no verdict")? {
                good.push(name);
            } else {
                bad.push((name, seen(part)));
            }
        }
        let on = value["on"].as_str().context("it does not say where it ran")?.to_owned();
        let ok = value["ok"].as_bool().context("it has no verdict")?;
        Ok(Self { on, good, bad, ok })
    }

    /// An error unless all is well. Its own word alone is not believed, nor is an empty report.
    pub(crate) fn verdict(&self) -> Result<()> {
        if self.ok && self.bad.is_empty() && !self.good.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.bad.iter().map(|(name, _)| name.as_str()).collect();
        let all = self.good.len() + self.bad.len();
        bail!("{} of {all} checks are red: {}", self.bad.len(), names.join(", "))
    }
}

/// What a check saw, or what a sabotage turned red.
fn seen(part: &Value) -> String {
    if let Some(seen) = part["seen"].as_str() {
        return seen.to_owned();
    }
    let red = part["red"].as_array().cloned().unwrap_or_default();
    let names: Vec<String> = red
        .iter()
        .map(|check| format!("{} ({})", text(&check["name"]), text(&check["seen"])))
        .collect();
    let expected = text(&part["expected"]);
    format!("turned red: {}; must be {expected} alone, of several", names.join("; "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Report {
        Report::parse(text).expect("is a report")
    }

    #[test]
    fn a_report_is_good_only_with_good_checks() {
        let good = parse(r#"{"ok":true,"on":"vm","checks":[{"name":"a","seen":"1","ok":true}]}"#);
        assert!(good.verdict().is_ok());
        assert!(parse(r#"{"ok":true,"on":"vm","checks":[]}"#).verdict().is_err());
        let lies = r#"{"ok":true,"on":"vm","checks":[{"name":"a","seen":"1","ok":false}]}"#;
        let error = parse(lies).verdict().expect_err("a is red").to_string();
        assert_eq!(error, "1 of 1 checks are red: a");
        assert!(Report::parse(r#"{"ok":true}"#).is_err());
        assert!(Report::parse("").is_err());
    }

    #[test]
    fn a_bad_sabotage_says_what_turned_red_instead() {
        let text = r#"{"ok":false,"on":"vm","sabotages":[
            {"name":"s","expected":"a","ok":false,"red":[{"name":"b","seen":"7"}]}]}"#;
        let report = parse(text);
        assert_eq!(report.bad[0].1, "turned red: b (7); must be a alone, of several");
    }
}
