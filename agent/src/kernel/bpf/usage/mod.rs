//! A usage pass without files: a BPF iterator walks the cgroups below our root and copies what the
//! kernel has counted into memory that the agent shares with it.
//!
//! The numbers are those that the files show (docs/usage-fields.md says where each comes from).
//! CPU times are summed over CPUs only when somebody asks, so each pass reads the root's cpu.stat
//! first, which does that for everything below.

mod btf;
mod cputime;
mod layout;
mod program;
mod walk;

use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bulkhead_abi::{CgroupUsage, UsageLayout};
use bulkhead_core::sample::{CpuCounters, Throttled};

use super::object;
use btf::Btf;
use layout::Found;
use walk::Entries;

pub use cputime::Previous;
pub use layout::Field;

/// Room for this many cgroups at first: with the entry before them, about 86 KiB.
const FIRST_ROOM: usize = 255;
/// And never for more.
const MOST_ROOM: usize = 1 << 17;
/// How often it walks at most because somebody was writing what it read.
const MOST_WALKS: u32 = 5;

/// Which cgroups are told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The root and everything below it.
    All,
    /// Those that deep below the cgroup v2 mount (the mount itself is 0).
    Only(u32),
    /// Those at either of two depths, the deeper one last.
    Either([u32; 2]),
}

/// Why there is no usage pass without files.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoIterator(pub String);

/// What this kernel could tell, as far as its types say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ability(Found);

impl Ability {
    /// Looks at this kernel.
    pub fn of_this_kernel() -> Result<Self, NoIterator> {
        read_types(&Field::ALL).map(|(found, _)| Self(found))
    }

    /// What it cannot tell, and why.
    pub fn missing(&self) -> &[(Field, String)] {
        &self.0.missing
    }
}

/// The iterator, loaded and tied to a root.
#[derive(Debug)]
pub struct UsageIterator {
    object: PathBuf,
    root: OwnedFd,
    found: Found,
    function: u32,
    link: OwnedFd,
    entries: Entries,
    room: usize,
    /// The root's cpu.stat.
    flush: File,
}

impl UsageIterator {
    /// Loads it from our object, to tell these fields and no others. `root` is a directory of
    /// cgroup v2.
    pub fn open(
        object: &Path,
        root: BorrowedFd<'_>,
        level: Level,
        fields: &[Field],
    ) -> Result<Self, NoIterator> {
        let (mut found, function) = read_types(fields)?;
        (found.layout.upper_level, found.layout.level) = match level {
            Level::All => (UsageLayout::ABSENT, UsageLayout::ABSENT),
            Level::Only(level) => (UsageLayout::ABSENT, level),
            Level::Either([upper, level]) => (upper, level),
        };
        let root = root.try_clone_to_owned();
        let root = root.map_err(|error| NoIterator(format!("duplicate a descriptor: {error}")))?;
        let path = format!("/proc/self/fd/{}/cpu.stat", super::sys::number(&root));
        let flush = File::open(&path);
        let flush =
            flush.map_err(|error| NoIterator(format!("open the root's cpu.stat: {error}")))?;
        let object = object.to_owned();
        let (link, entries) = tie(&object, &found, function, &root, FIRST_ROOM)?;
        Ok(Self { object, root, found, function, link, entries, room: FIRST_ROOM, flush })
    }

    /// Whether it tells of a field.
    pub fn tells(&self, field: Field) -> bool {
        self.found.missing.iter().all(|(missing, _)| *missing != field)
    }

    /// What it does not tell, and why.
    pub fn missing(&self) -> &[(Field, String)] {
        &self.found.missing
    }

    /// Bytes of kernel memory that its map takes.
    pub const fn map_bytes(&self) -> usize {
        (self.room + 1) * size_of::<CgroupUsage>()
    }

    /// Brings the CPU times of everything below the root up to date. To be followed by a
    /// [`UsageIterator::walk`].
    pub fn flush(&self) -> io::Result<()> {
        let mut text = [0; 64];
        self.flush.read_at(&mut text, 0).map(drop)
    }

