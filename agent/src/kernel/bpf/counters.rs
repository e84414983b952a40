//! Counters: a slot for each cgroup, given and taken back by the agent, filled by the programs.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{MapInfo, MapType};
use bulkhead_abi::{Cell, ConnectCell, Counters, maps};

use super::error::BpfError;
use super::generation::Generation;
use super::grace::GracePeriod;
use super::raw_map::RawMap;

/// The counters of every cgroup that is counted.
#[derive(Debug)]
pub struct CounterTable {
    capacity: u32,
    /// Possible CPUs of this machine.
    cpus: usize,
    slots: RawMap<u64, u32>,
    cells: RawMap<u32, Counters>,
    /// Whether no program that runs can still count in a slot that has been taken back.
    settled: AtomicBool,
    grace_period: GracePeriod,
    generation: Generation,
}

impl CounterTable {
    /// Takes the file descriptors of SLOTS and CELLS.
    ///
    /// # Safety
    ///
    /// The maps are a hash table of `u64` to `u32`, and a per-CPU array of `Counters` with
    /// `capacity` entries on a machine with `cpus` possible CPUs.
    #[expect(unsafe_code, reason = "passes on what RawMap asks for")]
    pub(super) unsafe fn new(
        capacity: u32,
        cpus: usize,
        generation: &Generation,
        grace_period: GracePeriod,
        [slots, cells]: [OwnedFd; 2],
    ) -> Self {
        // SAFETY: the caller's; `Counters` is a multiple of 8 bytes.
        let (slots, cells) = unsafe { (RawMap::new(slots, 1), RawMap::new(cells, cpus)) };
        // The agent before may have been killed when it had just taken a slot back.
        let settled = AtomicBool::new(false);
        let generation = generation.clone();
        Self { capacity, cpus, slots, cells, settled, grace_period, generation }
    }

    /// How many cgroups it can count.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Begins to count a cgroup, from zero; says whether it was new. One that is counted already
    /// goes on from where it is.
    pub fn create(&self, cgroup_id: u64) -> Result<bool, BpfError> {
        let (ids, slots) = self.slots.read_all().map_err(BpfError::map("read", maps::SLOTS))?;
        if ids.contains(&cgroup_id) {
            return Ok(false);
        }
        let taken: HashSet<_> = slots.into_iter().collect();
        let Some(free) = (0..self.capacity).find(|slot| !taken.contains(slot)) else {
            let (map, capacity) = (maps::CELLS, self.capacity);
            return Err(BpfError::TableFull { map, capacity, wanted: 1 });
        };
        if !self.settled.load(Ordering::Relaxed) {
            self.grace_period
                .wait()
                .map_err(BpfError::map("wait for programs with", maps::CELLS))?;
            self.settled.store(true, Ordering::Relaxed);
        }
        let zero = vec![Counters::default(); self.cpus];
        let written = self.cells.write(&free, &zero, false);
        written.map_err(BpfError::map("write to", maps::CELLS))?;
        let written = self.slots.write(&cgroup_id, &[free], true);
        written.map_err(BpfError::map("write to", maps::SLOTS)).map(|()| true)
    }

    /// Ends the counting of a cgroup, and returns what had been counted until then.
    pub fn remove(&self, cgroup_id: u64) -> Result<Option<Counters>, BpfError> {
        let slot = self.slots.lookup(&cgroup_id).map_err(BpfError::map("read", maps::SLOTS))?;
        let Some(&[slot]) = slot.as_deref() else {
            return Ok(None);
        };
        {
            // Sockets know the slot; nobody may count in it when it is another's.
            let _changing = self.generation.change();
            self.settled.store(false, Ordering::Relaxed);
            self.slots.delete(&cgroup_id).map_err(BpfError::map("remove from", maps::SLOTS))?;
        }
        let last = self.cells.lookup(&slot).map_err(BpfError::map("read", maps::CELLS))?;
        Ok(last.map(|cpus| sum(&cpus)))
    }

    /// Every cgroup's id and counters, summed over the CPUs, in no order.
    pub fn read_all(&self) -> Result<Vec<(u64, Counters)>, BpfError> {
        let (ids, slots) = self.slots.read_all().map_err(BpfError::map("read", maps::SLOTS))?;
        // Slots that nobody has are not read: a machine can have many CPUs.
        let read = |(id, slot)| {
            let cpus = self.cells.lookup(&slot).map_err(BpfError::map("read", maps::CELLS))?;
            Ok((id, sum(&cpus.unwrap_or_default())))
        };
        ids.into_iter().zip(slots).map(read).collect()
    }
}

/// A map of any version, and what it is.
pub(super) type AnyMap = (MapInfo, OwnedFd);

/// Reads per-CPU counters of any version: each begins with what this one knows, and may go on
/// behind it. Up to version 2 they were a table by cgroup; since then they are an array, and
/// `slots` says where in it.
#[expect(unsafe_code, reason = "file descriptors become typed maps")]
pub(super) fn read_any(
    (info, map): AnyMap,
    slots: Option<AnyMap>,
) -> io::Result<Vec<(u64, Counters)>> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let words = usize::try_from(info.value_size()).map_err(io::Error::other)?.div_ceil(8);
    let lanes = cpus * words;
    let shape = |info: &MapInfo| (info.map_type().ok(), info.key_size());
    let (ids, values) = match (shape(&info), slots) {
        ((Some(MapType::PerCpuHash), 8), None) => {
            // SAFETY: keys are 8 bytes; each value of a per-CPU map takes a multiple of 8 bytes.
            unsafe { RawMap::<u64, u64>::new(map, lanes) }.read_all()?
        }
        ((Some(MapType::PerCpuArray), 4), Some((index, slots)))
            if shape(&index) == (Some(MapType::Hash), 8) && index.value_size() == 4 =>
        {
            // SAFETY: just looked at; values as above.
            let (slots, cells) =
                unsafe { (RawMap::<u64, u32>::new(slots, 1), RawMap::<u32, u64>::new(map, lanes)) };
            let (ids, slots) = slots.read_all()?;
            let mut values = Vec::new();
            for slot in slots {
                let no_slot = || io::Error::other(format!("it has no slot {slot}"));
                values.extend(cells.lookup(&slot)?.ok_or_else(no_slot)?);
            }
            (ids, values)
        }
        // It was ended before anybody had a slot.
        ((Some(MapType::PerCpuArray), 4), None) => return Ok(Vec::new()),
        _ => return Err(io::Error::other("its counters are of a shape that we do not know")),
    };
    let summed = values.chunks(lanes).map(|value| {
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
