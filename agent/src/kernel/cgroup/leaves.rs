//! Leaves: the directories in which a virtual cluster's processes live. One is made for each
//! `exec`, which removes it at the end; what it had to leave behind (a process that went to the
//! background) is removed here once it is empty.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_core::CgroupId;

use super::dir::CgroupDir;
use super::error::CgroupError;
use super::tree::{CgroupTree, TreeObservation, events, unless_removed};

/// Beginning of the names of leaves that `exec` makes.
pub(super) const PREFIX: &str = "exec-";

/// A directory in a virtual cluster's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leaf {
    /// Its name.
    pub name: String,
    /// Its cgroup's id.
    pub id: CgroupId,
    /// Whether any process lives in it or below.
    pub populated: bool,
}

pub(super) fn list(virtual_cluster: &CgroupDir) -> Result<Vec<Leaf>, CgroupError> {
    let mut leaves = Vec::new();
    for child in virtual_cluster.children()? {
        let populated = virtual_cluster.child(&child.name).and_then(|dir| events(&dir));
        if let Some(events) = unless_removed(populated)? {
            leaves.push(Leaf { name: child.name, id: child.id, populated: events.populated });
        }
    }
    Ok(leaves)
}

/// Remembers since when leaves have been empty: a leaf is empty for a moment between its making
/// and its first process, too.
#[derive(Debug, Default)]
pub struct EmptyLeaves {
    since: BTreeMap<CgroupId, Duration>,
}

impl EmptyLeaves {
    /// Removes leaves of `exec` that were seen empty for `grace`, and gives their paths. `now` is
    /// any clock that never steps.
    pub fn sweep(
        &mut self,
        tree: &CgroupTree,
        seen: &TreeObservation,
        now: Duration,
        grace: Duration,
    ) -> Result<Vec<String>, CgroupError> {
        let mut since = BTreeMap::new();
        let mut removed = Vec::new();
        for (name, leaves) in &seen.leaves {
            let of_exec = |leaf: &&Leaf| leaf.name.starts_with(PREFIX) && !leaf.populated;
            for leaf in leaves.iter().filter(of_exec) {
                let first = self.since.get(&leaf.id).copied().unwrap_or(now);
                if now.saturating_sub(first) < grace {
                    since.insert(leaf.id, first);
                } else if unless_removed(tree.remove_leaf(name, &leaf.name))? == Some(true) {
                    removed.push(format!("{name}/{}", leaf.name));
                }
            }
        }
        self.since = since;
        Ok(removed)
    }
}
