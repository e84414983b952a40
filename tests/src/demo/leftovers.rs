//! What a demo could leave behind: finding it, and sweeping up after one that was killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{loaded_links, loaded_programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{prefix, program};
use crate::sandbox::cgroup2_mount;

/// How long a cgroup may take to be empty after its processes were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);

/// The directory of the demo with that process id.
pub(crate) fn home(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{}{pid}", prefix()))
}

/// Numbers by which the kernel knows what was ours. Names would not do: another agent on this
/// machine has programs of the same names.
#[derive(Clone, Default, Debug)]
pub(crate) struct Footprint {
    links: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Footprint {
    /// Adds whatever is pinned below `pins` now.
    pub(crate) fn add(&mut self, pins: &Path) -> Result<()> {
        for version in children(pins)? {
            for link in children(&version.join("links"))? {
                self.add_link(&link)?;
            }
            for map in children(&version.join("maps"))? {
                self.maps.insert(MapInfo::from_pin(&map)?.id());
            }
        }
        Ok(())
    }

    /// Adds a link by its pin, and its program.
    pub(crate) fn add_link(&mut self, pin: &Path) -> Result<()> {
        let info = FdLink::from(PinnedLink::from_pin(pin)?).info()?;
        self.links.insert(info.id());
        self.programs.insert(info.program_id());
        Ok(())
    }

    /// Whether any of the programs may still run: a link that nobody can open any more is not yet
    /// off, but its program has an id until it is.
    pub(crate) fn may_run(&self) -> bool {
        loaded_links().flatten().any(|link| self.links.contains(&link.id()))
            || loaded_programs().flatten().any(|program| self.programs.contains(&program.id()))
    }

    /// How much it is: links, programs, maps.
    pub(crate) fn size(&self) -> [usize; 3] {
        [self.links.len(), self.programs.len(), self.maps.len()]
    }

    /// What of it the kernel still has.
    pub(crate) fn still_there(&self) -> Vec<String> {
        // Others' may vanish between being listed and being opened; that is an error here.
        let links = loaded_links().flatten().map(|link| link.id());
        let links = links.filter(|id| self.links.contains(id)).map(|id| format!("link {id}"));
        let programs = loaded_programs().flatten().map(|program| program.id());
        let programs = programs.filter(|id| self.programs.contains(id));
        let maps = self.maps.iter().filter(|id| MapInfo::from_id(**id).is_ok());
        links
            .chain(programs.map(|id| format!("program {id}")))
            .chain(maps.map(|id| format!("map {id}")))
            .collect()
    }
}

/// Kills what runs in a cgroup and below.
pub(crate) fn kill_cgroup(dir: &Path) -> Result<()> {
    match fs::write(dir.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("kill {}", dir.display())),
    }
}

/// Kills what runs in a cgroup and below, and removes it.
pub(crate) fn remove_cgroup(dir: &Path) -> Result<()> {
    kill_cgroup(dir)?;
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        match remove_tree(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Killed processes take a moment.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            done => return done.with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Everything that has the name of the demo with that process id: cgroups, directories, mounts,
/// processes that were told of its directory.
pub(crate) fn named(pid: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (home, cgroup) = (home(pid), cgroup2_mount()?.join(format!("{}{pid}", prefix())));
    found.extend(
        [&home, &cgroup]
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| format!("{}", path.display())),
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    let ours = format!("{}/", home.display());
    found.extend(mounts.lines().filter(|line| line.contains(&ours)).map(str::to_owned));
    found.extend(processes_of(pid)?.into_iter().map(|process| format!("process {process}")));
    Ok(found)
}

/// Processes whose command line names the directory of the demo with that process id.
fn processes_of(pid: u32) -> Result<Vec<i32>> {
    let name = format!("{}/", home(pid).display());
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        let Some(number) = number.filter(|number| *number != own) else {
            continue;
        };
        // One that ended meanwhile has no command line any more.
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&name) {
            found.extend(number.parse::<i32>());
        }
    }
    Ok(found)
}

/// Processes that are in one of these network namespaces. Without processes, and without a name
/// or an open file, which nobody else ever had, a namespace is gone.
pub(crate) fn in_namespaces(inodes: &[u64]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let path = entry?.path();
        // Only processes have this file, and one that ended meanwhile has none.
        let Ok(namespace) = fs::metadata(path.join("ns/net")) else {
            continue;
        };
        if inodes.contains(&namespace.ino()) {
            found.push(format!("{}", path.display()));
        }
    }
    Ok(found)
}

/// Removes what the demo with that process id left behind: only what has its name.
pub(crate) fn sweep(pid: u32) -> Result<()> {
    for process in processes_of(pid)? {
        // Fails only when it has ended already.
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    remove_cgroup(&cgroup2_mount()?.join(format!("{}{pid}", prefix())))?;
    match fs::remove_dir_all(home(pid)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", home(pid).display()))
        }
        _ => Ok(()),
    }
}

/// Removes what demos that were killed left behind.
pub(crate) fn sweep_dead() -> Result<()> {
    let mut pids = BTreeSet::new();
    for dir in [cgroup2_mount()?, std::env::temp_dir()] {
        for path in children(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            pids.extend(name.strip_prefix(&prefix()).and_then(|pid| pid.parse::<u32>().ok()));
        }
    }
    for pid in pids.into_iter().filter(|pid| !lives(*pid)) {
        eprintln!("sweeping up after {}{pid}, which was killed", prefix());
        sweep(pid)?;
    }
    Ok(())
}

/// Whether that process is a demo that runs: its number may have been given to another, and one
/// that nobody has waited for yet is dead all the same.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    stat.contains(&format!(" ({}) ", program())) && !state.starts_with(['Z', 'X'])
}

fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let entries = entries.with_context(|| format!("list {}", dir.display()))?;
            Ok(entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?)
        }
    }
}
