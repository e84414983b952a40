//! The programs of the demo in one directory, as they go to another machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::artifacts::{self, Artifacts};
use crate::build_ebpf;
use crate::command::{Cmd, find};

/// What the demo runs.
pub(crate) const PROGRAMS: [&str; 6] =
    ["bulkhead-agent", "bulkhead-controller", "bulkheadctl", "bh-traffic", "bh-load", "bh-demo"];

/// Built programs.
pub(crate) struct Programs(BTreeMap<&'static str, PathBuf>);

/// Builds the programs of the demo, and no tests.
pub(crate) fn build(log: &Path) -> Result<Programs> {
    let packages = ["bulkhead-agent", "bulkhead-controller", "bulkheadctl", "bulkhead-tests"];
    let mut arguments = vec!["--bins"];
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    Programs::of(&artifacts::build("Building the programs", &arguments, log)?)
}

/// Shows what can be broken.
pub(crate) fn list_sabotages() -> Result<()> {
    Cmd::new("cargo", "list what can be broken")
        .args(["run", "--quiet", "--locked", "--package", "bulkhead-tests", "--bin", "bh-demo"])
        .args(["--", "--sabotage", "list"])
        .show()
}

impl Programs {
    /// Those among what was built.
    pub(crate) fn of(artifacts: &Artifacts) -> Result<Self> {
        let find = |name: &'static str| {
            let path = artifacts.programs.get(name);
            let path = path.with_context(|| format!("cargo has not built the program {name}"))?;
            Ok((name, path.clone()))
        };
        Ok(Self(PROGRAMS.into_iter().map(find).collect::<Result<_>>()?))
    }

    /// Puts them into an empty directory, with the kernel programs.
    pub(crate) fn install(&self, dir: &Path) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("clear {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        for (name, path) in &self.0 {
            install(path, &dir.join(name))?;
        }
        let object = build_ebpf::object_path();
        fs::copy(&object, dir.join("bulkhead.bpf.o"))
            .with_context(|| format!("copy {}", object.display()))?;
        Ok(())
    }
}

/// Copies a program without its debug information, which nobody reads there; as it is where
/// nothing can strip it.
pub(crate) fn install(from: &Path, to: &Path) -> Result<()> {
    if find("strip").is_some() {
        let strip = Cmd::new("strip", "make a program smaller").arg("--strip-debug").arg("-o");
        return strip.arg(to).arg(from).read().map(drop);
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
