//! The root, the virtual clusters' directories below it, and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulkhead_core::{CgroupId, Control, ControlValue, ObservedCgroup, VirtualClusterName};
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

use super::dir::CgroupDir;
use super::error::{CgroupError, Operation, ShapeError};
use super::leaves::{self, Leaf};
use super::removal::remove_below;
use super::{control, parse};

/// Inode number, and cgroup id, of the root of the whole hierarchy.
pub(super) const HIERARCHY_ROOT: CgroupId = CgroupId(1);
/// Deeper than any real hierarchy (cgroup.max.depth of ours is single-digit).
const DEEPEST: u32 = 64;
/// The cgroup in which systemd keeps the process of a delegated unit (see `delegate`): not ours,
/// and no name of a virtual cluster.
pub const HOLDER: &str = "Holder";
const POLL: Duration = Duration::from_millis(5);

/// Our part of the cgroup v2 hierarchy.
#[derive(Debug)]
pub struct CgroupTree {
    root: CgroupDir,
    level: u32,
    page_bytes: u64,
    next_leaf: AtomicU64,
}

/// Everything below the root, as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeObservation {
    /// The virtual clusters' cgroups.
    pub cgroups: BTreeMap<VirtualClusterName, ObservedCgroup>,
    /// Their leaves.
    pub leaves: BTreeMap<VirtualClusterName, Vec<Leaf>>,
    /// Directories whose names are no names of virtual clusters: not ours, left alone.
    pub unknown: Vec<String>,
}

impl CgroupTree {
    /// Opens a root that is there.
    pub fn open(root: &Path) -> Result<Self, CgroupError> {
        Self::at(CgroupDir::open(root)?)
    }

    /// Opens a root, and creates it where it is not there; the directory above must be.
    pub fn create(root: &Path) -> Result<Self, CgroupError> {
        let bad = || CgroupError::BadPath { path: root.to_owned() };
        let name = root.file_name().and_then(|name| name.to_str()).ok_or_else(bad)?;
        let parent = CgroupDir::open(root.parent().ok_or_else(bad)?)?;
        parent.create_child(name)?;
        Self::at(parent.child(name)?)
    }

    fn at(root: CgroupDir) -> Result<Self, CgroupError> {
        let level = level_of(&root)?;
        // Linux never fails to tell its page size; 4 KiB is the least it has.
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let page_bytes = page.and_then(|page| u64::try_from(page).ok()).unwrap_or(4_096);
        Ok(Self { root, level, page_bytes, next_leaf: AtomicU64::new(0) })
    }

    /// The root's path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The root's cgroup id.
    pub fn id(&self) -> Result<CgroupId, CgroupError> {
        self.root.id()
    }

    /// Whether the root was removed, or removed and made again, since it was opened: then it has
    /// to be made, opened and enabled anew, and programs have to be attached again.
    pub fn is_replaced(&self) -> Result<bool, CgroupError> {
        match unless_removed(CgroupDir::open(self.path()))? {
            Some(now) => Ok(now.id()? != self.id()?),
            None => Ok(true),
        }
    }

    /// How deep the virtual clusters' directories are below the root of the whole hierarchy,
    /// which is 0: what the kernel programs take for the ancestor level.
    pub const fn virtual_cluster_level(&self) -> u32 {
        self.level + 1
    }

    /// The names of the files in the root: what its children will have, too.
    pub fn control_files(&self) -> Result<BTreeSet<String>, CgroupError> {
        self.root.files()
    }

    /// Creates a virtual cluster's directory, or finds it, and gives its incarnation.
    pub fn create_virtual_cluster(
        &self,
        name: &VirtualClusterName,
    ) -> Result<CgroupId, CgroupError> {
        self.root.create_child(name.as_str())?;
        self.root.child(name.as_str())?.id()
    }

    /// Writes a control of a virtual cluster and reads it back.
    pub fn write(
        &self,
        name: &VirtualClusterName,
        control: Control,
        value: &ControlValue,
    ) -> Result<(), CgroupError> {
        control::write(&self.virtual_cluster(name)?, control, value, self.page_bytes)
    }

    /// What a control of a virtual cluster holds; `None`: its file is not there.
    pub fn read(
        &self,
        name: &VirtualClusterName,
        control: Control,
    ) -> Result<Option<ControlValue>, CgroupError> {
        control::read(&self.virtual_cluster(name)?, control)
    }

    /// How many tasks a virtual cluster has; `None`: the pids controller is not enabled.
    pub fn tasks(&self, name: &VirtualClusterName) -> Result<Option<u64>, CgroupError> {
        const FILE: &str = "pids.current";
        let dir = self.virtual_cluster(name)?;
        let Some(text) = dir.read_if_there(FILE)? else {
            return Ok(None);
        };
        parse::single(&text).map(Some).map_err(|source| shape(&dir, FILE, source))
    }

