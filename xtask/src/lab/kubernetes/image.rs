//! What a Kubernetes node boots from: Debian, containerd, kubelet, kube-proxy, and images for pods.

use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::super::{directory, disk, image, turn};
use super::build::Programs;
use crate::command::{Cmd, quoted};
use crate::progress::{self, Step};

/// Kernel 6.12, containerd 1.7 with NRI.
const SUITE: &str = "trixie";

/// What a node has beyond the minimal system.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "dbus",
    "dnsmasq-base",
    "dropbear-bin",
    "iproute2",
    "iptables",
    "kmod",
    "linux-image-cloud-amd64",
    "nftables",
    "procps",
    "runc",
    "systemd",
    "systemd-sysv",
    "tinyproxy-bin",
];

/// Run with the root as `$1` and Kubernetes' programs in `$BIN`.
const FINISH: [&str; 2] = [include_str!("node/finish"), include_str!("node/make-images")];

/// Size of the root disk, in bytes; sparse, so that only what is used takes space.
const DISK_BYTES: u64 = 6 << 30;

/// A whole image in the cache.
pub(super) struct NodeImage {
    dir: PathBuf,
}

impl NodeImage {
    /// The cached image of today's recipe; made when it is absent, which takes some two minutes.
    pub(super) fn get(programs: &Programs) -> Result<Self> {
        let lab = directory()?;
        let mut hasher = DefaultHasher::new();
        (SUITE, PACKAGES, FINISH, DISK_BYTES, programs.dir().file_name()).hash(&mut hasher);
        let image = Self { dir: lab.join(format!("image-kubernetes-{:016x}", hasher.finish())) };
        let _turn = turn(&lab)?;
        if !image.dir.is_dir() {
            let what = format!("Making the image of a Kubernetes node (Debian {SUITE})");
            progress::during(what, |step| image.build(programs, step))?;
            image::forget_old_images(&lab, &image.dir);
        }
        Ok(image)
    }

    /// A file of it: `root.img`, `vmlinuz`, `busybox`, `virtio_blk.ko.xz`.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn build(&self, programs: &Programs, step: &Step) -> Result<()> {
        let building = directory()?.join("building-kubernetes");
        image::remove_tree(&building, step)?;
        fs::create_dir_all(&building).with_context(|| format!("create {}", building.display()))?;
        let root = building.join("root");
        let bin = quoted(&programs.dir().to_string_lossy());
        // A script of its own each: both change the directory.
        let mut finish = "set -e
"
        .to_owned();
        for text in FINISH {
            let _ = write!(
                finish,
                "(
BIN={bin}
{text}
)
"
            );
        }
        image::install(SUITE, PACKAGES, &finish, &root, step)?;
        let kernel = image::only_entry(&root.join("usr/lib/modules"))?;
        let driver = format!("usr/lib/modules/{kernel}/kernel/drivers/block/virtio_blk.ko.xz");
        image::take(&root, &format!("boot/vmlinuz-{kernel}"), &building.join("vmlinuz"))?;
        image::take(&root, "usr/bin/busybox", &building.join("busybox"))?;
        image::take(&root, &driver, &building.join("virtio_blk.ko.xz"))?;
        let disk = building.join("root.img");
        disk::sparse(&disk, DISK_BYTES)?;
        // With a journal: a node is also rebooted without being asked.
        Cmd::privileged("mke2fs", "make the root disk of a Kubernetes node")?
            .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
            .arg(&root)
            .arg(&disk)
            .quietly(step)?;
        image::remove_tree(&root, step)?;
        fs::rename(&building, &self.dir)
            .with_context(|| format!("move the image to {}", self.dir.display()))
    }
}
