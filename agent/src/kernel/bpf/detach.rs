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
    let mut done = Detached::default();
    if !bpffs.exists() {
        return Ok(done);
    }
    pins::check_bpffs(bpffs)?;
    let entries = pins::children(bpffs)?;
    let (versions, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|path| path.is_dir() && pins::version(path).is_some());
    for version in &versions {
        // Links first: a program is taken off while its tables are whole.
        for link in pins::existing_children(&version.join(pins::LINKS))? {
            done.note(link, detach_link, |done| &mut done.links);
        }
        for map in pins::existing_children(&version.join(pins::MAPS))? {
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
    if pins::children(bpffs)?.is_empty() {
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
pub(super) fn detach_link(path: &Path) -> io::Result<()> {
    let link = sys::open_link(path)?;
    // A link whose cgroup is gone is detached already, and says so by no error.
    sys::detach(link.as_fd())?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_there_is_nothing_to_do() {
        let done = detach(Path::new("/sys/fs/bpf/no/such/directory")).expect("idempotent");
        assert_eq!(done, Detached::default());
    }
}
