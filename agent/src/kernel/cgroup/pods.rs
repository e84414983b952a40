//! The kubelet's cgroups of pods: looked at, registered, counted, and never written to.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use bulkhead_core::inventory::children_to_list;
use bulkhead_core::{CgroupId, Pod, PodCgroup, PodPath};

use super::dir::CgroupDir;
use super::error::CgroupError;
use super::sample::{Listing, Place};
use super::tree::{level_of, unless_removed};

/// The kubelet's root: what it calls "kubepods".
#[derive(Debug)]
pub struct PodTree {
    root: CgroupDir,
    level: u32,
}

impl PodTree {
    /// Names of the root below the mount of cgroup v2, with systemd and without.
    pub const NAMES: [&str; 2] = ["kubepods.slice", "kubepods"];

    /// Opens it.
    pub fn open(root: &Path) -> Result<Self, CgroupError> {
        let root = CgroupDir::open(root)?;
        Ok(Self { level: level_of(&root)?, root })
    }

    /// Where it is below a mount, if it is there.
    pub fn find(mount: &Path) -> Option<PathBuf> {
        Self::NAMES.into_iter().map(|name| mount.join(name)).find(|path| path.is_dir())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// How deep pods are below the root of the whole hierarchy, which is 0: guaranteed ones, and
    /// all others.
    pub const fn pod_levels(&self) -> [u32; 2] {
        [self.level + 1, self.level + 2]
    }

    /// Whether the root was removed, or removed and made again, since it was opened.
    pub fn is_replaced(&self) -> Result<bool, CgroupError> {
        match unless_removed(CgroupDir::open(self.path()))? {
            Some(now) => Ok(now.id()? != self.root.id()?),
            None => Ok(true),
        }
    }

    /// Every pod's cgroup.
    pub fn pods(&self) -> Result<BTreeMap<CgroupId, PodPath>, CgroupError> {
        let mut pods = BTreeMap::new();
        let children = self.root.children()?;
        for child in &children {
            pods.extend(PodPath::from_relative(&child.name).ok().map(|path| (child.id, path)));
        }
        for class in children_to_list(children.iter().map(|child| child.name.as_str())) {
            let below = unless_removed(self.root.child(class).and_then(|dir| dir.children()))?;
            for child in below.into_iter().flatten() {
                let path = PodPath::from_relative(&format!("{class}/{}", child.name)).ok();
                pods.extend(path.map(|path| (child.id, path)));
            }
        }
        Ok(pods)
    }

    /// A pod's cgroup, where the runtime says that it is or, where it does not, by its name.
    /// `None`: it is not there.
    pub fn pod(&self, pod: &Pod) -> Result<Option<PodCgroup>, CgroupError> {
        if let Some(path) = &pod.cgroup {
            let id = unless_removed(self.root.child(path.relative()).and_then(|dir| dir.id()))?;
            return Ok(id.map(|id| PodCgroup { path: path.clone(), id }));
        }
        let mut pods = self.pods()?.into_iter();
        let found = pods.find(|(_, path)| *path.uid() == pod.uid);
        Ok(found.map(|(id, path)| PodCgroup { path, id }))
    }
}

/// The root's descriptor, for the iterator.
impl AsFd for PodTree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Those pods that are counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// All pods.
    pub tree: &'a PodTree,
    /// Which of them.
    pub ids: &'a BTreeSet<CgroupId>,
}

impl Place for Counted<'_> {
    type Key = PodCgroup;

    fn root(&self) -> &CgroupDir {
        &self.tree.root
    }

    fn list(&self) -> Result<Listing<PodCgroup>, CgroupError> {
        let pods = self.tree.pods()?.into_iter().filter(|(id, _)| self.ids.contains(id));
        let sampled = pods.map(|(id, path)| {
            let relative = path.relative().to_owned();
            (PodCgroup { path, id }, relative, id)
        });
        // Containers come and go below pods, and beside those that are counted are others.
        Ok(Listing { sampled: sampled.collect(), others: None })
    }
}
