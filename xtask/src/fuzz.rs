//! `cargo xtask fuzz`: arbitrary input, led by coverage, for everything that reads what others
//! wrote. The targets are in `tests/fuzz`.
//!
//! The instrumentation is LLVM's, switched on by flags that a stable compiler has; libFuzzer,
//! which reads it, comes from a crate and needs a C++ compiler. Inputs come from the committed
//! seeds (`corpus/`), from inputs that once broke something (`regressions/`, always run), and
//! from what earlier runs in this target directory found to reach new code.

mod crash;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::paths;
use crate::setup::{self, Group};
use crate::test::stage::{self, Output};
use run::{Begin, Outcome, Place};

/// Seconds for each target where nothing else is said.
const SHORT_SECONDS: u64 = 5;
/// Of the build, cold on a slow machine.
const BUILD_TIMEOUT: Duration = Duration::from_mins(15);

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these targets; all of them when none is named.
    targets: Vec<String>,
    /// For how long to run each target.
    #[arg(long, default_value_t = SHORT_SECONDS, conflicts_with = "input")]
    seconds: u64,
    /// Run one target with this input, once, and show what comes of it.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Group::Test], args.yes)?;
    let logs = paths::target().join("fuzz/logs");
    let targets = chosen(&args.targets)?;
    if let Some(input) = &args.input {
        let [target] = targets.as_slice() else {
            bail!("an input belongs to one target: `cargo xtask fuzz TARGET --input FILE`");
        };
        let input = std::path::absolute(input).context("the input's path")?;
        build(&logs)?;
        return run::once(&Place::make(&logs, Begin::Afresh)?, target, &input);
    }
    build(&logs)?;
    let place = Place::make(&logs, Begin::WhereTheLastEnded)?;
    let outcomes = each(&targets, args.seconds, &place)?;
    print!("{}", run::table(&outcomes));
    let failed = outcomes.iter().filter(|outcome| outcome.problem.is_some()).count();
    if failed == 0 {
        return Ok(());
    }
    bail!("{failed} of {} targets found something", outcomes.len())
}

/// All targets for a short time: how many found nothing, and what the others found.
pub(crate) fn short(logs: &Path) -> Result<(usize, Vec<String>)> {
    build(logs)?;
    let outcomes = each(&all()?, SHORT_SECONDS, &Place::make(logs, Begin::Afresh)?)?;
    eprint!("{}", run::table(&outcomes));
    let total = outcomes.len();
    let problems: Vec<String> = outcomes.into_iter().filter_map(|it| it.problem).collect();
    Ok((total - problems.len(), problems))
}

/// Where the targets are.
fn home() -> PathBuf {
    paths::root().join("tests/fuzz")
}

/// Every target, by name.
fn all() -> Result<Vec<String>> {
    let dir = home().join("targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn chosen(names: &[String]) -> Result<Vec<String>> {
    let all = all()?;
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no target \"{unknown}\"; there is {}", all.join(", "));
    }
    Ok(if names.is_empty() { all } else { names.to_vec() })
}

/// Each target on a processor of its own.
fn each(targets: &[String], seconds: u64, place: &Place) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(targets.iter());
    let done = Mutex::new(Vec::new());
    let next = || waiting.lock().ok()?.next();
    let work = || -> Result<()> {
        while let Some(target) = next() {
            let outcome = run::explore(place, target, seconds)?;
            done.lock()
                .map_err(|_| anyhow::anyhow!("another target's thread ended"))?
                .push(outcome);
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a thread ended early"))??;
        }
        Ok(())
    })?;
    let mut outcomes = done.into_inner().context("a thread ended early")?;
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(outcomes)
}

/// Builds all targets.
fn build(logs: &Path) -> Result<()> {
    let cargo = Cmd::new("cargo", "build the fuzz targets")
        .args(["build", "--locked", "--bins", "--target", &host()?, "--target-dir"])
        .arg(built())
        .dir(home())
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    let log = logs.join("fuzz-build.log");
    stage::run("Building the fuzz targets", cargo, BUILD_TIMEOUT, Output::together(&log))?.success()
}

/// Coverage by edges and by what is compared: what `cargo fuzz build --sanitizer none` sets.
/// A target is named to cargo, so that build scripts and macros are compiled without.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

fn built() -> PathBuf {
    paths::target().join("fuzz/build")
}

/// The program of a target.
fn program(target: &str) -> Result<PathBuf> {
    Ok(built().join(host()?).join("debug").join(target))
}

/// The kind of machine that rustc builds for here.
fn host() -> Result<String> {
    let told =
        Cmd::new("rustc", "learn for what it builds").args(["--print", "host-tuple"]).read()?;
    Ok(told.trim().to_owned())
}