    /// Freezes or thaws all processes of a virtual cluster, and waits until they are.
    pub fn set_frozen(
        &self,
        name: &VirtualClusterName,
        frozen: bool,
        patience: Duration,
    ) -> Result<(), CgroupError> {
        let dir = self.virtual_cluster(name)?;
        dir.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let state = if frozen { "frozen" } else { "thawed" };
        wait(&dir, state, patience, |events| events.frozen == Some(frozen))
    }

    /// Reads everything below the root. What is removed meanwhile is left out.
    pub fn observe(&self) -> Result<TreeObservation, CgroupError> {
        let mut seen = TreeObservation::default();
        for child in self.root.children()? {
            let Ok(name) = child.name.parse::<VirtualClusterName>() else {
                if child.name != HOLDER {
                    seen.unknown.push(child.name);
                }
                continue;
            };
            let Some((cgroup, leaves)) = unless_removed(self.observe_one(&name))? else {
                continue;
            };
            seen.cgroups.insert(name.clone(), cgroup);
            seen.leaves.insert(name, leaves);
        }
        Ok(seen)
    }

    pub(super) fn observe_one(
        &self,
        name: &VirtualClusterName,
    ) -> Result<(ObservedCgroup, Vec<Leaf>), CgroupError> {
        let dir = self.root.child(name.as_str())?;
        let mut controls = BTreeMap::new();
        for control in Control::ALL {
            if let Some(value) = control::read(&dir, control)? {
                controls.insert(control, value);
            }
        }
        let populated = events(&dir)?.populated;
        Ok((ObservedCgroup { id: dir.id()?, controls, populated }, leaves::list(&dir)?))
    }

    /// Creates a leaf of a name that no other has, in a virtual cluster that is there.
    pub fn create_leaf(&self, name: &VirtualClusterName) -> Result<CgroupDir, CgroupError> {
        let dir = self.virtual_cluster(name)?;
        loop {
            let number = self.next_leaf.fetch_add(1, Ordering::Relaxed);
            let leaf = format!("{}{}-{number}", leaves::PREFIX, std::process::id());
            if dir.create_child(&leaf)? {
                return dir.child(&leaf);
            }
        }
    }

    /// Removes a leaf; false: it is not empty, and stays.
    pub fn remove_leaf(&self, name: &VirtualClusterName, leaf: &str) -> Result<bool, CgroupError> {
        let dir = self.virtual_cluster(name)?;
        match remove_below(&dir, leaf) {
            Ok(_) => Ok(true),
            Err(
                CgroupError::Populated { .. } | CgroupError::System { errno: Errno::EBUSY, .. },
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn root(&self) -> &CgroupDir {
        &self.root
    }

    pub(super) fn virtual_cluster(
        &self,
        name: &VirtualClusterName,
    ) -> Result<CgroupDir, CgroupError> {
        match self.root.child(name.as_str()) {
            Err(CgroupError::System {
                operation: Operation::Open, errno: Errno::ENOENT, ..
            }) => {
                let root = self.path().to_owned();
                Err(CgroupError::UnknownVirtualCluster { name: name.clone(), root })
            }
            other => other,
        }
    }
}

/// The root's descriptor, for attaching programs to it.
impl AsFd for CgroupTree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// `None` where a cgroup was removed while it was read.
pub(super) fn unless_removed<T>(result: Result<T, CgroupError>) -> Result<Option<T>, CgroupError> {
    match result {
        Err(CgroupError::System { errno: Errno::ENOENT | Errno::ENODEV, .. }) => Ok(None),
        other => other.map(Some),
    }
}

pub(super) fn events(dir: &CgroupDir) -> Result<parse::Events, CgroupError> {
    let text = dir.read("cgroup.events")?;
    parse::events(&text).map_err(|source| shape(dir, "cgroup.events", source))
}

pub(super) fn shape(dir: &CgroupDir, file: &str, source: ShapeError) -> CgroupError {
    CgroupError::Shape { path: dir.path().join(file), source }
}

/// Steps up to the root of the whole hierarchy. Its id is known, so a mount or a namespace that
/// shows only a part of it is found out.
pub(super) fn level_of(root: &CgroupDir) -> Result<u32, CgroupError> {
    let part = || CgroupError::PartOfHierarchy { path: root.path().to_owned() };
    if root.id()? == HIERARCHY_ROOT {
        return Ok(0);
    }
    let mut here = root.parent()?.ok_or_else(part)?;
    for level in 1..=DEEPEST {
        if here.id()? == HIERARCHY_ROOT {
            return Ok(level);
        }
        here = here.parent()?.ok_or_else(part)?;
    }
    Err(part())
}

pub(super) fn wait(
    dir: &CgroupDir,
    state: &'static str,
    patience: Duration,
    reached: impl Fn(parse::Events) -> bool,
) -> Result<(), CgroupError> {
    let start = Instant::now();
    while !reached(events(dir)?) {
        if start.elapsed() > patience {
            let milliseconds = patience.as_millis();
            return Err(CgroupError::Timeout { path: dir.path().to_owned(), state, milliseconds });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
