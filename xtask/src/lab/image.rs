//! The root image: a plain Debian with the kernel that the lab promises, made once and cached.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk;
use crate::command::Cmd;
use crate::progress::{self, Step};
use crate::setup::Archive;

/// The Debian suite of the guest: kernel 6.12, systemd 257.
const SUITE: &str = "trixie";

/// What the guest has beyond the minimal system.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dbus",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "nftables",
    "procps",
    "systemd",
    "systemd-sysv",
];

/// What is left out: nobody reads it there, and our own initial file system boots the guest.
const EXCLUDED_PATHS: &[&str] =
    &["/etc/kernel/postinst.d/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Changes made to the installed system, as one shell script run with its root as `$1`.
const FINISH: &str = "set -e
cd \"$1\"
mkdir payload results scratch
echo lab > etc/hostname
: > etc/fstab
rm -rf var/lib/apt/lists/* var/cache/apt/*
# Newer than /usr: systemd then takes nothing for outdated.
touch etc/.updated var/.updated";

/// Size of the root disk, in bytes; sparse, so that only what is used takes space.
const DISK_BYTES: u64 = 2 << 30;

/// How long an image of another recipe is kept.
const KEEP_UNUSED: Duration = Duration::from_hours(7 * 24);

/// A whole image in the cache.
pub(crate) struct Image {
    dir: PathBuf,
}

impl Image {
    /// The cached image of today's recipe; built when it is absent or `rebuild` is asked.
    pub(crate) fn get(rebuild: bool) -> Result<Self> {
        let lab = super::directory()?;
        let image = Self { dir: lab.join(format!("image-{:016x}", recipe())) };
        // Two builders at once: the second waits, then finds the first one's image.
        let _turn = super::turn(&lab)?;
        if rebuild || !image.dir.is_dir() {
            progress::during(format!("Making the lab's root image (Debian {SUITE})"), |step| {
                image.build(&lab, step)
            })?;
            forget_old_images(&lab, &image.dir);
        }
        Ok(image)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root disk.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("root.img")
    }

    /// The kernel.
    pub(super) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// A shell for the initial file system.
    pub(super) fn busybox(&self) -> PathBuf {
        self.dir.join("busybox")
    }

    /// The kernel module for the guest's disks; the kernel has all else built in.
    pub(super) fn disk_driver(&self) -> PathBuf {
        self.dir.join("virtio_blk.ko.xz")
    }

    fn build(&self, lab: &Path, step: &Step) -> Result<()> {
        let building = lab.join("building");
        remove_tree(&building, step)?;
        fs::create_dir_all(&building).with_context(|| format!("create {}", building.display()))?;
        let root = building.join("root");
        install(&root, step)?;
        let kernel = only_entry(&root.join("usr/lib/modules"))?;
        let module = "kernel/drivers/block/virtio_blk.ko.xz";
        for (from, to) in [
            (root.join("boot").join(format!("vmlinuz-{kernel}")), "vmlinuz"),
            (root.join("usr/bin/busybox"), "busybox"),
            (root.join("usr/lib/modules").join(&kernel).join(module), "virtio_blk.ko.xz"),
        ] {
            fs::copy(&from, building.join(to))
                .with_context(|| format!("copy {} out of the root", from.display()))?;
        }
        disk::from_root_tree(&building.join("root.img"), DISK_BYTES, &root, step)?;
        remove_tree(&root, step)?;
        remove_tree(&self.dir, step)?;
        // The rename is what makes an image: a build that was cut short is never taken for one.
        fs::rename(&building, &self.dir)
            .with_context(|| format!("move the image to {}", self.dir.display()))
    }
}

/// Says whether the recipe is the one that an image was made by.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES, EXCLUDED_PATHS, FINISH, DISK_BYTES).hash(&mut hasher);
    hasher.finish()
}

fn install(root: &Path, step: &Step) -> Result<()> {
    let archive = Archive::of_this_machine()?;
    Cmd::privileged("mmdebstrap", "make the lab's root file system")?
        .args(["--variant=minbase", "--mode=root", "--format=directory"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(EXCLUDED_PATHS.iter().map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg(format!("--customize-hook={FINISH}"))
        // Mirrors that are snapshots serve files whose validity has run out.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(SUITE)
        .arg(root)
        .arg(archive.line(SUITE))
        .quietly(step)
}

/// The name of the one entry of `dir`.
fn only_entry(dir: &Path) -> Result<String> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        names => bail!("{} should hold one kernel's modules, not {names:?}", dir.display()),
    }
}

/// Removes a tree that root may own.
fn remove_tree(dir: &Path, step: &Step) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let why = "remove what an earlier build left";
    Cmd::privileged("rm", why)?.args(["-rf", "--one-file-system"]).arg(dir).quietly(step)
}

/// Removes images of other recipes that were made long ago; failing to is no harm.
fn forget_old_images(lab: &Path, keep: &Path) {
    let Ok(entries) = fs::read_dir(lab) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_image = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("image-"));
        let age = || fs::metadata(&path).ok()?.modified().ok()?.elapsed().ok();
        if is_image && path.is_dir() && path != keep && age().is_some_and(|a| a > KEEP_UNUSED) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
