//! Directories are removed only when no process lives in them.

use std::time::Duration;

use bulkhead_core::VirtualClusterName;

use super::dir::CgroupDir;
use super::error::CgroupError;
use super::tree::{CgroupTree, HOLDER, events, unless_removed, wait};

/// Roots whose processes may be killed: those that a test or a demo made for itself.
const DISPOSABLE: &[&str] = &["bulkhead-test-", "bulkhead-demo"];

impl CgroupTree {
    /// Removes a virtual cluster's directory with its empty leaves; false: it was not there.
    /// While a process lives in it, nothing is removed.
    pub fn remove_virtual_cluster(&self, name: &VirtualClusterName) -> Result<bool, CgroupError> {
        remove_below(self.root(), name.as_str())
    }

    /// Removes everything below the root. While a process lives in it, nothing is.
    pub fn remove_virtual_clusters(&self) -> Result<(), CgroupError> {
        let mut children = self.root().children()?;
        children.retain(|child| child.name != HOLDER);
        for child in &children {
            let populated = self.root().child(&child.name).and_then(|dir| events(&dir));
            if unless_removed(populated)?.is_some_and(|events| events.populated) {
                return Err(CgroupError::Populated { path: self.path().join(&child.name) });
            }
        }
        for child in children {
            remove_below(self.root(), &child.name)?;
        }
        Ok(())
    }

    /// Removes the root with everything below it. While a process lives in it, nothing is.
    pub fn remove(self) -> Result<(), CgroupError> {
        self.remove_root()
    }

    fn remove_root(&self) -> Result<(), CgroupError> {
        let bad = || CgroupError::BadPath { path: self.path().to_owned() };
        let name = self.path().file_name().and_then(|name| name.to_str()).ok_or_else(bad)?;
        let parent = self.root().parent()?.ok_or_else(bad)?;
        remove_below(&parent, name).map(drop)
    }

    /// Kills every process below the root and removes it. Refused for every root but those of
    /// tests and demos.
    pub fn kill_and_remove(self, patience: Duration) -> Result<(), CgroupError> {
        let name = self.path().file_name().map(|name| name.to_string_lossy().into_owned());
        if !name.is_some_and(|name| DISPOSABLE.iter().any(|prefix| name.starts_with(prefix))) {
            let path = self.path().to_owned();
            return Err(CgroupError::NotDisposable { path, prefixes: DISPOSABLE });
        }
        self.root().write("cgroup.kill", "1")?;
        wait(self.root(), "empty", patience, |events| !events.populated)?;
        self.remove_root()
    }
}

/// Removes a directory and the empty ones below it; false: it was not there.
pub(super) fn remove_below(parent: &CgroupDir, name: &str) -> Result<bool, CgroupError> {
    let Some(dir) = unless_removed(parent.child(name))? else {
        return Ok(false);
    };
    // Whoever ended in it may remove it at any moment (`exec` removes its leaf).
    let Some(events) = unless_removed(events(&dir))? else {
        return Ok(false);
    };
    if events.populated {
        return Err(CgroupError::Populated { path: dir.path().to_owned() });
    }
    for child in unless_removed(dir.children())?.unwrap_or_default() {
        remove_below(&dir, &child.name)?;
    }
    parent.remove_child(name)
}
