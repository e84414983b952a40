//! Where the kernel counts the forks that it refused.
//!
//! Since Linux 6.11 pids.events counts in the cgroup whose limit it was, and above it. Before, and
//! with the mount option `pids_localevents`, it counts in the cgroup of whoever forked: as long as
//! nothing below a virtual cluster has a pids controller of its own, that is the virtual cluster's
//! too, and the number is whole.

use std::fs::{self, File};

use super::super::dir::CgroupDir;
use super::super::error::CgroupError;
use super::super::whole::whole;

/// What there is to look at before the number is believed.
#[derive(Debug)]
pub(super) enum Counted {
    /// Nothing: it counts where the limit is.
    AtTheLimit,
    /// Which controllers the cgroups below have.
    WhereForked(File),
}

impl Counted {
    /// Looks how it is done for this cgroup.
    pub(super) fn of(dir: &CgroupDir) -> Result<Self, CgroupError> {
        let at_the_limit = dir.open_file("pids.events.local")?.is_some() && !local_events();
        let below = if at_the_limit { None } else { dir.open_file("cgroup.subtree_control")? };
        Ok(below.map_or(Self::AtTheLimit, Self::WhereForked))
    }

    /// Whether pids.events tells of every refused fork now. What cannot be read tells nothing.
    pub(super) fn is_whole(&self, buffer: &mut Vec<u8>) -> bool {
        match self {
            Self::AtTheLimit => true,
            Self::WhereForked(below) => whole(below, buffer)
                .is_ok_and(|text| !text.split(u8::is_ascii_whitespace).any(|name| name == b"pids")),
        }
    }
}

/// Whether cgroup v2 is mounted to count as it did before.
fn local_events() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.contains(" - cgroup2 ") && line.contains("pids_localevents"))
}
