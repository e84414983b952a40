//! One pass of accounting: a sample becomes records.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use bulkhead_abi::Counters;

use super::{Epoch, Integrals, UsageRecord, Window};
use crate::meter::{Meter, NetworkUnit};
use crate::name::{CgroupId, VirtualClusterName, VirtualClusterNumber};
use crate::sample::{CgroupCounters, Sample};

/// What accounting knows besides the sample.
#[derive(Clone, Copy, Debug)]
pub struct Accounting<'a> {
    /// Length of a window, nanoseconds.
    pub window_nanoseconds: NonZeroU64,
    /// Time between samples over which a level is not integrated, nanoseconds.
    pub longest_gap_nanoseconds: u64,
    /// Which number a cgroup's virtual cluster has. A cgroup without one is no member yet: its
    /// counters are cumulative, so the next pass has them.
    pub numbers: &'a BTreeMap<CgroupId, VirtualClusterNumber>,
}

/// Turns a sample into records: one for each life of counters, so that a counter that began
/// again is another series and is never subtracted from the one before.
pub fn account(
    sample: &Sample,
    accounting: Accounting<'_>,
    integrals: &mut Integrals,
) -> Vec<UsageRecord> {
    let of_pods = sample.pods.keys().chain(sample.failed_pods.keys()).copied();
    let alive = sample.virtual_clusters.values().map(|seen| seen.cgroup).chain(of_pods);
    integrals.retain(&alive.collect());
    let window = Window::containing(sample.at, accounting.window_nanoseconds);
    let mut records = Vec::new();
    for (name, seen) in &sample.virtual_clusters {
        let Some(number) = accounting.numbers.get(&seen.cgroup) else {
            continue;
        };
        let record = |epoch, values| record(name, *number, seen.cgroup, epoch, window, values);
        records.extend(record(Epoch(0), cgroup_values(&seen.cgroup_counters)));
        let counters = &seen.cgroup_counters;
        let longest_gap = accounting.longest_gap_nanoseconds;
        let integral = integrated(sample, (seen.cgroup, counters), longest_gap, integrals);
        if let Some((epoch, values)) = integral {
            records.extend(record(epoch, values));
        }
        if let Some(counters) = &seen.network {
            records.extend(record(Epoch(sample.network_epoch.0), network_values(counters)));
        }
        for foreign in &sample.foreign {
            if let Some(counters) = foreign.by_cgroup.get(&seen.cgroup) {
                records.extend(record(Epoch(foreign.epoch.0), network_values(counters)));
            }
        }
    }
    records
}

pub(super) fn record(
    name: &VirtualClusterName,
    number: VirtualClusterNumber,
    cgroup: CgroupId,
    epoch: Epoch,
    window: Window,
    values: BTreeMap<Meter, u64>,
) -> Option<UsageRecord> {
    let virtual_cluster = name.clone();
    (!values.is_empty()).then_some(UsageRecord {
        virtual_cluster,
        number,
        cgroup,
        epoch,
        window,
        values,
    })
}

pub(super) fn integrated(
    sample: &Sample,
    (cgroup, counters): (CgroupId, &CgroupCounters),
    longest_gap_nanoseconds: u64,
    integrals: &mut Integrals,
) -> Option<(Epoch, BTreeMap<Meter, u64>)> {
    let bytes = counters.memory?.current_bytes;
    let integral = integrals.see(
        cgroup,
        sample.at,
        sample.since_boot_nanoseconds,
        bytes,
        longest_gap_nanoseconds,
    );
    let values = BTreeMap::from([(Meter::MEMORY_BYTE_SECONDS, integral.byte_seconds)]);
    Some((integral.epoch, values))
}

