//! `cargo xtask demo`: the whole system at work, here or in the lab's virtual machine.

pub(crate) mod alone;
pub(crate) mod artifacts;
pub(crate) mod place;
pub(crate) mod programs;
pub(crate) mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::command::Cmd;
use crate::lab::{self, Guest, LabRun};
use crate::paths;
use crate::setup::{self, Group};
use place::{Choice, Place};
use report::Report;

/// When the machine is ended in which the demo hangs.
const VM_TIMEOUT: Duration = Duration::from_mins(15);

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where it runs.
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    on: Choice,
    /// Break one thing on purpose; `list` shows what can be broken, and which check must then
    /// turn red.
    #[arg(long, value_name = "WHAT")]
    sabotage: Option<String>,
    /// Only the half that needs eBPF (network), or that needs the cgroup controllers (limits).
    #[arg(long, value_parser = ["network", "limits"], value_name = "HALF")]
    only: Option<String>,
    /// Copy the report there, besides target/demo/report.json.
    #[arg(long, value_name = "PATH")]
    keep_report: Option<PathBuf>,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.sabotage.as_deref() == Some("list") {
        return programs::list_sabotages();
    }
    let (place, why) = place::choose(args.on, args.only.as_deref() == Some("network"))?;
    eprintln!("The demo runs {}: {why}", place.told());
    let groups: &[Group] = match place {
        Place::Host => &[Group::Bpf, Group::Test],
        Place::Vm => &[Group::Bpf, Group::Test, Group::Lab],
    };
    setup::ensure(groups, args.yes)?;
    build_ebpf::run(&build_ebpf::Args::OURS)?;
    let dir = paths::target().join("demo");
    let _alone = alone::alone(&dir)?;
    let payload = dir.join("payload");
    programs::build(&dir.join("build.log"))?.install(&payload)?;

    let report = dir.join("report.json");
    // One of an earlier run would be taken for this one's.
    remove_if_there(&report)?;
    let arguments = arguments(args, place);
    match place {
        Place::Host => on_host(&payload, &arguments, &report)?,
        Place::Vm => in_vm(&payload, &arguments, &dir.join("results"), &report)?,
    }
    if let Some(keep) = &args.keep_report {
        fs::copy(&report, keep)
            .with_context(|| format!("copy the report to {}", keep.display()))?;
    }
    eprintln!("Report: {}", report.display());
    Report::read(&report)?.verdict()
}

fn arguments(args: &Args, place: Place) -> Vec<String> {
    let mut words = vec!["--on".to_owned(), place.name().to_owned()];
    words.extend(["--patience".to_owned(), place.patience_seconds().to_string()]);
    for (flag, value) in [("--sabotage", &args.sabotage), ("--only", &args.only)] {
        words.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
    }
    words
}

/// The demo's own status is in the report too; without a report it has failed before it began.
fn on_host(payload: &Path, arguments: &[String], report: &Path) -> Result<()> {
    let program = payload.join("bh-demo");
    let program = program.to_str().context("the target directory's path is not UTF-8")?;
    let mut demo = Cmd::privileged(program, "run the demo")?.args(arguments);
    demo = demo.arg("--report").arg(report);
    let status = demo.into_command().status().context("start bh-demo")?;
    if !report.exists() {
        bail!("the demo ended with {status} before it had a report; what it printed says why");
    }
    Ok(())
}

fn in_vm(payload: &Path, arguments: &[String], results: &Path, report: &Path) -> Result<()> {
    if results.exists() {
        fs::remove_dir_all(results).context("clear the last demo's results")?;
    }
    let mut command = vec!["./bh-demo".to_owned()];
    command.extend(arguments.iter().cloned());
    command.extend(["--report", "/results/report.json"].map(str::to_owned));
    let outcome = lab::boot_and_run(&LabRun {
        guest: Guest::Usual,
        payload,
        command: &command,
        results,
        timeout: VM_TIMEOUT,
        memory_mib: LabRun::MEMORY_MIB,
    })?;
    let there = results.join("report.json");
    if !there.exists() {
        let code = outcome.exit_code;
        bail!("the demo ended with status {code} before it had a report; what it printed says why");
    }
    fs::copy(&there, report).context("take the report out of the results")?;
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
