//! The guest's initial file system, written as a `newc` cpio archive.
//!
//! It carries everything that differs between runs (the command) or belongs to the lab (units,
//! masks), so that the cached root image is plain Debian.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::image::Image;
use super::libraries;
use crate::command::{find, quoted};

/// Generators that find nothing on such a node; each is a process at the start of systemd.
const MASKED_GENERATORS: &[&str] = &[
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
];

/// Units that a throw-away node with no hardware has no use for; each costs boot time.
const MASKED_UNITS: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "kmod-static-nodes.service",
    "modprobe@configfs.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-ask-password-console.path",
    "systemd-binfmt.service",
    "systemd-creds.socket",
    "systemd-hwdb-update.service",
    "systemd-hostnamed.socket",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-pcrextend.socket",
    "systemd-pcrlock.socket",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysext.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "tmp.mount",
];

/// Directories of a node that has all of itself in memory.
const BARE_DIRECTORIES: &[&str] = &[
    "bin", "dev", "etc", "lab", "payload", "proc", "results", "root", "run", "scratch", "sys",
    "tmp", "usr", "usr/sbin",
];

/// Writes the initial file system for one run of `command`, which finds its files in `payload`.
pub(super) fn write(image: &Image, command: &[String], payload: &Path, to: &Path) -> Result<()> {
    let archive = if image.guest() == Guest::Oldest {
        bare(image, command, payload)?
    } else {
        before_systemd(image, command)?
    };
    fs::write(to, archive.finish()).with_context(|| format!("write {}", to.display()))
}

/// All of a node: busybox, kernel modules, `ip`, and libraries of this machine for what this
/// machine has built.
fn bare(image: &Image, command: &[String], payload: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    let mut directories: BTreeSet<String> =
        BARE_DIRECTORIES.iter().map(|dir| (*dir).to_owned()).collect();
    let ip = find("ip").context("ip is missing; `cargo xtask setup test` gets it")?;
    let mut files = libraries::of(payload, &ip)?;
    files.insert("usr/sbin/ip".into(), ip);
    files.insert("bin/busybox".into(), image.busybox());
    libraries::tree(&image.modules(), Path::new(""), &mut files)?;
    for path in files.keys() {
        let parents = path.ancestors().skip(1).filter(|dir| *dir != Path::new(""));
        directories.extend(parents.map(|dir| dir.to_string_lossy().into_owned()));
    }
    // In this order a directory comes before what is in it.
    for dir in &directories {
        archive.directory(dir);
    }
    for (path, from) in &files {
        archive.file(&path.to_string_lossy(), 0o755, &read(from)?);
    }
    archive.file("init", 0o755, include_bytes!("guest/init-bare"));
    for (name, content) in control(command) {
        archive.file(&format!("lab/{name}"), 0o644, &content);
    }
    Ok(archive)
}

/// What comes before the root disk, and what is laid over it.
fn before_systemd(image: &Image, command: &[String]) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "root", "sys", "over", "over/run", "over/run/lab"] {
        archive.directory(dir);
    }
    let units = "over/etc/systemd/system";
    for dir in ["over/etc", "over/etc/systemd", units] {
        archive.directory(dir);
    }
    archive.file("init", 0o755, include_bytes!("guest/init"));
    archive.file("bin/busybox", 0o755, &read(&image.busybox())?);
    archive.file("virtio_blk.ko.xz", 0o644, &read(&image.disk_driver())?);
    for (name, text) in [
        ("lab.target", include_str!("guest/lab.target")),
        ("lab-command.service", include_str!("guest/lab-command.service")),
    ] {
        archive.file(&format!("{units}/{name}"), 0o644, text.as_bytes());
    }
    archive.mask();
    // Any valid one: systemd would take time to make and to store a new one.
    archive.file("over/etc/machine-id", 0o444, b"62756c6b686561642d6c61622d6e6f64\n");
    for (name, content) in control(command) {
        archive.file(&format!("over/run/lab/{name}"), 0o644, &content);
    }
    Ok(archive)
}

/// Scripts that run the command, and tell the host of it.
fn control(command: &[String]) -> [(&'static str, Vec<u8>); 3] {
    [
        ("begin", include_bytes!("guest/begin").to_vec()),
        ("end", include_bytes!("guest/end").to_vec()),
        ("command", script(command).into_bytes()),
    ]
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// A shell script that becomes `command`.
fn script(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    format!("exec {}\n", words.join(" "))
}

/// A cpio archive in the making, in the format that the kernel unpacks.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    /// Over the root: nothing starts that such a node has no use for. Its directories for units
    /// must be there.
    pub(super) fn mask(&mut self) {
        let generators = "over/etc/systemd/system-generators";
        self.directory(generators);
        for unit in MASKED_UNITS {
            self.symlink(&format!("over/etc/systemd/system/{unit}"), "/dev/null");
        }
        for generator in MASKED_GENERATORS {
            self.symlink(&format!("{generators}/{generator}"), "/dev/null");
        }
    }

    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | permissions, content);
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, 0o120_777, target.as_bytes());
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// Header fields, each eight hexadecimal digits: inode, mode, uid, gid, links, mtime, size,
    /// device (4 fields), length of the name with its NUL, checksum (unused).
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let mut header = format!("070701{:08x}{mode:08x}{:08x}{:08x}", self.entries, 0, 0);
        let _ = write!(header, "{:08x}{:08x}{:08x}", 1, 0, content.len());
        let _ = write!(header, "{:032x}{:08x}{:08x}{path}\0", 0, path.len() + 1, 0);
        self.bytes.extend(header.as_bytes());
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_laid_out_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.file("ab", 0o644, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).expect("all of it is text");
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[14..22], "000081a4", "mode");
        assert_eq!(&text[54..62], "00000005", "size");
        assert_eq!(&text[94..102], "00000003", "length of the name with its NUL");
        // 110 bytes of header, 3 of name, padded to 116; 5 of content, padded to 124.
        assert_eq!(&text[110..112], "ab");
        assert_eq!(&text[116..121], "hello");
        assert_eq!(&text[124..130], "070701");
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn a_command_survives_the_shell() {
        let command = ["printf", "%s", "it's \"$HOME\""].map(str::to_owned);
        assert_eq!(script(&command), "exec printf %s 'it'\\''s \"$HOME\"'\n");
    }
}
