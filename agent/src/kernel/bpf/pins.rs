//! Where links and maps are pinned.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::error::BpfError;

/// Directory of pinned links.
pub(super) const LINKS: &str = "links";
/// Directory of pinned maps.
pub(super) const MAPS: &str = "maps";

/// The directories of one version.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub(super) dir: PathBuf,
    pub(super) maps: PathBuf,
    pub(super) links: PathBuf,
}

impl Pins {
    pub(super) fn new(dir: &Path) -> Result<Self, BpfError> {
        check_bpffs(dir)?;
        Ok(Self { dir: dir.to_owned(), maps: dir.join(MAPS), links: dir.join(LINKS) })
    }

    pub(super) fn create_dirs(&self) -> Result<(), BpfError> {
        for dir in [&self.maps, &self.links] {
            fs::create_dir_all(dir).map_err(BpfError::file("create directory", dir))?;
        }
        Ok(())
    }
}

/// Sees whether `dir`, or what is there of its path, is on a BPF file system.
pub(super) fn check_bpffs(dir: &Path) -> Result<(), BpfError> {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    let stat = statfs(there).map_err(|errno| BpfError::file("statfs", there)(errno.into()))?;
    if stat.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(BpfError::NotBpffs { path: dir.to_owned() })
}

/// Sees whether `dir` is a cgroup v2 directory.
pub(super) fn check_cgroup(dir: &Path) -> Result<(), BpfError> {
    let stat = statfs(dir).map_err(|errno| BpfError::file("statfs", dir)(errno.into()))?;
    if stat.filesystem_type() == CGROUP2_SUPER_MAGIC {
        return Ok(());
    }
    Err(BpfError::NotCgroup { path: dir.to_owned() })
}
