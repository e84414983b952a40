//! `cargo xtask test`: everything that this kind of machine must run, each stage with its time.

pub(crate) mod faults;
mod kernel;
mod kubernetes;
mod libtest;
mod must_run;
mod shown;
pub(crate) mod stage;
mod summary;
mod vm;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::codegen;
use crate::command::Cmd;
use crate::demo::alone;
use crate::demo::artifacts::{self, Artifacts};
use crate::demo::place;
use crate::fuzz;
use crate::lab::Guest;
use crate::paths;
use crate::setup::{self, Group};
use kernel::KernelTests;
use must_run::Lists;
use stage::Output;
use summary::{Summary, Tally};

/// Turns on the tests that need a kernel; everywhere the same, so that nothing is built twice.
const FEATURES: [&str; 2] = [
    "--features",
    "bulkhead-tests/kernel,bulkhead-agent/fault-points,bulkhead-controller/fault-points,\
     bulkhead-controller/kube-tests",
];

/// What needs neither a kernel of a certain kind nor a Kubernetes.
const UNITS: &str = "not (package(bulkhead-tests) and binary(/^kernel_/)) \
                     and not (package(bulkhead-controller) and binary(kubernetes))";

/// Limits of stages.
const UNIT_TIMEOUT: Duration = Duration::from_mins(10);
const DOC_TIMEOUT: Duration = Duration::from_mins(10);

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs the virtual machine: its kernel tests, the demo, every sabotage.
    #[arg(long)]
    quick: bool,
    /// How many of the fault histories.
    #[arg(long, value_enum, default_value_t = faults::Extent::Short)]
    faults: faults::Extent,
    /// Which kernels the virtual machines have.
    #[arg(long, value_enum, default_value = "usual", conflicts_with = "quick")]
    kernels: Kernels,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Sets of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kernels {
    /// Those of Debian's releases: 6.1 and 6.12.
    Usual,
    /// Also Debian's next, which changes daily.
    All,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let _alone = alone::alone(&logs())?;
    let mut summary = Summary::begin();
    let groups: &[Group] = if args.quick {
        &[Group::Bpf, Group::Test]
    } else {
        &[Group::Bpf, Group::Test, Group::Lab, Group::Kubernetes]
    };
    if summary.step("setup", || setup::ensure(groups, args.yes))
        && summary.step("build-ebpf", || build_ebpf::run(&build_ebpf::Args::OURS))
        && let Some(artifacts) = summary.value("build", build)
    {
        run_all(args, &artifacts, &mut summary);
    }
    print!("{}", summary.table());
    println!("{}", summary.last_line());
    if summary.is_good() {
        return Ok(());
    }
    bail!("not all is well; the logs are in {}", logs().display())
}

/// Every stage runs, also after one has failed: one round shows all there is to mend.
fn run_all(args: &Args, artifacts: &Artifacts, summary: &mut Summary) {
    let host = host();
    summary.step("generated files", || codegen::run(&codegen::Args::CHECK));
    summary.stage("unit and property tests", &host, unit);
    let skipped = skipped_units();
    if skipped > 0 {
        summary
            .leave_out(skipped, "measurements among the unit tests, run by hand (docs/scale.md)");
    }
    summary.stage("examples in the documentation", &host, documentation);
    summary.stage("fuzzing", &host, || {
        fuzz::short(&logs()).map(|(passed, problems)| Tally { passed, problems })
    });
    let Some((tests, lists)) = summary.value("lists of what must run", || {
        let (tests, lists) = (KernelTests::of(artifacts)?, Lists::read()?);
        Ok((tests, lists))
    }) else {
        return;
    };
    let unlisted = lists.unlisted(&tests.names());
    if !unlisted.is_empty() {
        let tally =
            Tally { passed: 0, problems: unlisted.iter().map(ToString::to_string).collect() };
        summary.stage("tests that no list names", &host, || Ok(tally));
    }
    summary.stage("kernel tests", &host, || {
        let hybrid = place::lacking()?.is_some();
        tests.run_here(&lists.on_host(hybrid), &logs())
    });
    let mut is_known = true;
    summary.stage("what this kernel can do", &host, || {
        let compared = kernel::features_here(artifacts)?;
        is_known = compared.is_some();
        Ok(compared.unwrap_or_default())
    });
    if !is_known {
        summary.leave_out(1, "comparison with docs/kernels, which has no such kernel");
    }
    if args.quick {
        summary.leave_out(lists.vm.len(), "kernel tests in the virtual machine (--quick)");
        summary.leave_out(lists.oldest.len(), "kernel tests on kernel 6.1 (--quick)");
        summary.leave_out(2, "the demo and its sabotages (--quick)");
        summary.leave_out(1, "the fault histories (--quick)");
        summary.leave_out(1, "the tests on a Kubernetes (--quick)");
        return;
    }
    shown::here(artifacts, &logs(), &host, summary);
    faults::run(artifacts, args.faults, &logs(), &host, summary);
    let oldest = vm::Plan { guest: Guest::Oldest, wanted: &lists.oldest, shows: false };
    let usual = vm::Plan { guest: Guest::Usual, wanted: &lists.vm, shows: true };
    let newest = vm::Plan { guest: Guest::Newest, ..usual };
    let plans: &[vm::Plan<'_>] = match args.kernels {
        Kernels::Usual => &[oldest, usual],
        Kernels::All => &[oldest, usual, newest],
    };
    for plan in plans {
        vm::run(artifacts, &tests, plan, &logs(), summary);
    }
    kubernetes::run(artifacts, args.faults, &logs(), &host, summary);
}

