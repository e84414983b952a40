//! What needs a real Kubernetes: the controller with an API server, and everything together on a
//! cluster of two nodes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::faults::Extent;
use super::stage::{self, Output};
use super::summary::{Summary, Tally};
use super::{FEATURES, nextest_tally};
use crate::cluster;
use crate::command::Cmd;
use crate::demo::artifacts::Artifacts;
use crate::lab::kubernetes;

/// Limit of the controller's tests.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Runs all of it, and notes each part as a stage of its own.
pub(super) fn run(
    artifacts: &Artifacts,
    extent: Extent,
    logs: &Path,
    host: &str,
    summary: &mut Summary,
) {
    let Some(programs) = summary.value("Kubernetes", kubernetes::programs) else {
        return;
    };
    summary.stage("the controller with an API server", host, || controller(&programs, logs));
    let mut left_out = 0;
    summary.stage("a cluster", "Kubernetes 1.20 in the lab", || {
        let dir = logs.join("cluster");
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let shown = cluster::run(artifacts, &dir, extent)?;
        left_out = shown.left_out;
        Ok(Tally {
            passed: shown.passed,
            problems: shown.failed.iter().map(|name| format!("cluster check {name}")).collect(),
        })
    });
    if left_out > 0 {
        summary.leave_out(left_out, "checks on a cluster that take long (--faults full)");
    }
}

fn controller(programs: &Path, logs: &Path) -> Result<Tally> {
    let log = logs.join("kubernetes.log");
    let nextest = Cmd::tool("cargo-nextest", "run the tests")?
        .args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
        .args(FEATURES)
        .args(["--filterset", "package(bulkhead-controller) and binary(kubernetes)"])
        .env("BULKHEAD_KUBERNETES_BINARIES", programs);
    let what = "Running the controller with an API server";
    let finished = stage::run(what, nextest, TIMEOUT, Output::together(&log))?;
    nextest_tally(finished, &log)
}
