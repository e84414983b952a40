//! Counters: one entry for each cgroup, made and removed by the agent, filled by the programs.

use std::io;
use std::os::fd::OwnedFd;

use aya::maps::{MapInfo, MapType};
use bulkhead_abi::{Cell, ConnectCell, Counters, maps};

use super::error::BpfError;
use super::raw_map::RawMap;
use super::table::is_full;

/// The counters of every cgroup that is counted.
#[derive(Debug)]
pub struct CounterTable {
    capacity: u32,
    /// Possible CPUs of this machine.
    cpus: usize,
    raw: RawMap<u64, Counters>,
}

impl CounterTable {
    /// Takes a map's file descriptor.
    ///
    /// # Safety
    ///
    /// The map is a per-CPU map of `u64` to `Counters` on a machine with `cpus` possible CPUs.
    #[expect(unsafe_code, reason = "passes on what RawMap asks for")]
    pub(super) unsafe fn new(capacity: u32, cpus: usize, map: OwnedFd) -> Self {
        // SAFETY: the caller's; `Counters` is a multiple of 8 bytes.
        let raw = unsafe { RawMap::new(map, cpus) };
        Self { capacity, cpus, raw }
    }

    /// How many cgroups it can count.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Begins to count a cgroup, from zero; says whether it was new. One that is counted already
    /// goes on from where it is.
    pub fn create(&self, cgroup_id: u64) -> Result<bool, BpfError> {
        let zero = vec![Counters::default(); self.cpus];
        match self.raw.write(&cgroup_id, &zero, true) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) if is_full(&error) => {
                let (map, capacity) = (maps::COUNTERS, self.capacity);
                Err(BpfError::TableFull { map, capacity, wanted: 1 })
            }
            Err(error) => Err(BpfError::map("write to", maps::COUNTERS)(error)),
        }
    }

    /// Ends the counting of a cgroup, and returns what had been counted until then.
    pub fn remove(&self, cgroup_id: u64) -> Result<Option<Counters>, BpfError> {
        let last = self.raw.take(&cgroup_id);
        let last = last.map_err(BpfError::map("remove from", maps::COUNTERS))?;
        Ok(last.map(|cpus| sum(&cpus)))
    }

    /// Every cgroup's id and counters, summed over the CPUs, in no order.
    pub fn read_all(&self) -> Result<Vec<(u64, Counters)>, BpfError> {
        let read = self.raw.read_all();
        let (ids, values) = read.map_err(BpfError::map("read", maps::COUNTERS))?;
        Ok(ids.into_iter().zip(values.chunks(self.cpus).map(sum)).collect())
    }
}

/// Reads per-CPU counters of any version: each begins with what this one knows, and may go on
/// behind it.
#[expect(unsafe_code, reason = "a file descriptor becomes a typed map")]
pub(super) fn read_any(info: &MapInfo, map: OwnedFd) -> io::Result<Vec<(u64, Counters)>> {
    if !matches!(info.map_type(), Ok(MapType::PerCpuHash)) || info.key_size() != 8 {
        return Err(io::Error::other("it is no per-CPU table by cgroup"));
    }
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let words = usize::try_from(info.value_size()).map_err(io::Error::other)?.div_ceil(8);
    // SAFETY: keys are 8 bytes; each value of a per-CPU map takes a multiple of 8 bytes.
    let raw = unsafe { RawMap::<u64, u64>::new(map, cpus * words) };
    let (ids, values) = raw.read_all()?;
    let summed = values.chunks(cpus * words).map(|value| {
        let cpus: Vec<_> = value.chunks(words).map(from_words).collect();
        sum(&cpus)
    });
    Ok(ids.into_iter().zip(summed).collect())
}

/// Counters from their words in memory; words that are not there are zero.
fn from_words(words: &[u64]) -> Counters {
    let mut counters = Counters::default();
    let mut words = words.iter().copied();
    let mut next = || words.next().unwrap_or(0);
    for cell in counters.cells.as_flattened_mut().as_flattened_mut() {
        *cell = Cell { packets: next(), bytes: next() };
    }
    for cell in counters.connects.as_flattened_mut() {
        *cell = ConnectCell { denied: next(), would_deny: next() };
    }
    counters
}

fn sum(cpus: &[Counters]) -> Counters {
    cpus.iter().fold(Counters::default(), |mut sum, cpu| {
        let cells = sum.cells.as_flattened_mut().as_flattened_mut();
        for (into, from) in cells.iter_mut().zip(cpu.cells.as_flattened().as_flattened()) {
            let Cell { packets, bytes } = *from;
            into.packets = into.packets.wrapping_add(packets);
            into.bytes = into.bytes.wrapping_add(bytes);
        }
        let connects = sum.connects.as_flattened_mut();
        for (into, from) in connects.iter_mut().zip(cpu.connects.as_flattened()) {
            let ConnectCell { denied, would_deny } = *from;
            into.denied = into.denied.wrapping_add(denied);
            into.would_deny = into.would_deny.wrapping_add(would_deny);
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_another_version_begin_with_ours() {
        let known = size_of::<Counters>() / 8;
        let words: Vec<u64> = (1..=known as u64 + 3).collect();
        let longer = from_words(&words);
        assert_eq!(longer.cells[0][0][0], Cell { packets: 1, bytes: 2 });
        assert_eq!(longer.cells[0][0][1], Cell { packets: 3, bytes: 4 });
        let last = longer.connects[1][5];
        assert_eq!(last.would_deny, known as u64, "the last word that we know");
        let shorter = from_words(&words[..3]);
        assert_eq!(shorter.cells[0][0][1], Cell { packets: 3, bytes: 0 });
        assert_eq!(shorter.connects, Counters::default().connects);
    }

    #[test]
    fn the_sum_is_cell_by_cell() {
        let mut one = Counters::default();
        one.cells[0][1][2] = Cell { packets: 1, bytes: 100 };
        one.connects[1][3] = ConnectCell { denied: 5, would_deny: 6 };
        let mut other = Counters::default();
        other.cells[0][1][2] = Cell { packets: 2, bytes: 200 };
        other.cells[1][5][0] = Cell { packets: 7, bytes: 8 };
        let sum = sum(&[one, other]);
        assert_eq!(sum.cells[0][1][2], Cell { packets: 3, bytes: 300 });
        assert_eq!(sum.cells[1][5][0], Cell { packets: 7, bytes: 8 });
        assert_eq!(sum.connects[1][3], ConnectCell { denied: 5, would_deny: 6 });
        let total: u64 = sum.cells.iter().flatten().flatten().map(|cell| cell.packets).sum();
        assert_eq!(total, 10, "nothing else was touched");
    }
}
