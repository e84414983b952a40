//! Fault histories: the real programs on this kernel, killed, starved and lied to, under traffic.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::shown;
use super::stage::{self, Output};
use super::summary::{Summary, Tally};
use crate::build_ebpf;
use crate::command::Cmd;
use crate::demo::artifacts::{self, Artifacts};
use crate::demo::place::Place;
use crate::demo::programs::{self, Programs};

/// The program that runs them.
const PROGRAM: &str = "bh-faults";
/// How many histories of the simulated protocol the full extent has.
const LONG_SIMULATION: &str = "4000";
/// The one of which there are two versions.
const AGENT: &str = "bulkhead-agent";

/// How much of what takes long: of the fault histories, and of the checks on a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Extent {
    /// A dozen kills, some fault points, the quick faults: three minutes. On a cluster, what every
    /// run has time for.
    Short,
    /// At least fifty kills, every fault point, every fault, and sabotages that must turn red. On a
    /// cluster, every check, with as many pods as it is meant for.
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
        let what = format!("simulation of the protocol, {LONG_SIMULATION} seeds");
        summary.stage(&what, on, || simulation(logs));
        summary.stage("sabotages of fault histories", on, || {
            histories("faults-sabotages", extent.limit(), (&dir, logs), &["--all-sabotages"])
        });
    }
}

/// The same histories as among the unit tests, and many more.
fn simulation(logs: &Path) -> Result<Tally> {
    let log = logs.join("simulation.log");
    let nextest = Cmd::tool("cargo-nextest", "simulate the protocol")?
        .args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
        .args(super::FEATURES)
        .args(["--filterset", "package(bulkhead-tests) and binary(simulation)"])
        .env("BULKHEAD_SIM_SEEDS", LONG_SIMULATION);
    let output = Output::together(&log);
    let finished = stage::run("Simulating the protocol", nextest, Extent::Full.limit(), output)?;
    super::nextest_tally(finished, &log)
}

fn install(artifacts: &Artifacts, dir: &Path) -> Result<()> {
    Programs::of(artifacts)?.install(dir)?;
    let program = artifacts.programs.get(PROGRAM);
    let program = program.with_context(|| format!("cargo has not built {PROGRAM}"))?;
    programs::install(program, &dir.join(PROGRAM))?;
    install_next(artifacts, dir)
}

/// An agent of another ABI version beside ours, to which histories upgrade.
fn install_next(artifacts: &Artifacts, dir: &Path) -> Result<()> {
    build_ebpf::run(&build_ebpf::Args::NEXT)?;
    let object = build_ebpf::next_object_path();
    fs::copy(&object, dir.join("bulkhead-next.bpf.o"))
        .with_context(|| format!("copy {}", object.display()))?;
    let logs = super::logs();
    let features = format!("{},bulkhead-agent/next", super::FEATURES[1]);
    let build = |what: &str, features: &str, log: &str| {
        let arguments = ["--workspace", "--bin", AGENT, "--features", features];
        artifacts::build(what, &arguments, &logs.join(log))
    };
    let next = build("Building the agent of another version", &features, "build-next.log")?;
    let next = next.programs.get(AGENT).context("cargo has not built the agent")?;
    programs::install(next, &dir.join("bulkhead-agent-next"))?;
    // Cargo puts both where the same stages look for ours.
    let ours = build("Putting ours back", super::FEATURES[1], "build-ours.log")?;
    ensure!(ours.programs.get(AGENT) == artifacts.programs.get(AGENT), "ours is elsewhere now");
    Ok(())
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
