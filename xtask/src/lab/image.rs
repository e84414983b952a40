//! What a node boots from: made once from Debian's packages, and cached.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk;
use super::guest::Guest;
use super::modules;
use crate::command::Cmd;
use crate::progress::{self, Step};
use crate::setup::Archive;

/// What a node with systemd has beyond the minimal system.
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

/// All that a node without systemd has of Debian.
const BARE_PACKAGES: &[&str] = &["linux-image-cloud-amd64", "busybox-static"];

/// Size of the root disk, in bytes; sparse, so that only what is used takes space.
const DISK_BYTES: u64 = 2 << 30;

/// How long an image of another recipe is kept.
const KEEP_UNUSED: Duration = Duration::from_hours(7 * 24);

/// A whole image in the cache.
pub(crate) struct Image {
    guest: Guest,
    dir: PathBuf,
}

impl Image {
    /// The cached image of today's recipe; built when it is absent or `rebuild` is asked.
    pub(crate) fn get(guest: Guest, rebuild: bool) -> Result<Self> {
        let lab = super::directory()?;
        let image = Self { guest, dir: lab.join(format!("image-{:016x}", recipe(guest))) };
        // Two builders at once: the second waits, then finds the first one's image.
        let _turn = super::turn(&lab)?;
        if rebuild || !image.dir.is_dir() {
            let suite = guest.suite();
            let what = format!("Making the image of the lab's node {guest} (Debian {suite})");
            progress::during(what, |step| image.build(&lab, step))?;
            forget_old_images(&lab, &image.dir);
        }
        Ok(image)
    }

    /// What it is an image of.
    pub(super) fn guest(&self) -> Guest {
        self.guest
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root disk; `None`: all of the node is in its initial file system.
    pub(super) fn disk(&self) -> Option<PathBuf> {
        (self.guest != Guest::Oldest).then(|| self.dir.join("root.img"))
    }

    /// The kernel.
    pub(super) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// A shell for the initial file system.
    pub(super) fn busybox(&self) -> PathBuf {
        self.dir.join("busybox")
    }

    /// The kernel module for the disks of a node with a root disk; its kernel has all else that
    /// finds the disk built in.
    pub(super) fn disk_driver(&self) -> PathBuf {
        self.dir.join("virtio_blk.ko.xz")
    }

    /// The kernel modules of a node without a root disk: what stands for /lib/modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    fn build(&self, lab: &Path, step: &Step) -> Result<()> {
        let building = lab.join("building");
        remove_tree(&building, step)?;
        fs::create_dir_all(&building).with_context(|| format!("create {}", building.display()))?;
        let root = building.join("root");
        if self.guest == Guest::Oldest {
            self.build_bare(&building, &root, step)?;
        } else {
            self.build_system(&building, &root, step)?;
        }
        remove_tree(&root, step)?;
        remove_tree(&self.dir, step)?;
        // The rename is what makes an image: a build that was cut short is never taken for one.
        fs::rename(&building, &self.dir)
            .with_context(|| format!("move the image to {}", self.dir.display()))
    }

    /// Kernel, modules and busybox, taken out of their packages.
    fn build_bare(&self, building: &Path, root: &Path, step: &Step) -> Result<()> {
        let archive = Archive::of_this_machine()?;
        for package in BARE_PACKAGES {
            archive.unpack(self.guest.suite(), package, root, step)?;
        }
        let modules = root.join("lib/modules");
        let kernel = only_entry(&modules)?;
        take(root, &format!("boot/vmlinuz-{kernel}"), &building.join("vmlinuz"))?;
        take(root, "bin/busybox", &building.join("busybox"))?;
        modules::select(root, &building.join("modules"), &kernel, step)
    }

    /// A whole Debian on a disk.
    fn build_system(&self, building: &Path, root: &Path, step: &Step) -> Result<()> {
        install(self.guest.suite(), PACKAGES, FINISH, root, step)?;
        let kernel = only_entry(&root.join("usr/lib/modules"))?;
        let module = format!("usr/lib/modules/{kernel}/kernel/drivers/block/virtio_blk.ko.xz");
        take(root, &format!("boot/vmlinuz-{kernel}"), &building.join("vmlinuz"))?;
        take(root, "usr/bin/busybox", &building.join("busybox"))?;
        take(root, &module, &building.join("virtio_blk.ko.xz"))?;
        disk::from_root_tree(&building.join("root.img"), DISK_BYTES, root, step)
    }
}

/// Copies a file out of a root.
pub(super) fn take(root: &Path, from: &str, to: &Path) -> Result<()> {
    let from = root.join(from);
    let copied = fs::copy(&from, to);
    copied.map(drop).with_context(|| format!("copy {} out of the root", from.display()))
}

/// Says whether the recipe is the one that an image was made by.
fn recipe(guest: Guest) -> u64 {
    let mut hasher = DefaultHasher::new();
    if guest == Guest::Oldest {
        (guest.suite(), BARE_PACKAGES, modules::WANTED).hash(&mut hasher);
    } else {
        (guest.suite(), PACKAGES, EXCLUDED_PATHS, FINISH, DISK_BYTES).hash(&mut hasher);
    }
    hasher.finish()
}

/// Makes a Debian in `root`: the minimal system, `packages`, and what the script `finish` does.
pub(super) fn install(
    suite: &str,
    packages: &[&str],
    finish: &str,
    root: &Path,
    step: &Step,
) -> Result<()> {
    let archive = Archive::of_this_machine()?;
    Cmd::privileged("mmdebstrap", "make the lab's root file system")?
        .args(["--variant=minbase", "--mode=root", "--format=directory"])
        .arg(format!("--include={}", packages.join(",")))
        .args(EXCLUDED_PATHS.iter().map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg(format!("--customize-hook={finish}"))
        // Mirrors that are snapshots serve files whose validity has run out.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(suite)
        .arg(root)
        .arg(archive.line(suite))
        .quietly(step)
}

/// The name of the one entry of `dir`.
pub(super) fn only_entry(dir: &Path) -> Result<String> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        names => bail!("{} should hold one kernel's modules, not {names:?}", dir.display()),
    }
}

/// Removes a tree that root may own.
pub(super) fn remove_tree(dir: &Path, step: &Step) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let why = "remove what an earlier build left";
    Cmd::privileged("rm", why)?.args(["-rf", "--one-file-system"]).arg(dir).quietly(step)
}

/// Removes images of other recipes that were made long ago; failing to is no harm.
pub(super) fn forget_old_images(lab: &Path, keep: &Path) {
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
