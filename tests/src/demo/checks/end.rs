//! What is left when all is over: nothing.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::leftovers;
use super::super::sabotage::Sabotage;
use super::super::wait::settle;
use super::super::world::World;
use super::Findings;

/// Programs and maps are freed a grace period after their last user.
const FREED_WITHIN: Duration = Duration::from_secs(10);

/// Checks `nothing-left`.
pub(crate) fn nothing_left(mut world: World) -> Result<Findings> {
    let mut findings = Findings::default();
    world.footprint.add(&world.pins())?;
    let [links, programs, maps] = world.footprint.size();
    findings.see(
        links > 0 && programs > 0 && maps > 0,
        format!("there were {links} links, {programs} programs, {maps} maps"),
    );
    world.end_workloads()?;
    for (name, ended_well, status) in world.end_daemons()? {
        findings.see(ended_well, format!("{name} ended with {status}"));
    }
    let mut detach = world.agent_command();
    let detach = detach.args(["detach", "--cgroups"]).stdin(Stdio::null()).output();
    let detach = detach.context("start bulkhead-agent detach")?;
    let said = String::from_utf8_lossy(&detach.stderr).trim().to_owned();
    findings.see(detach.status.success(), format!("detach ended with {} {said}", detach.status));
    let cgroup_root = world.cgroup_root().to_owned();
    if world.broken(Sabotage::LeaveCgroup) {
        fs::create_dir_all(cgroup_root.join("prod")).context("leave a cgroup behind")?;
    }
    findings.see(!cgroup_root.exists(), format!("{} is gone", cgroup_root.display()));
    let pinned = fs::read_dir(world.pins()).map_or(0, Iterator::count);
    findings.see(pinned == 0, format!("{pinned} pins"));
    let footprint = world.footprint.clone();
    let (left, gone) = settle(FREED_WITHIN, || Ok(footprint.still_there()), Vec::is_empty)?;
    findings.see(gone, format!("{left:?} left in the kernel"));

    let namespaces = world.network.inodes()?;
    drop(world);
    let left = leftovers::in_namespaces(&namespaces)?;
    let count = namespaces.len();
    findings.see(left.is_empty(), format!("{left:?} left in {count} network namespaces"));
    let left = leftovers::named(std::process::id())?;
    findings.see(left.is_empty(), format!("{left:?} left of cgroups, files, mounts, processes"));
    Ok(findings)
}
