//! What runs in the lab's virtual machine, in one boot: kernel tests, the demo, the sabotages that
//! this machine cannot show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kernel::{self, KernelTests, OPTIONS};
use super::must_run::{self, Name};
use super::shown;
use super::summary::{Summary, Tally};
use crate::demo::artifacts::Artifacts;
use crate::demo::place::Place;
use crate::demo::programs::{self, Programs};
use crate::kernels::{self, Answers};
use crate::lab::{self, Guest, LabRun};

/// What the machine runs.
const SCRIPT: &str = include_str!("in_vm.sh");

/// When the machine is ended, whatever it does.
const TIMEOUT: Duration = Duration::from_mins(40);

/// What runs in one node of the lab.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    /// The node.
    pub(super) guest: Guest,
    /// The kernel tests that must run there.
    pub(super) wanted: &'a BTreeSet<Name>,
    /// Whether the demo and its sabotages do.
    pub(super) shows: bool,
}

/// How a stage in the machine went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ran {
    status: u8,
    took: Duration,
}

/// Runs all of it, and notes each part as a stage of its own.
pub(super) fn run(
    artifacts: &Artifacts,
    tests: &KernelTests,
    plan: &Plan<'_>,
    logs: &Path,
    summary: &mut Summary,
) {
    let Plan { guest, wanted, shows } = *plan;
    let payload = logs.join(format!("vm-{guest}-payload"));
    let results = logs.join(format!("vm-{guest}"));
    let what = format!("virtual machine {guest}, all that follows");
    let Some(outcome) = summary.value(&what, || {
        prepare(artifacts, tests, plan, &payload)?;
        if results.exists() {
            fs::remove_dir_all(&results).context("clear the results of the last run")?;
        }
        let outcome = lab::boot_and_run(&LabRun {
            guest,
            payload: &payload,
            command: &["sh", "./in_vm.sh"].map(str::to_owned),
            results: &results,
            timeout: TIMEOUT,
            memory_mib: LabRun::MEMORY_MIB,
        });
        // What was done until it died is judged all the same.
        Ok(outcome.map_err(|error| format!("{error:#}")))
    }) else {
        return;
    };
    let on = match outcome {
        Ok(outcome) => {
            eprintln!("  it was up after {:.1} s", outcome.boot.as_secs_f64());
            format!("vm (kernel {})", outcome.kernel)
        }
        Err(error) => {
            let tally = Tally { passed: 0, problems: vec![error] };
            summary.note(&format!("virtual machine {guest}"), None, tally, Duration::ZERO);
            format!("vm (kernel {guest})")
        }
    };
    let ran = ran(&fs::read_to_string(results.join("stages")).unwrap_or_default());
    let answers = fs::read_to_string(results.join("features.json"))
        .context("the probe of features left no answer")
        .and_then(|text| kernel::features(&Answers::of_probe(&text)?, true))
        .map(Option::unwrap_or_default);
    let tally = answers.unwrap_or_else(|error| Tally {
        passed: 0,
        problems: vec![format!("what the kernel can do: {error:#}")],
    });
    summary.note("what this kernel can do", Some(&on), tally, took(&ran, "features"));
    kernel_tests(tests, wanted, &results, (&on, &ran), summary);
    if !shows {
        return;
    }
    for (name, what) in [("demo", "demo"), ("sabotages", "sabotages of the limits half")] {
        let tally = report(&results, name, &ran).unwrap_or_else(|error| Tally {
            passed: 0,
            problems: vec![format!("{what}: {error:#}")],
        });
        summary.note(what, Some(&on), tally, took(&ran, name));
    }
}

/// Puts programs, test programs, the names of their tests and the script into a directory.
fn prepare(
    artifacts: &Artifacts,
    tests: &KernelTests,
    plan: &Plan<'_>,
    payload: &Path,
) -> Result<()> {
    Programs::of(artifacts)?.install(payload)?;
    let names = payload.join("names");
    fs::create_dir(&names).context("create the directory of names")?;
    for (target, path, tests) in tests.work(plan.wanted) {
        programs::install(path, &payload.join(target))?;
        fs::write(names.join(target), tests.join("\n") + "\n").context("write names of tests")?;
    }
    let patience = Place::Vm.patience_seconds().to_string();
    let script = SCRIPT
        .replace("@ASK@", &kernels::ASK.join(" "))
        .replace("@OPTIONS@", &OPTIONS.join(" "))
        .replace("@SHOWS@", if plan.shows { "yes" } else { "no" })
        .replace("@PATIENCE@", &patience);
    fs::write(payload.join("in_vm.sh"), script).context("write the script")
}

/// Lines `NAME STATUS SECONDS`, written after each stage.
fn ran(stages: &str) -> BTreeMap<String, Ran> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (name, status, seconds) = (words.next()?, words.next()?, words.next()?);
        let took = Duration::from_secs(seconds.parse().ok()?);
        Some((name.to_owned(), Ran { status: status.parse().ok()?, took }))
    };
    stages.lines().filter_map(parse).collect()
}

fn took(ran: &BTreeMap<String, Ran>, name: &str) -> Duration {
    ran.get(name).map_or(Duration::ZERO, |ran| ran.took)
}

fn kernel_tests(
    tests: &KernelTests,
    wanted: &BTreeSet<Name>,
    results: &Path,
    (on, ran): (&str, &BTreeMap<String, Ran>),
    summary: &mut Summary,
) {
    let mut verdicts = BTreeMap::new();
    let mut all = Duration::ZERO;
    for (target, _, _) in tests.work(wanted) {
        // Without a log nothing has run, which is what the judgement then says.
        verdicts.extend(
            kernel::read(target, &results.join(format!("{target}.log"))).unwrap_or_default(),
        );
        all += took(ran, target);
    }
    let (passed, problems) = must_run::judge(wanted, &tests.names(), &verdicts);
    let problems = problems.iter().map(ToString::to_string).collect();
    summary.note("kernel tests", Some(on), Tally { passed, problems }, all);
}

/// What came of the demo or of its sabotages.
fn report(results: &Path, name: &str, ran: &BTreeMap<String, Ran>) -> Result<Tally> {
    let log = results.join(format!("{name}.log"));
    let Some(Ran { status, .. }) = ran.get(name) else {
        bail!("it did not come to its end; see {}", log.display());
    };
    shown::tally(name, &results.join(format!("{name}.json")), &log, *status == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_the_machine_are_read_line_by_line() {
        let ran = ran("kernel_bpf 0 12\ndemo 1 90\nbroken\nhalf 0");
        let expected = Ran { status: 1, took: Duration::from_secs(90) };
        assert_eq!(ran.get("demo"), Some(&expected));
        assert_eq!(ran.len(), 2);
    }
}
