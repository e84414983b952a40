//! Controllers are enabled one at a time, and every write is read back.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::Controller;

use super::dir::CgroupDir;
use super::error::CgroupError;
use super::tree::{CgroupTree, HIERARCHY_ROOT};

impl CgroupTree {
    /// Enables controllers for the virtual clusters, one at a time, each read back; gives those
    /// that could not be enabled, with the reason. Written are `cgroup.subtree_control` of the
    /// root and, where the root is directly below the top of the hierarchy, of that top, because
    /// without it the root has no controllers to give. Nothing is ever disabled.
    pub fn enable(&self, wanted: &BTreeSet<Controller>) -> BTreeMap<Controller, String> {
        let results = wanted.iter().map(|wanted| (*wanted, self.enable_one(*wanted)));
        results.filter_map(|(wanted, result)| Some((wanted, result.err()?))).collect()
    }

    fn enable_one(&self, wanted: Controller) -> Result<(), String> {
        let failed = |error: CgroupError| format!("{wanted}: {}", chain(&error));
        if !has(self.root(), "cgroup.controllers", wanted).map_err(failed)? {
            let parent = self.root().parent().map_err(failed)?;
            let Some(parent) = parent else {
                return Err(format!("{wanted}: the directory above our root is no cgroup"));
            };
            let missing = |dir: &CgroupDir| {
                let path = dir.path().display();
                format!("{wanted}: controller is not in cgroup.controllers of {path}")
            };
            if !has(&parent, "cgroup.controllers", wanted).map_err(failed)? {
                return Err(missing(&parent));
            }
            if parent.id().map_err(failed)? != HIERARCHY_ROOT {
                let above = parent.path().display();
                return Err(format!(
                    "{}; whoever owns {above} has to enable it in its cgroup.subtree_control",
                    missing(self.root())
                ));
            }
            enable_in(&parent, wanted).map_err(failed)?;
        }
        enable_in(self.root(), wanted).map_err(failed)
    }
}

fn has(dir: &CgroupDir, file: &str, wanted: Controller) -> Result<bool, CgroupError> {
    Ok(dir.read(file)?.split_ascii_whitespace().any(|name| name == wanted.name()))
}

fn enable_in(dir: &CgroupDir, wanted: Controller) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.subtree_control";
    if has(dir, FILE, wanted)? {
        return Ok(());
    }
    let wrote = format!("+{wanted}");
    dir.write(FILE, &wrote)?;
    if has(dir, FILE, wanted)? {
        return Ok(());
    }
    let reads = dir.read(FILE)?.trim_end().to_owned();
    Err(CgroupError::ReadBack { path: dir.path().join(FILE), wrote, reads })
}

/// An error with its sources, for a reason that people read.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
