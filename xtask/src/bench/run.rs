//! Running one subcommand where it belongs, and taking its rows.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::rows::{self, Row};
use super::what::{Place, What};
use crate::command::{Cmd, quoted};
use crate::lab::{self, Guest, LabRun};
use crate::test::stage::{self, Output};

/// Measures; what it says meanwhile goes into a log.
pub(super) fn measure(what: What, quick: bool, payload: &Path, dir: &Path) -> Result<Vec<Row>> {
    let name = what.name();
    let text = match what.place() {
        Place::Host => on_host(what, quick, payload, dir)?,
        Place::Vm => in_vm(what, quick, payload, &dir.join(format!("{name}-vm")))?,
    };
    let rows = parse(&text)?;
    ensure!(!rows.is_empty(), "bh-bench {name} has measured nothing");
    Ok(rows)
}

fn on_host(what: What, quick: bool, payload: &Path, dir: &Path) -> Result<String> {
    let name = what.name();
    let (out, log) = (dir.join(format!("{name}.rows")), dir.join(format!("{name}.log")));
    let (payload, dir) = (utf8(payload)?, utf8(dir)?);
    let cmd = Cmd::privileged(&format!("{payload}/bh-bench"), "measure")?;
    let cmd = cmd.args(what.arguments(quick, payload, dir));
    let output = Output { stdout: &out, stderr: &log };
    stage::run(&format!("Measuring {name}"), cmd, what.limit(), output)?.success()?;
    read(&out)
}

fn in_vm(what: What, quick: bool, payload: &Path, results: &Path) -> Result<String> {
    if results.exists() {
        fs::remove_dir_all(results).with_context(|| format!("clear {}", results.display()))?;
    }
    let words: Vec<String> =
        what.arguments(quick, "/payload", "/scratch").iter().map(|word| quoted(word)).collect();
    let line = format!("./bh-bench {} >/results/rows 2>/results/log", words.join(" "));
    eprintln!("  Measuring {} in the lab's virtual machine …", what.name());
    let outcome = lab::boot_and_run(&LabRun {
        guest: Guest::Usual,
        payload,
        command: &["sh", "-c", &line].map(str::to_owned),
        results,
        timeout: what.limit(),
        memory_mib: LabRun::MEMORY_MIB,
    })?;
    if outcome.exit_code != 0 {
        let log = fs::read_to_string(results.join("log")).unwrap_or_default();
        let last = log.lines().next_back().unwrap_or("it said nothing");
        bail!("bh-bench {} ended with status {}: {last}", what.name(), outcome.exit_code);
    }
    read(&results.join("rows"))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// One JSON object a line.
fn parse(text: &str) -> Result<Vec<Row>> {
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line)
                .with_context(|| format!("bh-bench printed no row: {line:?}"))?;
            rows::parse(&value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_row_is_an_error() {
        assert!(parse("").expect("no line, no row").is_empty());
        assert!(parse("hello").is_err());
        let error = parse(r#"{"name":"a"}"#).expect_err("has no unit").to_string();
        assert!(error.contains("unit"), "{error}");
    }
}
