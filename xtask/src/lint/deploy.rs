//! Checks of `deploy/`: the chart and the manifests say the same, Kubernetes would take them, and
//! the admission policies decide what they promise.
//!
//! The work is done by `deploy.py`: Helm, the schemas and the policies' language all come as
//! Python packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Verdict;
use crate::command::{Cmd, find};
use crate::paths;
use crate::setup::{self, Group};

/// The chart says what the base and the admission policies say.
pub(super) fn chart() -> Result<Verdict> {
    check("chart", None)
}

/// kubectl renders every kustomization, and the chart says the same with the right values.
pub(super) fn overlays() -> Result<Verdict> {
    match kubectl()? {
        Some(kubectl) => check("overlays", Some(kubectl)),
        None => Ok(Verdict::LeftOut(
            "there is no kubectl, neither the machine's nor the one that `cargo xtask lab up` \
             builds"
                .to_owned(),
        )),
    }
}

/// Every object is as the schemas of an old and a new Kubernetes have it.
pub(super) fn schemas() -> Result<Verdict> {
    check("schemas", None)
}

/// The admission policies decide cases as they should.
pub(super) fn admission() -> Result<Verdict> {
    check("admission", None)
}

fn check(name: &str, kubectl: Option<PathBuf>) -> Result<Verdict> {
    // Nothing of the machine changes by this, so nobody is asked.
    if let Err(error) = setup::ensure(&[Group::Deploy], true) {
        let error = format!("{error:#}");
        let reason = error.trim_end().lines().last().unwrap_or_default().trim();
        return Ok(Verdict::LeftOut(format!("its tools cannot be had here ({reason})")));
    }
    let problems = Cmd::new("python3", format!("check deploy/: {name}"))
        .arg("xtask/src/lint/deploy.py")
        .arg(name)
        .arg(paths::root())
        .args(kubectl)
        .env("PYTHONPATH", setup::modules(setup::DEPLOY_MODULES)?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .read()?;
    if problems.is_empty() {
        return Ok(Verdict::Passed);
    }
    bail!("{}", problems.trim_end().replace('\n', "\n    "))
}

/// The lab's kubectl, which is the oldest that must render this, or else the machine's.
fn kubectl() -> Result<Option<PathBuf>> {
    let cache = paths::cache()?;
    if !cache.is_dir() {
        return Ok(find("kubectl"));
    }
    let listed = fs::read_dir(&cache).with_context(|| format!("list {}", cache.display()))?;
    let of_lab = listed
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kubernetes-"))
        .map(|entry| entry.path().join("kubectl"))
        .find(|kubectl| kubectl.is_file());
    Ok(of_lab.or_else(|| find("kubectl")))
}