/// Everything that the cgroup's files count. What this node does not count is not there, which
/// is not the same as zero.
pub(super) fn cgroup_values(counters: &CgroupCounters) -> BTreeMap<Meter, u64> {
    let CgroupCounters { cpu, memory, io, pids, pressure } = counters;
    let throttled = cpu.and_then(|cpu| cpu.throttled);
    let all = [
        (Meter::CPU_USAGE, cpu.map(|cpu| cpu.usage_nanoseconds)),
        (Meter::CPU_USER, cpu.map(|cpu| cpu.user_nanoseconds)),
        (Meter::CPU_SYSTEM, cpu.map(|cpu| cpu.system_nanoseconds)),
        (Meter::CPU_THROTTLED, throttled.map(|throttled| throttled.nanoseconds)),
        (Meter::CPU_THROTTLED_PERIODS, throttled.map(|throttled| throttled.periods)),
        (Meter::MEMORY_CURRENT, memory.map(|memory| memory.current_bytes)),
        (Meter::MEMORY_PEAK, memory.and_then(|memory| memory.peak_bytes)),
        (Meter::OOM_KILLS, memory.map(|memory| memory.oom_kills)),
        (Meter::IO_READ, io.map(|io| io.read_bytes)),
        (Meter::IO_WRITE, io.map(|io| io.write_bytes)),
        (Meter::IO_READ_OPERATIONS, io.map(|io| io.read_operations)),
        (Meter::IO_WRITE_OPERATIONS, io.map(|io| io.write_operations)),
        (Meter::PIDS_CURRENT, pids.map(|pids| pids.current)),
        (Meter::PIDS_PEAK, pids.and_then(|pids| pids.peak)),
        (Meter::PIDS_REFUSED, pids.and_then(|pids| pids.refused)),
        (Meter::PRESSURE_CPU_SOME, pressure.and_then(|p| p.cpu_some_nanoseconds)),
        (Meter::PRESSURE_MEMORY_SOME, pressure.and_then(|p| p.memory_some_nanoseconds)),
        (Meter::PRESSURE_MEMORY_FULL, pressure.and_then(|p| p.memory_full_nanoseconds)),
        (Meter::PRESSURE_IO_SOME, pressure.and_then(|p| p.io_some_nanoseconds)),
        (Meter::PRESSURE_IO_FULL, pressure.and_then(|p| p.io_full_nanoseconds)),
    ];
    all.into_iter().filter_map(|(meter, value)| Some((meter, value?))).collect()
}

