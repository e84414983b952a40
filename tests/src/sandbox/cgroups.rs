//! A cgroup hierarchy: a root, virtual clusters below it, processes in leaves.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long a cgroup may take to be empty after its processes were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// A hierarchy; dropped, it kills what runs in it and goes.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    next_leaf: AtomicU32,
}

impl Cgroups {
    pub(super) fn new(name: &str) -> Result<Self> {
        let root = cgroup2_mount()?.join(name);
        fs::create_dir(&root).with_context(|| format!("create cgroup {}", root.display()))?;
        Ok(Self { root, next_leaf: AtomicU32::new(0) })
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Depth of a virtual cluster's cgroup below the cgroup2 mount.
    pub fn virtual_cluster_level(&self) -> u32 {
        2
    }

    /// The id of a virtual cluster's cgroup, which is made if it is missing.
    pub fn id(&self, virtual_cluster: &str) -> Result<u64> {
        let dir = self.root.join(virtual_cluster);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(fs::metadata(&dir)?.ino())
    }

    /// A new leaf of a virtual cluster.
    pub fn leaf(&self, virtual_cluster: &str) -> Result<PathBuf> {
        let number = self.next_leaf.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(virtual_cluster).join(format!("exec-{number}"));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// Removes a virtual cluster's cgroup with everything in it.
    pub fn remove(&self, virtual_cluster: &str) -> Result<()> {
        remove(&self.root.join(virtual_cluster))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// Kills what runs below a cgroup, and removes it, children first.
pub(super) fn remove(dir: &Path) -> Result<()> {
    let killed = fs::write(dir.join("cgroup.kill"), "1");
    killed.with_context(|| format!("kill {}", dir.display()))?;
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        match remove_tree(dir) {
            // Killed processes take a moment.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done.with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Where this machine has cgroup v2, alone or beside v1.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .find_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .context("this machine has no cgroup v2 mounted")
}
