//! Where the demo runs: here, if this machine can show everything, else in the lab.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Choice {
    /// On this machine where it can show everything, else in the virtual machine.
    Auto,
    /// On this machine.
    Host,
    /// In the lab's virtual machine.
    Vm,
}

/// Where something runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// On this machine.
    Host,
    /// In the lab's virtual machine.
    Vm,
}

/// Controllers that the demo needs in cgroup v2.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

impl Place {
    /// As the report names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vm => "vm",
        }
    }

    /// For people.
    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::Host => "on this machine",
            Self::Vm => "in the lab's virtual machine",
        }
    }

    /// How long the demo waits for what should come: emulation is ten to twenty times slower.
    pub(crate) const fn patience_seconds(self) -> u32 {
        match self {
            Self::Host => 24,
            Self::Vm => 90,
        }
    }
}

/// Where the demo runs, and why; `network_only`: limits are not shown.
pub(crate) fn choose(choice: Choice, network_only: bool) -> Result<(Place, String)> {
    let lacks = lacking()?;
    Ok(decide(choice, network_only, lacks))
}

/// `lacks`: why this machine cannot show limits.
fn decide(choice: Choice, network_only: bool, lacks: Option<String>) -> (Place, String) {
    match (choice, lacks) {
        (Choice::Vm, _) => (Place::Vm, "asked for (--on vm)".to_owned()),
        (Choice::Host, Some(lacks)) => {
            (Place::Host, format!("asked for (--on host); limits are left out, {lacks}"))
        }
        (Choice::Host, None) => (Place::Host, "asked for (--on host)".to_owned()),
        (Choice::Auto, Some(lacks)) if !network_only => (Place::Vm, lacks),
        (Choice::Auto, Some(_)) => {
            (Place::Host, "the network half needs no controllers".to_owned())
        }
        (Choice::Auto, None) => {
            let all = CONTROLLERS.join(", ");
            (Place::Host, format!("it has cgroup v2 with {all}"))
        }
    }
}

/// What cgroup v2 lacks on this machine, if anything.
pub(crate) fn lacking() -> Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    let Some(mount) = cgroup2_mount(&mounts) else {
        return Ok(Some("cgroup v2 is not mounted here".to_owned()));
    };
    let path = mount.join("cgroup.controllers");
    let there = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(missing(&there))
}

/// Where cgroup v2 is mounted.
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn missing(controllers: &str) -> Option<String> {
    let there: Vec<&str> = controllers.split_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !there.contains(name)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "this machine's cgroup v2 lacks {} (cgroup v1 has them, or nobody)",
            missing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_chosen_where_it_can_show_everything() {
        let lacks = || Some("no cpu".to_owned());
        assert_eq!(decide(Choice::Auto, false, None).0, Place::Host);
        assert_eq!(decide(Choice::Auto, false, lacks()), (Place::Vm, "no cpu".to_owned()));
        assert_eq!(decide(Choice::Auto, true, lacks()).0, Place::Host);
        assert_eq!(decide(Choice::Vm, false, None).0, Place::Vm);
        let (place, why) = decide(Choice::Host, false, lacks());
        assert_eq!(place, Place::Host);
        assert!(why.contains("no cpu"), "{why}");
    }

    #[test]
    fn controllers_are_looked_for_where_cgroup_v2_is() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mount = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(cgroup2_mount(hybrid), Some(mount));
        assert_eq!(cgroup2_mount("31 24 0:27 / /proc rw - proc proc rw\n"), None);
        assert_eq!(missing("cpuset cpu io memory hugetlb pids\n"), None);
        let lacks = missing("hugetlb\n").expect("lacks all");
        assert!(lacks.contains("cpu, memory, io, pids"), "{lacks}");
        assert!(missing("cpu io pids cpuset").expect("lacks memory").contains("lacks memory"));
    }
}
