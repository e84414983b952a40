//! `cargo xtask bench`: what Bulkhead costs, each time beside a peer in the same run.
//!
//! The measuring is done by `bh-bench` (package bulkhead-tests), one subcommand for each kind of
//! thing; here it is built, run where it belongs, and its rows are collected.

mod format;
mod page;
mod rows;
mod run;
mod what;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::command::Cmd;
use crate::demo::alone;
use crate::demo::artifacts;
use crate::demo::programs;
use crate::paths;
use crate::setup::{self, Group};
use rows::{Row, Rows};
use what::{Place, What};

/// The page that a whole run writes anew.
const PAGE: &str = "docs/benchmarks.md";

/// What goes into the payload, besides the kernel programs.
const PROGRAMS: [&str; 3] = ["bh-bench", "bulkhead-agent", "bulkhead-controller"];

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these; all of them when none is named. What was measured of the others stays in the
    /// report.
    #[arg(value_enum)]
    what: Vec<What>,
    /// A few rounds of each, to see that it works; the page is left alone.
    #[arg(long)]
    quick: bool,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Runs the verb. Only what could not be measured is an error; a missed goal is in the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let whats = chosen(&args.what);
    let mut groups = vec![Group::Bpf, Group::Bench];
    if whats.iter().any(|what| what.place() == Place::Vm) {
        groups.push(Group::Lab);
    }
    setup::ensure(&groups, args.yes)?;
    build_ebpf::run(&build_ebpf::Args::OURS)?;
    let dir = paths::target().join("bench");
    let _alone = alone::alone(&dir)?;
    let payload = build(&dir)?;

    let commit = commit();
    let report = dir.join(if args.quick { "quick.json" } else { "report.json" });
    let mut all = Rows::read(&report)?;
    let mut failed = Vec::new();
    for what in &whats {
        match run::measure(*what, args.quick, &payload, &dir) {
            Ok(rows) => {
                let stamped = rows.into_iter().map(|row| Row { commit: commit.clone(), ..row });
                all.replace(*what, stamped.collect());
            }
            Err(error) => {
                eprintln!("FAILED {}: {error:#}", what.name());
                all.replace(*what, Vec::new());
                failed.push(what.name());
            }
        }
        // What is measured is kept, whatever the next one does.
        all.write(&report)?;
    }
    print!("{}", format::table(&all));
    eprintln!("Report: {}", report.display());
    if !args.quick {
        let page = paths::root().join(PAGE);
        fs::write(&page, page::render(&all))
            .with_context(|| format!("write {}", page.display()))?;
        eprintln!("Page: {}", page.display());
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not measured: {}; the logs are in {}", failed.join(", "), dir.display())
}

/// What is measured: the commit, and whether the tree differs from it.
fn commit() -> String {
    let describe = Cmd::new("git", "say what is measured");
    match describe.args(["describe", "--always", "--dirty"]).read() {
        Ok(told) => told.trim().to_owned(),
        Err(error) => {
            eprintln!("  The commit is not told: {error:#}");
            rows::UNKNOWN.to_owned()
        }
    }
}

/// Each once, in the order of the table.
fn chosen(named: &[What]) -> Vec<What> {
    let is_chosen = |what: &What| named.is_empty() || named.contains(what);
    What::ALL.into_iter().filter(is_chosen).collect()
}

/// Builds everything as it is released, and puts it into one directory.
fn build(dir: &Path) -> Result<PathBuf> {
    let mut arguments = vec!["--release"];
    arguments.extend(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    let packages = ["bulkhead-agent", "bulkhead-controller", "bulkhead-tests"];
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    let what = "Building the programs as they are released";
    let artifacts = artifacts::build(what, &arguments, &dir.join("build.log"))?;
    let payload = dir.join("payload");
    if payload.exists() {
        fs::remove_dir_all(&payload).with_context(|| format!("clear {}", payload.display()))?;
    }
    fs::create_dir_all(&payload).with_context(|| format!("create {}", payload.display()))?;
    for name in PROGRAMS {
        let program = artifacts.programs.get(name);
        let program = program.with_context(|| format!("cargo has not built {name}"))?;
        programs::install(program, &payload.join(name))?;
    }
    let object = build_ebpf::object_path();
    fs::copy(&object, payload.join("bulkhead.bpf.o"))
        .with_context(|| format!("copy {}", object.display()))?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_everything_is_measured_and_each_only_once() {
        assert_eq!(chosen(&[]), What::ALL);
        assert_eq!(
            chosen(&[What::Verdict, What::Network, What::Verdict]),
            [What::Network, What::Verdict]
        );
    }
}
