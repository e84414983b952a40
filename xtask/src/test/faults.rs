//! Fault histories: the real programs on this kernel, killed, starved and lied to, under traffic.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::shown;
use super::stage::{self, Output};
use super::summary::{Summary, Tally};
use crate::command::Cmd;
use crate::demo::artifacts::Artifacts;
use crate::demo::place::Place;
use crate::demo::programs::{self, Programs};

/// The program that runs them.
const PROGRAM: &str = "bh-faults";

/// How much of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Extent {
    /// A dozen kills, some fault points, the quick faults: three minutes.
    Short,
    /// At least fifty kills, every fault point, every fault, and sabotages that must turn red.
    Full,
}

impl Extent {
    const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Full => "full",
        }
    }

    /// When it is given up.
    const fn limit(self) -> Duration {
        match self {
            Self::Short => Duration::from_mins(8),
            Self::Full => Duration::from_mins(30),
        }
    }
}

/// Runs them, and in full also what shows that they can fail.
pub(super) fn run(
    artifacts: &Artifacts,
    extent: Extent,
    logs: &Path,
    on: &str,
    summary: &mut Summary,
) {
    let dir = logs.join("faults-payload");
    if !summary.step("programs of the fault histories", || install(artifacts, &dir)) {
        return;
    }
    let what = format!("fault histories ({})", extent.name());
    summary
        .stage(&what, on, || histories("faults", extent.limit(), (&dir, logs), &[extent.name()]));
    if extent == Extent::Full {
        summary.stage("sabotages of fault histories", on, || {
            histories("faults-sabotages", extent.limit(), (&dir, logs), &["--all-sabotages"])
        });
    }
}

fn install(artifacts: &Artifacts, dir: &Path) -> Result<()> {
    Programs::of(artifacts)?.install(dir)?;
    let program = artifacts.programs.get(PROGRAM);
    let program = program.with_context(|| format!("cargo has not built {PROGRAM}"))?;
    programs::install(program, &dir.join(PROGRAM))
}

fn histories(
    name: &str,
    limit: Duration,
    (dir, logs): (&Path, &Path),
    arguments: &[&str],
) -> Result<Tally> {
    let program = dir.join(PROGRAM);
    let program = program.to_str().context("the target directory's path is not UTF-8")?;
    let (log, json) = (logs.join(format!("{name}.log")), logs.join(format!("{name}.json")));
    // One of an earlier run would be taken for this one's.
    if json.exists() {
        fs::remove_file(&json).with_context(|| format!("remove {}", json.display()))?;
    }
    let patience = Place::Host.patience_seconds().to_string();
    let cmd = Cmd::privileged(program, "let programs fail and check what they promise")?
        .args(arguments)
        .args(["--patience", &patience, "--report"])
        .arg(&json);
    let finished = stage::run(&format!("Running {name}"), cmd, limit, Output::together(&log))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    for line in text.lines().filter(|line| is_outcome(line)) {
        eprintln!("  {line}");
    }
    shown::tally(name, &json, &log, finished.is_success())
}

/// Whether a line says what came of a history.
fn is_outcome(line: &str) -> bool {
    line.starts_with("ok  ") || line.starts_with("RED  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outcomes_are_shown() {
        assert!(is_outcome("ok   kills (17 s, seed 1): 8 agents"));
        assert!(is_outcome("RED  kills (17 s, seed 1): NOT OK"));
        assert!(!is_outcome("  kills (seed 1) …"));
    }
}
