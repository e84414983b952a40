//! What sandboxes have left whose process was killed.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use super::cgroups::{self, cgroup2_mount};
use super::command::ip;

/// Removes everything that bears the name of a sandbox of a process that is gone. What cannot be
/// removed is said, and left to the next one.
pub(super) fn sweep() {
    for name in names(Path::new("/run/netns")) {
        said(&name, ip(&format!("netns del {name}")));
    }
    for name in names(Path::new("/run")) {
        let path = Path::new("/run").join(&name);
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        said(&name, fs::remove_dir(&path).map_err(Into::into));
    }
    let Ok(mount) = cgroup2_mount() else { return };
    for name in names(&mount) {
        said(&name, cgroups::remove(&mount.join(&name)));
    }
}

fn said(name: &str, done: anyhow::Result<()>) {
    match done {
        Ok(()) => eprintln!("swept {name}, left by a process that was killed"),
        Err(error) => eprintln!("left behind by a process that was killed: {name}: {error:#}"),
    }
}

/// Names in a directory that a dead process made.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| maker(name).is_some_and(is_dead)).collect()
}

/// The process that made something of the name `bh<process>x<number>`, with or without an end
/// behind a `-`.
fn maker(name: &str) -> Option<u32> {
    let (process, number) = name.strip_prefix("bh")?.split_once('x')?;
    let number = number.split('-').next()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(process) && is_number(number)).then(|| process.parse().ok())?
}

fn is_dead(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_sandboxes_are_taken_for_such() {
        for (name, process) in [
            ("bh24857x0", Some(24_857)),
            ("bh24857x0-bpf", Some(24_857)),
            ("bh24857x12-sw", Some(24_857)),
            ("bh24857", None),
            ("bhx0", None),
            ("bh1x", None),
            ("bhax1", None),
            ("bulkhead-demo-1", None),
        ] {
            assert_eq!(maker(name), process, "{name}");
        }
        assert!(!is_dead(std::process::id()));
    }
}
