//! /proc and /sys of a machine that nobody has seen.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_agent::kernel::probe::{Files, Probe, mounts};

/// Between two files of an input (ASCII's record separator).
const BETWEEN: u8 = 0x1e;
const FILES: [&str; 10] = [
    "proc/meminfo",
    "sys/devices/system/cpu/online",
    "proc/sys/kernel/pid_max",
    "proc/self/mountinfo",
    "proc/cgroups",
    "sys/fs/cgroup/cgroup.controllers",
    "sys/fs/cgroup/io.cost.qos",
    "sys/kernel/security/lsm",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/random/boot_id",
];

/// A machine is understood or refused; every number of what is understood is in its files.
pub fn any_files(data: &[u8]) {
    let texts: Vec<&[u8]> = data.split(|byte| *byte == BETWEEN).collect();
    if let Some(text) = texts.first().and_then(|text| str::from_utf8(text).ok()) {
        mount_points(text);
    }
    let root = tempfile::tempdir().expect("a directory");
    for (name, text) in FILES.iter().zip(&texts) {
        write(root.path(), name, text);
    }
    for name in FILES.iter().skip(texts.len()) {
        write(root.path(), name, b"0\n");
    }
    let files = Files::below(root.path());
    let Ok(probe) = Probe::read(&files) else { return };
    let text = |index: usize| String::from_utf8_lossy(texts.get(index).copied().unwrap_or(b"0"));
    for bytes in [probe.memory_bytes, probe.swap_bytes] {
        assert_eq!(bytes % 1_024, 0);
        assert!(text(0).contains(&(bytes / 1_024).to_string()), "{bytes} is not there");
    }
    assert!(text(2).contains(&probe.pid_max.to_string()));
    assert!(probe.controllers.disabled.iter().all(|name| text(4).contains(name)));
    if let Some(mount) = &probe.cgroup2 {
        assert!(text(3).contains("cgroup2"));
        assert!(mount.mount_point.is_absolute());
    }
    assert_eq!(Probe::read(&files).expect("it was read before"), probe);
    assert!(!probe.to_string().is_empty() && !probe.controls(None).is_empty());
}

fn write(root: &Path, name: &str, text: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    fs::write(path, text).expect("write a file");
}

/// A mount point that is written as the kernel writes it is read as it is.
fn mount_points(text: &str) {
    let plain = format!("/{}", text.replace('\0', ""));
    let mut escaped = String::new();
    for c in plain.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' | '#' => escaped.push_str(&format!("\\{:03o}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    let line = format!("36 35 98:0 / {escaped} rw,noatime master:1 - cgroup2 cgroup2 rw\n");
    let mounts = mounts::parse(&line).expect("a line as the kernel writes it");
    let found = mounts::cgroup2(&mounts).expect("cgroup v2 is mounted");
    assert_eq!(found.mount_point, PathBuf::from(plain));
    assert!(found.whole);
}