    /// Walks, and copies what the kernel has now of each cgroup.
    pub fn walk(&mut self) -> io::Result<()> {
        let mut walks = 1;
        loop {
            self.entries.clear();
            walk::walk(&self.link)?;
            let (told, without_room) = self.entries.told();
            if without_room == 0 {
                let torn = told.iter().any(|entry| entry.cpu[0] != entry.cpu[1]);
                if !torn || walks == MOST_WALKS {
                    return Ok(());
                }
                walks += 1;
                continue;
            }
            let needed = told.len() + usize::try_from(without_room).unwrap_or(usize::MAX);
            let room = (needed.saturating_mul(2) | 0xff).min(MOST_ROOM);
            if room <= self.room {
                let text = format!("more than {MOST_ROOM} cgroups below the root");
                return Err(io::Error::other(text));
            }
            let tied = tie(&self.object, &self.found, self.function, &self.root, room);
            (self.link, self.entries) = tied.map_err(io::Error::other)?;
            self.room = room;
        }
    }

    /// What the last walk told, parents before their children.
    pub fn told(&self) -> &[CgroupUsage] {
        self.entries.told().0
    }

    /// cpu.stat of an entry; `None`: somebody wrote it while it was read, or it has no such entry.
    /// `ours` is kept for this cgroup from pass to pass.
    pub fn cpu(&self, entry: &CgroupUsage, ours: &mut Previous) -> Option<CpuCounters> {
        let has = |part| entry.present & part != 0;
        if !has(CgroupUsage::CPU) || entry.cpu[0] != entry.cpu[1] {
            return None;
        }
        let mut times = cputime::times(&entry.cpu[0], ours);
        if has(CgroupUsage::THROTTLED) {
            times.throttled = Some(Throttled {
                periods: u64::from(entry.throttled_periods),
                nanoseconds: entry.throttled_nanoseconds / 1_000 * 1_000,
            });
        }
        Some(times)
    }

    /// Nanoseconds for which its processes ran, dead ones included.
    pub fn ran(&self, entry: &CgroupUsage) -> u64 {
        entry.cpu[0][0]
    }
}

/// What the kernel's types say, and the number of the function that the program is attached to.
fn read_types(asked: &[Field]) -> Result<(Found, u32), NoIterator> {
    const TYPES: &str = "/sys/kernel/btf/vmlinux";
    if cfg!(not(target_arch = "x86_64")) {
        // The kernel's division of 128 bits is exact on every version there.
        return Err(NoIterator("on this processor it has not been proven".to_owned()));
    }
    let btf = Btf::read(Path::new(TYPES));
    let btf = btf.map_err(|error| NoIterator(format!("{TYPES}: {error}")))?;
    let function = btf.function("bpf_iter_cgroup").ok_or_else(|| {
        NoIterator("this kernel has no BPF iterator over cgroups (Linux 6.1)".to_owned())
    })?;
    // A mount point need not be text.
    let mounts = fs::read("/proc/self/mountinfo");
    let mounts = mounts.map_err(|error| NoIterator(format!("/proc/self/mountinfo: {error}")))?;
    let mounts = String::from_utf8_lossy(&mounts);
    let local = |line: &str| line.contains(" - cgroup2 ") && line.contains("pids_localevents");
    let found = layout::find(&btf, mounts.lines().any(local), asked).map_err(NoIterator)?;
    Ok((found, function))
}

fn tie(
    object: &Path,
    found: &Found,
    function: u32,
    root: &OwnedFd,
    most: usize,
) -> Result<(OwnedFd, Entries), NoIterator> {
    use std::os::fd::AsFd;
    let bytes = object::read(object).map_err(|error| NoIterator(error.to_string()))?;
    let length = u32::try_from(most + 1).unwrap_or(u32::MAX);
    let loaded = program::load(&bytes, &found.layout, length, function).map_err(NoIterator)?;
    let link = walk::link(&loaded.program, root.as_fd())
        .map_err(|error| NoIterator(format!("tie the cgroup iterator to the root: {error}")))?;
    let entries = Entries::map(&loaded.map, most + 1)
        .map_err(|error| NoIterator(format!("map what the cgroup iterator tells: {error}")))?;
    Ok((link, entries))
}