/// Where logs go.
fn logs() -> PathBuf {
    paths::target().join("test")
}

/// This machine, as the summary names it.
fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("host (kernel {})", kernel.trim())
}

/// Everything at once: programs, tests, what they need.
fn build() -> Result<Artifacts> {
    let mut arguments = vec!["--workspace", "--all-targets"];
    arguments.extend(FEATURES);
    artifacts::build("Building programs and tests", &arguments, &logs().join("build.log"))
}

/// What needs no privilege, no kernel of a certain kind, no network.
fn unit() -> Result<Tally> {
    let log = logs().join("unit.log");
    let nextest = Cmd::tool("cargo-nextest", "run the tests")?
        .args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
        .args(FEATURES)
        .args(["--filterset", UNITS]);
    let output = Output::together(&log);
    let finished = stage::run("Running unit and property tests", nextest, UNIT_TIMEOUT, output)?;
    nextest_tally(finished, &log)
}

/// Tests that are marked as ignored, in the last run of [`unit`]; 0 where it left no summary,
/// which has been told as a failure.
fn skipped_units() -> usize {
    let text = fs::read_to_string(logs().join("unit.log")).unwrap_or_default();
    libtest::nextest_totals(&text).map_or(0, |[_, _, skipped]| skipped)
}

/// What nextest says in its log.
fn nextest_tally(finished: stage::Finished, log: &std::path::Path) -> Result<Tally> {
    let text = fs::read_to_string(log).context("read the log of the tests")?;
    let Some([passed, failed, _]) = libtest::nextest_totals(&text) else {
        return Err(finished.success().err().unwrap_or_else(|| no_summary(log)));
    };
    let mut problems = failures(&text);
    // Told apart from failing tests: nothing may get lost between the two.
    if failed > problems.len() || (failed == 0 && !finished.is_success()) {
        problems.push(finished.told().to_owned());
    }
    Ok(Tally { passed, problems })
}

/// Names in nextest's lines `FAIL [ 0.1s] package test` of its closing list.
fn failures(text: &str) -> Vec<String> {
    let summary = text.rfind("Summary [").unwrap_or(0);
    let bad = ["FAIL ", "TIMEOUT ", "SIG", "ABORT ", "XFAIL "];
    text[summary..]
        .lines()
        .map(str::trim_start)
        .filter(|line| bad.iter().any(|word| line.starts_with(word)))
        .filter_map(|line| Some(format!("{} failed", line.split_once(']')?.1.trim())))
        .collect()
}

fn documentation() -> Result<Tally> {
    let log = logs().join("doc.log");
    let cargo = Cmd::new("cargo", "run the examples in the documentation")
        .args(["test", "--doc", "--workspace", "--locked", "--no-fail-fast"])
        .args(FEATURES);
    let what = "Running the examples in the documentation";
    let finished = stage::run(what, cargo, DOC_TIMEOUT, Output::together(&log))?;
    let text = fs::read_to_string(&log).context("read the log of the examples")?;
    let [passed, failed, _] = libtest::totals(&text);
    let problems = if finished.is_success() && failed == 0 {
        Vec::new()
    } else {
        vec![finished.told().to_owned()]
    };
    Ok(Tally { passed, problems })
}

fn no_summary(log: &std::path::Path) -> anyhow::Error {
    anyhow::anyhow!("the tests ended well without a summary; see {}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named_from_the_closing_list() {
        let text = "        FAIL [   0.01s] pkg early\n     Summary [   0.1s] 3 tests run: 1 passed, \
                    2 failed, 0 skipped\n        FAIL [   0.005s] (2/3) pkg::bin tests::a\n     \
                    TIMEOUT [ 180.0s] pkg b\nerror: test run failed\n";
        assert_eq!(failures(text), ["(2/3) pkg::bin tests::a failed", "pkg b failed"]);
    }
}
