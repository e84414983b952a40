//! Taking everything off, with nothing but the pins: no object, no agent, no controller.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::error::BpfError;
use super::pins;
use super::sys;

/// What was taken off, and what could not be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Detached {
    /// Links that were detached: from then on their program sees nothing.
    pub links: Vec<PathBuf>,
    /// Maps that were unpinned, and with them their counters.
    pub maps: Vec<PathBuf>,
    /// Directories that were removed.
    pub directories: Vec<PathBuf>,
    /// What is still there, and why.
    pub leftovers: Vec<(PathBuf, String)>,
}

/// Takes off what any version of the agent has attached and pinned below `bpffs` (the
/// directories `v<number>`). Done twice, the second time finds nothing.
///
/// An agent that runs will attach again: stop it first.
pub fn detach(bpffs: &Path) -> Result<Detached, BpfError> {
    take_off(bpffs, |_| true)
}

/// Takes off what other versions of the agent have left below the directory of `pin_dir`.
pub(super) fn detach_others(pin_dir: &Path) -> Result<Detached, BpfError> {
    let (Some(bpffs), Some(own)) = (pin_dir.parent(), pin_dir.file_name()) else {
        return Ok(Detached::default());
    };
    take_off(bpffs, |version| version.file_name() != Some(own))
}

fn take_off(bpffs: &Path, chosen: impl Fn(&Path) -> bool) -> Result<Detached, BpfError> {
    let mut done = Detached::default();
    if !bpffs.exists() {
        return Ok(done);
    }
    pins::check_bpffs(bpffs)?;
    let entries = children(bpffs)?;
    let (versions, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|path| path.is_dir() && is_version(path));
    for version in versions.iter().filter(|version| chosen(version)) {
        // Links first: a program is taken off while its tables are whole.
        for link in existing_children(&version.join(pins::LINKS))? {
            done.note(link, detach_link, |done| &mut done.links);
        }
        for map in existing_children(&version.join(pins::MAPS))? {
            done.note(map, |path| fs::remove_file(path), |done| &mut done.maps);
        }
        for dir in [version.join(pins::LINKS), version.join(pins::MAPS), version.clone()] {
            if dir.exists() {
                done.note(dir, |path| fs::remove_dir(path), |done| &mut done.directories);
            }
        }
    }
    for other in others {
        done.leftovers.push((other, "is not ours".to_owned()));
    }
    if children(bpffs)?.is_empty() {
        let dir = bpffs.to_owned();
        // A mount point of its own stays.
        if fs::remove_dir(&dir).is_ok() {
            done.directories.push(dir);
        }
    }
    Ok(done)
}

impl Detached {
    fn note(
        &mut self,
        path: PathBuf,
        remove: impl Fn(&Path) -> io::Result<()>,
        list: impl Fn(&mut Self) -> &mut Vec<PathBuf>,
    ) {
        match remove(&path) {
            Ok(()) => list(self).push(path),
            Err(error) => self.leftovers.push((path, error.to_string())),
        }
    }
}

/// Detaches although another process may hold the link, then removes the pin.
fn detach_link(path: &Path) -> io::Result<()> {
    let link = sys::open_link(path)?;
    // A link whose cgroup is gone is detached already, and says so by no error.
    sys::detach(link.as_fd())?;
    fs::remove_file(path)
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.as_deref()
        .and_then(|name| name.strip_prefix('v'))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn existing_children(dir: &Path) -> Result<Vec<PathBuf>, BpfError> {
    if dir.exists() { children(dir) } else { Ok(Vec::new()) }
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, BpfError> {
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
        for (name, version) in [("v1", true), ("v12", true), ("v", false), ("v1x", false)] {
            assert_eq!(is_version(&Path::new("/bpf").join(name)), version, "{name}");
        }
    }

    #[test]
    fn nothing_there_is_nothing_to_do() {
        let done = detach(Path::new("/sys/fs/bpf/no/such/directory")).expect("idempotent");
        assert_eq!(done, Detached::default());
    }
}
