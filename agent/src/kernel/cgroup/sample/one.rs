//! One cgroup from pass to pass.

use bulkhead_abi::CgroupUsage;
use bulkhead_core::CgroupId;
use bulkhead_core::sample::IoCounters;
use nix::errno::Errno;

use super::super::dir::CgroupDir;
use super::super::error::CgroupError;
use super::files::{FILES, Files, Kinds, take};
use super::refused::Counted;
use super::told::{Telling, take_pressure};
use super::{CgroupReading, SamplerPass};
use crate::kernel::bpf::usage::Previous;

/// Places in [`FILES`].
const CPU_PRESSURE: usize = 1;
const IO_STAT: usize = 6;

/// A cgroup, what is known of it, and what this pass has found so far.
#[derive(Debug)]
pub(super) struct OpenCgroup<K> {
    key: K,
    files: Files,
    refused: Counted,
    /// What cpu.stat would have shown last.
    previous: Previous,
    /// What io.stat said when it was read last.
    io: Option<IoCounters>,
    rest: Rest,
    reading: CgroupReading,
    /// Files that are to be read in this pass.
    wanted: Kinds,
    /// The kernel has brought its totals of PSI up to date for this pass.
    pressure_is_fresh: bool,
    /// Why nothing more of it is read in this pass.
    failure: Option<CgroupError>,
}

/// Whether anything can still wait in a cgroup: totals of PSI grow only while it has a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Rest {
    /// In the pass before it had no process, and its processes had run for that long,
    /// nanoseconds.
    empty_at: Option<u64>,
    /// The totals were brought up to date since.
    settled: bool,
}

impl<K: Ord + Clone> OpenCgroup<K> {
    pub(super) fn open(root: &CgroupDir, path: &str, key: &K) -> Result<Self, CgroupError> {
        let dir = root.child(path)?;
        let id = dir.id()?;
        Ok(Self {
            key: key.clone(),
            refused: Counted::of(&dir)?,
            files: Files::new(dir),
            previous: Previous::default(),
            io: None,
            rest: Rest::default(),
            reading: CgroupReading::nothing(id),
            wanted: Kinds::ALL,
            pressure_is_fresh: false,
            failure: None,
        })
    }

    pub(super) const fn id(&self) -> CgroupId {
        self.reading.id
    }

    pub(super) fn is_known_by(&self, key: &K) -> bool {
        self.key == *key
    }

    /// Lets the kernel bring its totals of PSI up to date, unless nothing can have changed them.
    pub(super) fn refresh_pressure(&mut self, buffer: &mut Vec<u8>) {
        if self.rest.settled {
            return;
        }
        match self.files.read(CPU_PRESSURE, buffer) {
            Ok(text) => self.pressure_is_fresh = text.is_some(),
            Err(error) => self.failure = Some(error),
        }
    }

    /// Begins a pass in which files tell everything, unless something else does.
    pub(super) fn begin(&mut self) {
        self.reading = CgroupReading::nothing(self.id());
        self.wanted = Kinds::ALL;
    }

    pub(super) fn take_told(&mut self, telling: &Telling<'_>, entry: &CgroupUsage) {
        self.wanted = telling.take(entry, &mut self.previous, &mut self.reading);
        let ran = telling.ran(entry);
        let is_empty = entry.present & CgroupUsage::POPULATED != 0 && entry.populated == 0;
        let is_as_before = is_empty && self.rest.empty_at == Some(ran);
        let is_known = self.pressure_is_fresh || self.rest.settled && is_as_before;
        if is_known && take_pressure(entry, &mut self.reading) {
            self.wanted = self.wanted.without(Kinds::PRESSURES);
        }
        let settled = is_as_before && is_known;
        self.rest = Rest { empty_at: is_empty.then_some(ran), settled };
    }

    /// Reads a file, if it is wanted.
    pub(super) fn read(&mut self, index: usize, io_stands: bool, buffer: &mut Vec<u8>) {
        if self.failure.is_some() || !self.wanted.has(index) {
            return;
        }
        if index == IO_STAT && io_stands && self.io.is_some() {
            self.reading.counters.io = self.io;
            return;
        }
        let taken = match self.files.read(index, buffer) {
            Ok(None) => return,
            Ok(Some(text)) => take(&mut self.reading, FILES[index], text)
                .map_err(|source| CgroupError::Shape { path: self.files.path(index), source }),
            Err(error) => Err(error),
        };
        self.failure = taken.err();
        if index == IO_STAT {
            self.io = self.reading.counters.io;
        }
    }

    /// Ends the pass. A cgroup that was removed meanwhile is left out.
    pub(super) fn conclude(&mut self, pass: &mut SamplerPass<K>, buffer: &mut Vec<u8>) {
        self.pressure_is_fresh = false;
        if let Some(pids) = &mut self.reading.counters.pids {
            pids.refused = pids.refused.filter(|_| self.refused.is_whole(buffer));
        }
        match self.failure.take() {
            None => {
                pass.readings.insert(self.key.clone(), self.reading);
            }
            Some(CgroupError::System { errno: Errno::ENODEV, .. }) => {}
            Some(error) => {
                self.io = None;
                pass.failed.insert(self.key.clone(), error);
            }
        }
    }
}
