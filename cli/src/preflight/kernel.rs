//! What a kernel is expected to do: docs/kernels.md by its number.

use super::{Level, Line, version};

/// BPF links on cgroups, without which no agent starts, came with this one.
const LINKS: (u32, u32) = (5, 7);
/// The oldest that was tried.
const OLDEST_TRIED: (u32, u32) = (6, 1);
/// Those on which everything that is needed was tried.
const TRIED: [(u32, u32); 4] = [(6, 1), (6, 12), (6, 18), (7, 2)];

/// From uname -r.
pub(super) fn line(release: &str) -> Line {
    let (level, means, mend) = match version(release) {
        None => (
            Level::NotEnforced,
            "its number says nothing; nobody can say what it does",
            Some("run `bulkhead-agent probe --features` on the node"),
        ),
        Some(number) if number < LINKS => (
            Level::CannotInstall,
            "it has no BPF links on cgroups (Linux 5.7): the agent does not start",
            Some("a kernel from 6.1 on"),
        ),
        Some(number) if number < OLDEST_TRIED => (
            Level::NotEnforced,
            "not tried: the agent may not start, and names what is missing",
            Some("a kernel from 6.1 on; or run `bulkhead-agent probe --features` on the node"),
        ),
        Some(number) if TRIED.contains(&number) => {
            (Level::Good, "network isolation and measuring: tried on this kernel", None)
        }
        Some(_) => (
            Level::Good,
            "network isolation and measuring: expected, from the kernels before and after it \
             (docs/kernels.md)",
            None,
        ),
    };
    Line {
        about: "kernel",
        level,
        found: release.to_owned(),
        means: means.to_owned(),
        mend: mend.map(ToOwned::to_owned),
    }
}
