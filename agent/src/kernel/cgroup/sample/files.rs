//! The counter files of one cgroup, kept open.

use std::fs::File;
use std::path::PathBuf;

use bulkhead_core::sample::{MemoryCounters, PidsCounters, PressureCounters};
use nix::errno::Errno;

use super::super::dir::{CgroupDir, system};
use super::super::error::{CgroupError, Operation, ShapeError};
use super::super::parse;
use super::super::whole::whole;
use super::CgroupReading;

/// In the order in which they are read. A file of a controller that is enabled is there; those
/// of a later kernel may be missing: memory.peak (5.19), pids.peak (6.1).
pub(super) const FILES: [&str; 12] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.current",
    "memory.peak",
    "memory.events",
    "memory.pressure",
    "io.stat",
    "io.pressure",
    "pids.current",
    "pids.peak",
    "pids.events",
    "cgroup.stat",
];

/// Some of [`FILES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self((1 << FILES.len()) - 1);
    pub(super) const CPU_STAT: Self = Self(1);
    pub(super) const MEMORY_CURRENT: Self = Self(1 << 2);
    pub(super) const MEMORY_PEAK: Self = Self(1 << 3);
    pub(super) const MEMORY_EVENTS: Self = Self(1 << 4);
    pub(super) const IO_STAT: Self = Self(1 << 6);
    pub(super) const PRESSURES: Self = Self(1 << 1 | 1 << 5 | 1 << 7);
    pub(super) const PIDS_CURRENT: Self = Self(1 << 8);
    pub(super) const PIDS_PEAK: Self = Self(1 << 9);
    pub(super) const PIDS_EVENTS: Self = Self(1 << 10);
    pub(super) const CGROUP_STAT: Self = Self(1 << 11);

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

/// Takes in the text of one of [`FILES`].
pub(super) fn take(to: &mut CgroupReading, file: &str, text: &str) -> Result<(), ShapeError> {
    match file {
        "cpu.stat" => to.counters.cpu = Some(parse::cpu_stat(text)?),
        "cpu.pressure" => {
            pressures(to).cpu_some_nanoseconds = parse::pressure(text)?.some_nanoseconds;
        }
        "memory.current" => memory(to).current_bytes = parse::single(text)?,
        "memory.peak" => memory(to).peak_bytes = Some(parse::single(text)?),
        "memory.events" => memory(to).oom_kills = parse::oom_kills(text)?,
        "memory.pressure" => {
            let pressure = parse::pressure(text)?;
            pressures(to).memory_some_nanoseconds = pressure.some_nanoseconds;
            pressures(to).memory_full_nanoseconds = pressure.full_nanoseconds;
        }
        "io.stat" => to.counters.io = Some(parse::io_stat(text)?),
        "io.pressure" => {
            let pressure = parse::pressure(text)?;
            pressures(to).io_some_nanoseconds = pressure.some_nanoseconds;
            pressures(to).io_full_nanoseconds = pressure.full_nanoseconds;
        }
        "pids.current" => pids(to).current = parse::single(text)?,
        "pids.peak" => pids(to).peak = Some(parse::single(text)?),
        "pids.events" => pids(to).refused = Some(parse::refused_forks(text)?),
        _ => to.descendants = parse::descendants(text)?,
    }
    Ok(())
}

pub(super) fn memory(to: &mut CgroupReading) -> &mut MemoryCounters {
    to.counters.memory.get_or_insert_default()
}

pub(super) fn pids(to: &mut CgroupReading) -> &mut PidsCounters {
    to.counters.pids.get_or_insert_default()
}

pub(super) fn pressures(to: &mut CgroupReading) -> &mut PressureCounters {
    to.counters.pressure.get_or_insert_default()
}

/// A cgroup's directory and its files, opened when they are first read.
#[derive(Debug)]
pub(super) struct Files {
    dir: CgroupDir,
    files: [Slot; FILES.len()],
}

#[derive(Debug)]
enum Slot {
    Unopened,
    /// It is not there: its controller, or a later kernel, has it.
    Absent,
    Open(File),
}

impl Files {
    pub(super) fn new(dir: CgroupDir) -> Self {
        Self { dir, files: [const { Slot::Unopened }; FILES.len()] }
    }

    /// The text of one of [`FILES`]; `None`: it is not there.
    pub(super) fn read<'b>(
        &mut self,
        index: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<&'b str>, CgroupError> {
        self.open(index)?;
        let Some(Slot::Open(file)) = self.files.get(index) else {
            return Ok(None);
        };
        let bytes = whole(file, buffer).map_err(|errno| self.failed(index, errno))?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.failed(index, Errno::EILSEQ))?;
        Ok(Some(text))
    }

    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.dir.path().join(FILES[index])
    }

    fn failed(&self, index: usize, errno: Errno) -> CgroupError {
        system(Operation::Read, &self.path(index), errno)
    }

    fn open(&mut self, index: usize) -> Result<(), CgroupError> {
        let slot = &mut self.files[index];
        if matches!(slot, Slot::Unopened) {
            *slot = self.dir.open_file(FILES[index])?.map_or(Slot::Absent, Slot::Open);
        }
        Ok(())
    }
}
