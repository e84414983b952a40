//! /proc/self/mountinfo: where cgroup v2 is, and what v1 holds.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::ProbeError;

/// One line of mountinfo, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// "cgroup2", "cgroup", …
    pub file_system: String,
    /// Options of the file system; the names of controllers with v1.
    pub super_options: Vec<String>,
}

/// Where cgroup v2 is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cgroup2Mount {
    /// The directory.
    pub mount_point: PathBuf,
    /// Whether it shows the hierarchy from its root (of this cgroup namespace).
    pub whole: bool,
}

/// Places where cgroup v2 is expected: unified, then hybrid.
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Parses the whole file.
pub fn parse(text: &str) -> Result<Vec<Mount>, ProbeError> {
    let shape = |line| ProbeError::shape("/proc/self/mountinfo", "a mount", line);
    text.lines().map(|line| parse_line(line).ok_or_else(|| shape(line))).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, mount_point) = (mount.next()?, mount.next().filter(|at| at.starts_with('/'))?);
    let mut file_system = file_system.split(' ');
    let (kind, _source) = (file_system.next()?, file_system.next()?);
    let super_options = file_system.next().unwrap_or_default();
    Some(Mount {
        root: unescape(root),
        mount_point: unescape(mount_point),
        file_system: kind.to_owned(),
        super_options: super_options.split(',').map(str::to_owned).collect(),
    })
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        if let (b'\\', Some(byte)) = (first, octal) {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// The mount of cgroup v2 to use. Binds of a part of the hierarchy (a container's) come last;
/// among the others the usual places come first, then the order of the file. A mount that is
/// hidden under a later one at the same place does not count.
pub fn cgroup2(mounts: &[Mount]) -> Option<Cgroup2Mount> {
    let seen = |(index, mount): &(usize, &Mount)| {
        let later = &mounts[index + 1..];
        mount.file_system == "cgroup2"
            && !later.iter().any(|later| later.mount_point == mount.mount_point)
    };
    let rank = |(index, mount): &(usize, &Mount)| {
        let usual = USUAL.iter().position(|usual| mount.mount_point == Path::new(usual));
        (mount.root != Path::new("/"), usual.unwrap_or(USUAL.len()), *index)
    };
    let (_, mount) = mounts.iter().enumerate().filter(seen).min_by_key(rank)?;
    let whole = mount.root == Path::new("/");
    Some(Cgroup2Mount { mount_point: mount.mount_point.clone(), whole })
}

/// Controllers that are mounted as cgroup v1.
pub fn v1_controllers(mounts: &[Mount]) -> BTreeSet<String> {
    const KNOWN: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];
    let v1 = mounts.iter().filter(|mount| mount.file_system == "cgroup");
    let options = v1.flat_map(|mount| &mount.super_options);
    options.filter(|option| KNOWN.contains(&option.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 23 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
rw,nsdelegate,memory_recursiveprot
";

    fn mount(line: &str) -> Option<Cgroup2Mount> {
        cgroup2(&parse(line).unwrap())
    }

    fn found(mount_point: &str, whole: bool) -> Cgroup2Mount {
        Cgroup2Mount { mount_point: mount_point.into(), whole }
    }

    #[test]
    fn unified_and_hybrid_are_found() {
        assert_eq!(mount(UNIFIED), Some(found("/sys/fs/cgroup", true)));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(hybrid), Some(found("/sys/fs/cgroup/unified", true)));
        let v1 = v1_controllers(&parse(hybrid).unwrap());
        assert_eq!(v1.into_iter().collect::<Vec<_>>(), ["cpu", "cpuacct", "memory"]);
        assert_eq!(mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), None);
    }

    #[test]
    fn the_whole_hierarchy_comes_before_binds_of_a_part() {
        let text = "\
50 1 0:25 /kubepods/podx /run/containers/x/sys/fs/cgroup ro - cgroup2 cgroup2 rw
51 1 0:25 / /mnt/cgroup2 rw - cgroup2 cgroup2 rw
52 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";
        assert_eq!(mount(text), Some(found("/sys/fs/cgroup", true)));
        let without_usual: Vec<&str> = text.lines().take(2).collect();
        assert_eq!(mount(&without_usual.join("\n")), Some(found("/mnt/cgroup2", true)));
        let only = Some(found("/run/containers/x/sys/fs/cgroup", false));
        assert_eq!(mount(without_usual[0]), only);
    }

    #[test]
    fn a_mount_under_another_is_not_seen() {
        let text = "\
28 23 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
29 28 0:40 / /sys/fs/cgroup rw - tmpfs tmpfs rw
30 28 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        assert_eq!(mount(text), Some(found("/sys/fs/cgroup/unified", true)));
    }

    #[test]
    fn escapes_are_undone_and_garbage_is_refused() {
        let mounts = parse("1 2 0:3 / /mnt/a\\040b\\134c rw - ext4 /dev/vda rw\n").unwrap();
        assert_eq!(mounts[0].mount_point, Path::new("/mnt/a b\\c"));
        assert!(parse("nonsense\n").is_err());
        assert!(parse("1 2 0:3 /  rw - cgroup2 cgroup2 rw\n").is_err());
    }
}
