//! The demo and its sabotages as tests: each check, and each sabotage, is one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::stage::{self, Output};
use super::summary::{Summary, Tally};
use crate::command::Cmd;
use crate::demo::artifacts::Artifacts;
use crate::demo::place::Place;
use crate::demo::programs::Programs;
use crate::demo::report::Report;

/// Limits of the half that needs no controllers, and of every sabotage of it.
const DEMO_TIMEOUT: Duration = Duration::from_mins(5);
const SABOTAGES_TIMEOUT: Duration = Duration::from_mins(10);

/// Runs the half that needs no controllers on this machine, then every sabotage of it: that is
/// quicker than in the virtual machine, and another kernel.
pub(super) fn here(artifacts: &Artifacts, logs: &Path, on: &str, summary: &mut Summary) {
    let dir = logs.join("host-payload");
    let install = || Programs::of(artifacts)?.install(&dir);
    if !summary.step("programs of the demo", install) {
        return;
    }
    let run = |name: &str, limit, arguments: &[&str]| -> Result<Tally> {
        let program = dir.join("bh-demo");
        let program = program.to_str().context("the target directory's path is not UTF-8")?;
        let (log, json) = (logs.join(format!("{name}.log")), logs.join(format!("{name}.json")));
        let patience = Place::Host.patience_seconds().to_string();
        let cmd = Cmd::privileged(program, "show and check what Bulkhead promises")?
            .args(["--only", "network", "--patience", &patience, "--report"])
            .arg(&json)
            .args(arguments);
        let what = format!("Running {name} on this kernel");
        let finished = stage::run(&what, cmd, limit, Output::together(&log))?;
        tally(name, &json, &log, finished.is_success())
    };
    summary.stage("demo, network half", on, || run("demo", DEMO_TIMEOUT, &[]));
    summary.stage("sabotages of the network half", on, || {
        run("sabotages", SABOTAGES_TIMEOUT, &["--all-sabotages"])
    });
}

/// What a report says; a status that says something else is a failure too.
pub(super) fn tally(name: &str, json: &Path, log: &Path, success: bool) -> Result<Tally> {
    let report = Report::read(json).with_context(|| format!("see {}", log.display()))?;
    if report.verdict().is_ok() != success {
        bail!("its exit status is not what its report says; see {}", log.display());
    }
    let problems = report.bad.iter().map(|(check, seen)| format!("{name}: {check}: {seen}"));
    Ok(Tally { passed: report.good.len(), problems: problems.collect() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_report_and_a_status_must_say_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let json = dir.path().join("demo.json");
        let write = |ok: bool| {
            let text = format!(
                r#"{{"ok":{ok},"on":"vm","checks":[{{"name":"a","seen":"1","ok":{ok}}}]}}"#
            );
            fs::write(&json, text).expect("writes");
        };
        let judge = |success| tally("demo", &json, Path::new("log"), success);
        assert!(judge(true).is_err(), "no report");
        write(true);
        assert_eq!(judge(true).expect("is good").passed, 1);
        assert!(judge(false).is_err());
        write(false);
        assert_eq!(judge(false).expect("is a report").problems, ["demo: a: 1"]);
        assert!(judge(true).is_err());
    }
}
