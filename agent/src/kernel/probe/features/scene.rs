//! Where features are tried: two cgroups of our own, one in the other.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::answer::Answer;

/// A cgroup with one in it; both go with the value.
pub(super) struct Scene {
    mount: PathBuf,
    outer: PathBuf,
    inner: PathBuf,
    directory: File,
}

impl Scene {
    /// Makes them below the mount of cgroup v2.
    pub(super) fn new(mount: &Path) -> Result<Self, String> {
        let outer = mount.join(format!("bulkhead-probe-{}", std::process::id()));
        let inner = outer.join("inner");
        let failed = |error: io::Error| format!("create {}: {error}", inner.display());
        fs::create_dir(&outer).and_then(|()| fs::create_dir(&inner)).map_err(failed)?;
        let directory = File::open(&inner).map_err(failed)?;
        // What is not there cannot be enabled; each feature tells by itself.
        for controller in ["cpu", "memory", "io", "pids"] {
            let _ = fs::write(outer.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        Ok(Self { mount: mount.to_owned(), outer, inner, directory })
    }

    /// The root of the hierarchy.
    pub(super) fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup that has another in it.
    pub(super) fn outer(&self) -> &Path {
        &self.outer
    }

    /// The cgroup for processes and programs.
    pub(super) fn inner(&self) -> &Path {
        &self.inner
    }

    /// Why nothing is seen of a controller here; `None`: it is enabled.
    pub(super) fn lacks(&self, controller: &str) -> Option<Answer> {
        let enabled = fs::read_to_string(self.inner.join("cgroup.controllers")).ok();
        let has = enabled.is_some_and(|text| text.split_whitespace().any(|one| one == controller));
        (!has).then(|| {
            Answer::Unseen(format!(
                "the {controller} controller is not in cgroup v2 on this machine"
            ))
        })
    }
}

impl Scene {
    /// One more cgroup, in which everything was killed; it goes with the value.
    pub(super) fn killed(&self) -> io::Result<Killed> {
        let path = self.outer.join("killed");
        fs::create_dir(&path)?;
        let killed = Killed { directory: File::open(&path)?, path };
        let kill = File::options().write(true).open(killed.path.join("cgroup.kill"));
        io::Write::write_all(&mut kill?, b"1")?;
        Ok(killed)
    }
}

/// A cgroup in which everything was killed.
pub(super) struct Killed {
    path: PathBuf,
    directory: File,
}

impl AsFd for Killed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

impl AsFd for Scene {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Children that have ended may take a moment to be gone.
        for _ in 0..100 {
            let inner = fs::remove_dir(&self.inner);
            if inner.is_ok() || inner.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = fs::remove_dir(&self.outer);
    }
}
