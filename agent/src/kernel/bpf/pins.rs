//! Where links and maps are pinned.

use std::fs;
use std::io;
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

/// The ABI version of a directory `v<number>`.
pub(super) fn version(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_prefix('v')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// What is in a directory, in order; nothing where there is none.
pub(super) fn existing_children(dir: &Path) -> Result<Vec<PathBuf>, BpfError> {
    if dir.exists() { children(dir) } else { Ok(Vec::new()) }
}

/// What is in a directory, in order.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let list = || {
        let mut paths =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    list().map_err(BpfError::file("list", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_directories_are_versions() {
        let names = [("v1", Some(1)), ("v12", Some(12)), ("v", None), ("v1x", None), ("v+1", None)];
        for (name, number) in names {
            assert_eq!(version(&Path::new("/bpf").join(name)), number, "{name}");
        }
    }
}
