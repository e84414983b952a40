//! What the iterator tells of a cgroup, as its files would.

use bulkhead_abi::CgroupUsage;
use nix::unistd::{SysconfVar, sysconf};

use super::files::{Kinds, memory, pids, pressures};
use super::{CgroupReading, Descendants};
use crate::kernel::bpf::usage::{Field, Previous, UsageIterator};

/// PSI files print microseconds.
const MICROSECOND: u64 = 1_000;

/// What the root's children may have, besides what every cgroup has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Controllers {
    memory: bool,
    pids: bool,
    pub(super) io: bool,
}

impl Controllers {
    /// From `cgroup.subtree_control`.
    pub(super) fn of(text: &str) -> Self {
        let has = |name| text.split_ascii_whitespace().any(|one| one == name);
        Self { memory: has("memory"), pids: has("pids"), io: has("io") }
    }
}

/// Turns entries into readings.
pub(super) struct Telling<'a> {
    iterator: &'a UsageIterator,
    controllers: Controllers,
    page_bytes: u64,
}

impl<'a> Telling<'a> {
    pub(super) fn new(iterator: &'a UsageIterator, controllers: Controllers) -> Self {
        // Linux never fails to tell its page size; 4 KiB is the least it has.
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let page_bytes = page.and_then(|page| u64::try_from(page).ok()).unwrap_or(4_096);
        Self { iterator, controllers, page_bytes }
    }

    /// Nanoseconds for which its processes ran.
    pub(super) fn ran(&self, entry: &CgroupUsage) -> u64 {
        self.iterator.ran(entry)
    }

    /// Fills in what the entry tells, and gives the files that must tell the rest.
    pub(super) fn take(
        &self,
        entry: &CgroupUsage,
        previous: &mut Previous,
        to: &mut CgroupReading,
    ) -> Kinds {
        let has = |part| entry.present & part != 0;
        if has(CgroupUsage::FAILED) {
            return Kinds::ALL;
        }
        let mut files = Kinds::PRESSURES.with(Kinds::IO_STAT);
        let tells = |field| self.iterator.tells(field);
        let tells_cpu = tells(Field::CpuTimes) && tells(Field::Throttled);
        match self.iterator.cpu(entry, previous) {
            Some(cpu) if tells_cpu => to.counters.cpu = Some(cpu),
            _ => files = files.with(Kinds::CPU_STAT),
        }
        if has(CgroupUsage::DESCENDANTS) {
            to.descendants =
                Descendants { live: entry.descendants.into(), dying: entry.dying.into() };
        } else {
            files = files.with(Kinds::CGROUP_STAT);
        }
        if self.controllers.memory {
            files = files.with(self.memory(entry, to));
        }
        if self.controllers.pids {
            files = files.with(self.pids(entry, to));
        }
        files
    }

    fn memory(&self, entry: &CgroupUsage, to: &mut CgroupReading) -> Kinds {
        if entry.present & CgroupUsage::MEMORY == 0 {
            return Kinds::MEMORY_CURRENT.with(Kinds::MEMORY_PEAK).with(Kinds::MEMORY_EVENTS);
        }
        let mut files = Kinds::NONE;
        memory(to).current_bytes = entry.memory_usage.saturating_mul(self.page_bytes);
        if self.iterator.tells(Field::MemoryPeak) {
            let bytes = entry.memory_watermark.saturating_mul(self.page_bytes);
            memory(to).peak_bytes = Some(bytes);
        } else {
            files = files.with(Kinds::MEMORY_PEAK);
        }
        if self.iterator.tells(Field::OomKills) {
            memory(to).oom_kills = entry.oom_kills;
        } else {
            files = files.with(Kinds::MEMORY_EVENTS);
        }
        files
    }

    fn pids(&self, entry: &CgroupUsage, to: &mut CgroupReading) -> Kinds {
        if entry.present & CgroupUsage::PIDS == 0 {
            return Kinds::PIDS_CURRENT.with(Kinds::PIDS_PEAK).with(Kinds::PIDS_EVENTS);
        }
        let mut files = Kinds::NONE;
        pids(to).current = entry.pids_current;
        if self.iterator.tells(Field::PidsPeak) {
            pids(to).peak = Some(entry.pids_peak);
        } else {
            files = files.with(Kinds::PIDS_PEAK);
        }
        if self.iterator.tells(Field::PidsRefused) {
            pids(to).refused = Some(entry.pids_refused);
        } else {
            files = files.with(Kinds::PIDS_EVENTS);
        }
        files
    }
}

/// The totals of PSI in the kernel's memory, which are those of the files once any of the three
/// was read. False: there are none.
pub(super) fn take_pressure(entry: &CgroupUsage, to: &mut CgroupReading) -> bool {
    if entry.present & CgroupUsage::PRESSURE == 0 {
        return false;
    }
    let [io_some, io_full, memory_some, memory_full, cpu_some] =
        entry.pressure_nanoseconds.map(|total| Some(total / MICROSECOND * MICROSECOND));
    let pressures = pressures(to);
    pressures.cpu_some_nanoseconds = cpu_some;
    (pressures.memory_some_nanoseconds, pressures.memory_full_nanoseconds) =
        (memory_some, memory_full);
    (pressures.io_some_nanoseconds, pressures.io_full_nanoseconds) = (io_some, io_full);
    true
}
