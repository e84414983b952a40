//! Disk images, written and read without mounting anything on the host.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::Cmd;
use crate::progress::Step;

const WHY: &str = "make a disk for the lab";

/// No journal: these disks live for one run.
const THROW_AWAY: [&str; 6] = ["-q", "-F", "-t", "ext4", "-O", "^has_journal"];

/// An empty ext4 disk of `bytes`.
pub(super) fn empty(image: &Path, bytes: u64) -> Result<()> {
    sparse(image, bytes)?;
    Cmd::tool("mke2fs", WHY)?.args(THROW_AWAY).arg(image).read().map(drop)
}

/// An ext4 disk that holds what is in `dir`, owned by root where we are root.
pub(super) fn from_directory(image: &Path, dir: &Path) -> Result<()> {
    // An eighth for the file system's own tables, and room for them in a tiny one.
    let bytes = tree_bytes(dir)?;
    sparse(image, (bytes + bytes / 8 + (16 << 20)).next_multiple_of(1 << 20))?;
    let made = Cmd::tool("mke2fs", WHY)?.args(THROW_AWAY).args(["-E", "root_owner=0:0"]);
    made.arg("-d").arg(dir).arg(image).read().map(drop)
}

/// The root disk from a tree that only root can read.
pub(super) fn from_root_tree(image: &Path, bytes: u64, dir: &Path, step: &Step) -> Result<()> {
    sparse(image, bytes)?;
    let made = Cmd::privileged("mke2fs", WHY)?.args(THROW_AWAY).args(["-L", "root", "-d"]);
    made.arg(dir).arg(image).quietly(step)
}

/// Copies everything on an ext4 disk into `dir`.
pub(super) fn read_back(image: &Path, dir: &Path) -> Result<()> {
    // debugfs takes its request apart at blanks, so the target is always "here".
    Cmd::tool("debugfs", "read the lab's results disk")?
        .args(["-R", "rdump / ."])
        .arg(image)
        .dir(dir)
        .read()?;
    let lost_and_found = dir.join("lost+found");
    fs::remove_dir(&lost_and_found)
        .with_context(|| format!("remove {}: was the disk read at all?", lost_and_found.display()))
}

/// A file of `bytes` that takes no space yet.
pub(super) fn sparse(image: &Path, bytes: u64) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("create {} with {bytes} bytes", image.display()))
}

/// What the files under `dir` take on a disk with blocks of 4 KiB.
fn tree_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let meta = entry.metadata().with_context(|| format!("see {}", entry.path().display()))?;
        sum += meta.len().next_multiple_of(4096);
        if meta.is_dir() {
            sum += tree_bytes(&entry.path())?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_back_from_a_disk_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to with blank"));
        fs::create_dir_all(from.join("sub")).expect("a directory");
        fs::create_dir(&to).expect("a directory");
        fs::write(from.join("sub/file"), b"content").expect("written");
        let image = dir.path().join("disk.img");
        from_directory(&image, &from).expect("mke2fs works");
        read_back(&image, &to).expect("debugfs works");
        assert_eq!(fs::read(to.join("sub/file")).expect("is there"), b"content");
        assert!(!to.join("lost+found").exists());
    }
}