/// Every cell that has counted anything. A cell at zero is the same as no cell: it began at zero
/// with its epoch. One record always says that the counters are there: own bytes sent.
pub(super) fn network_values(counters: &Counters) -> BTreeMap<Meter, u64> {
    let always = Meter::network(0, 0, 0, NetworkUnit::Bytes);
    let mut values = BTreeMap::new();
    let mut take = |meter: Option<Meter>, value: u64| {
        let told = meter.filter(|meter| value != 0 || Some(*meter) == always);
        values.extend(told.map(|meter| (meter, value)));
    };
    for (direction, classes) in counters.cells.iter().enumerate() {
        for (class, outcomes) in classes.iter().enumerate() {
            for (outcome, cell) in outcomes.iter().enumerate() {
                let units =
                    [(NetworkUnit::Bytes, cell.bytes), (NetworkUnit::Packets, cell.packets)];
                for (unit, value) in units {
                    take(Meter::network(direction, class, outcome, unit), value);
                }
            }
        }
    }
    for (kind, classes) in counters.connects.iter().enumerate() {
        for (class, cell) in classes.iter().enumerate() {
            for (would, value) in [(false, cell.denied), (true, cell.would_deny)] {
                take(Meter::refused_calls(kind, class, would), value);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{
        CpuCounters, ForeignCounters, MemoryCounters, UnixNanos, VirtualClusterSample,
    };

    const SECOND: u64 = 1_000_000_000;

    fn sample(at: u64, cgroup: u64, usage: u64, memory: u64) -> Sample {
        let counters = CgroupCounters {
            cpu: Some(CpuCounters { usage_nanoseconds: usage, ..CpuCounters::default() }),
            memory: Some(MemoryCounters { current_bytes: memory, ..MemoryCounters::default() }),
            ..CgroupCounters::default()
        };
        let mut network = Counters::default();
        network.cells[0][3][1].packets = 2;
        network.cells[0][3][1].bytes = 200;
        network.connects[0][3].denied = 5;
        let seen = VirtualClusterSample {
            cgroup: CgroupId(cgroup),
            cgroup_counters: counters,
            network: Some(Box::new(network)),
        };
        Sample {
            at: UnixNanos(at),
            since_boot_nanoseconds: at,
            network_epoch: UnixNanos(77),
            foreign: Vec::new(),
            virtual_clusters: BTreeMap::from([("a".parse().unwrap(), seen)]),
            ..Sample::default()
        }
    }

    fn pass(sample: &Sample, integrals: &mut Integrals) -> Vec<UsageRecord> {
        let number = VirtualClusterNumber::new(4).unwrap();
        let numbers = BTreeMap::from([(CgroupId(9), number), (CgroupId(10), number)]);
        let accounting = Accounting {
            window_nanoseconds: NonZeroU64::new(10 * SECOND).unwrap(),
            longest_gap_nanoseconds: 30 * SECOND,
            numbers: &numbers,
        };
        account(sample, accounting, integrals)
    }

    #[test]
    fn each_life_of_counters_is_a_record_of_its_own() {
        let mut integrals = Integrals::default();
        pass(&sample(12 * SECOND, 9, 50, 1_000), &mut integrals);
        let records = pass(&sample(23 * SECOND, 9, 60, 1_000), &mut integrals);
        let window = Window { start: UnixNanos(20 * SECOND), length_nanoseconds: 10 * SECOND };
        assert!(records.iter().all(|record| record.window == window));
        let of = |epoch| records.iter().find(|record| record.epoch == Epoch(epoch)).unwrap();
        assert_eq!(of(0).values[&Meter::CPU_USAGE], 60);
        assert_eq!(of(12 * SECOND).values[&Meter::MEMORY_BYTE_SECONDS], 11_000);
        let denied = Meter::network(0, 3, 1, NetworkUnit::Bytes).unwrap();
        assert_eq!(of(77).values[&denied], 200);
        assert_eq!(of(77).values[&Meter::refused_calls(0, 3, false).unwrap()], 5);
        assert_eq!(records.len(), 3);
    }

    #[test]
    fn what_another_version_counted_is_a_life_of_its_own() {
        let mut theirs = Counters::default();
        theirs.cells[0][0][0].bytes = 4_000;
        let unknown = (CgroupId(8), Counters::default());
        let by_cgroup = BTreeMap::from([(CgroupId(9), theirs), unknown]);
        let foreign = vec![ForeignCounters { epoch: UnixNanos(55), by_cgroup }];
        let sample = Sample { foreign, ..sample(SECOND, 9, 50, 0) };
        let records = pass(&sample, &mut Integrals::default());
        let of = |epoch| records.iter().filter(move |record| record.epoch == Epoch(epoch));
        let own = Meter::network(0, 0, 0, NetworkUnit::Bytes).unwrap();
        assert_eq!(of(55).map(|record| record.values[&own]).collect::<Vec<_>>(), [4_000]);
        assert_eq!(of(77).map(|record| record.values[&own]).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_is_not_counted_here_is_absent_not_zero() {
        let mut integrals = Integrals::default();
        let records = pass(&sample(SECOND, 9, 50, 0), &mut integrals);
        assert!(records.iter().all(|record| !record.values.contains_key(&Meter::IO_READ)));
        assert!(records.iter().all(|record| !record.values.contains_key(&Meter::CPU_THROTTLED)));
    }

    #[test]
    fn a_new_cgroup_of_the_same_name_is_another_incarnation() {
        let mut integrals = Integrals::default();
        pass(&sample(SECOND, 9, 50, 100), &mut integrals);
        let records = pass(&sample(2 * SECOND, 10, 1, 100), &mut integrals);
        assert!(records.iter().all(|record| record.cgroup == CgroupId(10)));
        let integral = integrals.by_cgroup[&CgroupId(10)];
        assert_eq!((integral.byte_seconds, integral.epoch), (0, Epoch(2 * SECOND)));
        assert!(!integrals.by_cgroup.contains_key(&CgroupId(9)));
    }

    #[test]
    fn a_cgroup_that_is_no_member_yet_waits() {
        let mut integrals = Integrals::default();
        assert_eq!(pass(&sample(SECOND, 11, 50, 100), &mut integrals), vec![]);
    }
}
