//! Tests that need a real kernel: the integration tests `kernel_*` of the package bulkhead-tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::libtest;
use super::must_run::{self, Name};
use super::stage::{self, Output};
use super::summary::Tally;
use crate::build_ebpf;
use crate::command::Cmd;
use crate::demo::artifacts::Artifacts;
use crate::kernels::{self, Answers};
use crate::paths;

/// Limit of one test program.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Options with which a test program runs what it is named and nothing else, one at a time.
pub(super) const OPTIONS: [&str; 4] = ["--exact", "--test-threads=1", "--format", "pretty"];

/// The test programs and their tests.
pub(super) struct KernelTests(BTreeMap<String, Program>);

struct Program {
    path: PathBuf,
    tests: BTreeSet<String>,
}

impl KernelTests {
    /// Asks each program for its tests.
    pub(super) fn of(artifacts: &Artifacts) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for (target, path) in &artifacts.kernel_tests {
            let list = Cmd::new(path, "list its tests").args(["--list", "--format", "terse"]);
            let tests = libtest::names(&list.read()?).into_iter().collect();
            programs.insert(target.clone(), Program { path: path.clone(), tests });
        }
        ensure!(!programs.is_empty(), "cargo has built no kernel tests");
        Ok(Self(programs))
    }

    /// Every test, as the lists name it.
    pub(super) fn names(&self) -> BTreeSet<Name> {
        let of = |(target, program): (&String, &Program)| {
            let full = |test: &String| format!("{target}::{test}");
            program.tests.iter().map(full).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Programs that have something to do, with the names that they know of it.
    pub(super) fn work<'a>(
        &'a self,
        wanted: &BTreeSet<Name>,
    ) -> impl Iterator<Item = (&'a str, &'a Path, Vec<&'a str>)> {
        self.0.iter().filter_map(move |(target, program)| {
            let is_wanted = |test: &&String| wanted.contains(&format!("{target}::{test}"));
            let tests: Vec<&str> =
                program.tests.iter().filter(is_wanted).map(String::as_str).collect();
            (!tests.is_empty()).then_some((target.as_str(), program.path.as_path(), tests))
        })
    }

    /// Runs tests on this machine, as root.
    pub(super) fn run_here(&self, wanted: &BTreeSet<Name>, logs: &Path) -> Result<Tally> {
        let mut verdicts = BTreeMap::new();
        for (target, path, tests) in self.work(wanted) {
            let object = format!("BULKHEAD_BPF_OBJECT={}", build_ebpf::object_path().display());
            // sudo would keep the variable from it.
            let cmd = Cmd::privileged("env", "run tests that need a kernel")?
                .arg(object)
                .arg(path)
                .args(OPTIONS)
                .args(tests)
                .dir(paths::root().join("tests"));
            let log = logs.join(format!("{target}.log"));
            let what = format!("Running {target} on this kernel");
            stage::run(&what, cmd, TIMEOUT, Output::together(&log))?;
            verdicts.extend(read(target, &log)?);
        }
        let (passed, problems) = must_run::judge(wanted, &self.names(), &verdicts);
        Ok(Tally { passed, problems: problems.iter().map(ToString::to_string).collect() })
    }
}

/// Compares what this machine's kernel can do with what is committed for it.
pub(super) fn features_here(artifacts: &Artifacts) -> Result<Option<Tally>> {
    let agent = artifacts.programs.get(kernels::AGENT);
    features(&kernels::ask_here(agent.context("cargo has built no bulkhead-agent")?)?, false)
}

/// Compares what a kernel answered with what is committed for it. For a kernel of the lab there
/// must be something; other machines have kernels that nobody has asked before: `None`.
pub(super) fn features(seen: &Answers, is_lab: bool) -> Result<Option<Tally>> {
    match kernels::compare(seen, is_lab)? {
        Some(problems) => Ok(Some(Tally { passed: usize::from(problems.is_empty()), problems })),
        None if is_lab => bail!("docs/kernels has no answers of kernel {}", seen.release),
        None => Ok(None),
    }
}

/// Verdicts in the log of a test program.
pub(super) fn read(target: &str, log: &Path) -> Result<BTreeMap<Name, libtest::Verdict>> {
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let verdicts = libtest::verdicts(&String::from_utf8_lossy(&text));
    let full = |(test, verdict)| (format!("{target}::{test}"), verdict);
    Ok(verdicts.into_iter().map(full).collect())
}
