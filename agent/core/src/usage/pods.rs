//! Accounting of pods that stay in the kubelet's cgroups: one series for each pod, and no use from
//! before it was its virtual cluster's.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use bulkhead_abi::Counters;

use super::account::{cgroup_values, integrated, network_values, record};
use super::baseline::Baseline;
use super::{Books, Epoch, UsageRecord, Window};
use crate::name::{CgroupId, VirtualClusterName, VirtualClusterNumber};
use crate::sample::{CgroupCounters, Sample};

/// Whose a pod is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodOwner {
    /// The virtual cluster.
    pub name: VirtualClusterName,
    /// Its number.
    pub number: VirtualClusterNumber,
}

/// What accounting of pods knows besides the sample.
#[derive(Clone, Copy, Debug)]
pub struct PodAccounting<'a> {
    /// Length of a window, nanoseconds.
    pub window_nanoseconds: NonZeroU64,
    /// Time between samples over which a level is not integrated, nanoseconds.
    pub longest_gap_nanoseconds: u64,
    /// Whose each cgroup is; one that is not here is counted for nobody.
    pub owners: &'a BTreeMap<CgroupId, PodOwner>,
    /// The cgroups that are there.
    pub alive: &'a BTreeSet<CgroupId>,
}

/// Turns what was counted for pods into records. A pod that is seen for the first time, or that is
/// another's now, is counted from now on, its network from when its counters began; unless
/// [`Baselines::begin`](super::Baselines::begin) has it from its first.
pub fn account_pods(
    sample: &Sample,
    accounting: PodAccounting<'_>,
    books: &mut Books,
) -> Vec<UsageRecord> {
    let Books { integrals, baselines } = books;
    let known = accounting.alive.iter().chain(sample.pods.keys()).chain(sample.failed_pods.keys());
    baselines.retain(&known.copied().collect());
    let window = Window::containing(sample.at, accounting.window_nanoseconds);
    let mut records = Vec::new();
    for (cgroup, seen) in &sample.pods {
        let Some(owner) = accounting.owners.get(cgroup) else {
            continue;
        };
        let is_new = baselines.new_counters.remove(cgroup);
        let known = baselines.by_cgroup.get(cgroup);
        if known.is_none_or(|known| known.number != owner.number) {
            integrals.forget(*cgroup);
            let network = seen.network.as_deref().filter(|_| !is_new);
            let baseline = baseline(sample, &seen.cgroup_counters, network, owner.number);
            baselines.by_cgroup.insert(*cgroup, baseline);
            baselines.left.remove(cgroup);
        }
        let Some(baseline) = baselines.by_cgroup.get(cgroup) else {
            continue;
        };
        let record =
            |epoch, values| record(&owner.name, owner.number, *cgroup, epoch, window, values);
        let values = baseline.since(cgroup_values(&seen.cgroup_counters));
        records.extend(record(baseline.epoch, values));
        let (counters, gap) = (&seen.cgroup_counters, accounting.longest_gap_nanoseconds);
        let integral = integrated(sample, (*cgroup, counters), gap, integrals);
        records.extend(integral.and_then(|(epoch, values)| record(epoch, values)));
        let own = seen.network.iter().map(|counters| (sample.network_epoch, &**counters));
        let foreign = sample.foreign.iter();
        let foreign = foreign.filter_map(|one| Some((one.epoch, one.by_cgroup.get(cgroup)?)));
        for (epoch, counters) in own.chain(foreign) {
            let since = baseline.network_since(Epoch(epoch.0), network_values(counters));
            records.extend(since.and_then(|(epoch, values)| record(epoch, values)));
        }
    }
    records
}

/// What a pod's counters hold now, as far as it is not its virtual cluster's.
fn baseline(
    sample: &Sample,
    cgroup: &CgroupCounters,
    network: Option<&Counters>,
    number: VirtualClusterNumber,
) -> Baseline {
    let mut values = cgroup_values(cgroup);
    values.extend(network.into_iter().flat_map(network_values));
    let (epoch, network_epoch) = (Epoch(sample.at.0), Epoch(sample.network_epoch.0));
    Baseline { number, epoch, network_epoch, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Meter, NetworkUnit};
    use crate::sample::{CpuCounters, ForeignCounters, MemoryCounters, PodSample, UnixNanos};

    const SECOND: u64 = 1_000_000_000;
    const POD: CgroupId = CgroupId(9);

    fn own_bytes() -> Meter {
        Meter::network(0, 0, 0, NetworkUnit::Bytes).unwrap()
    }

    fn network(bytes: u64) -> Box<Counters> {
        let mut counters = Counters::default();
        counters.cells[0][0][0].bytes = bytes;
        Box::new(counters)
    }

    /// A pod that has used so much CPU and network, and holds 50 bytes.
    fn sample(at: u64, usage: u64, bytes: u64) -> Sample {
        let cpu = CpuCounters { usage_nanoseconds: usage, ..CpuCounters::default() };
        let memory = MemoryCounters { current_bytes: 50, ..MemoryCounters::default() };
        let cgroup_counters =
            CgroupCounters { cpu: Some(cpu), memory: Some(memory), ..CgroupCounters::default() };
        let seen = PodSample { cgroup_counters, network: Some(network(bytes)) };
        Sample {
            at: UnixNanos(at),
            since_boot_nanoseconds: at,
            network_epoch: UnixNanos(77),
            pods: BTreeMap::from([(POD, seen)]),
            ..Sample::default()
        }
    }

    #[derive(Default)]
    struct Rig(Books);

    impl Rig {
        /// One pass, in which the pod is this virtual cluster's; gives each series' last values.
        fn pass(&mut self, sample: &Sample, owner: Option<(&str, u32)>) -> Vec<UsageRecord> {
            let owner = owner.map(|(name, number)| PodOwner {
                name: name.parse().unwrap(),
                number: VirtualClusterNumber::new(number).unwrap(),
            });
            let accounting = PodAccounting {
                window_nanoseconds: NonZeroU64::new(SECOND).unwrap(),
                longest_gap_nanoseconds: 30 * SECOND,
                owners: &owner.map(|owner| (POD, owner)).into_iter().collect(),
                alive: &sample.pods.keys().copied().collect(),
            };
            account_pods(sample, accounting, &mut self.0)
        }
    }

    fn of(records: &[UsageRecord], meter: Meter) -> Vec<(&str, u64, u64)> {
        let value = |record: &UsageRecord| record.values.get(&meter).copied();
        let of = records.iter().filter_map(|record| Some((record, value(record)?)));
        of.map(|(record, value)| (record.virtual_cluster.as_str(), record.epoch.0, value)).collect()
    }

    /// What was sent between its registration and the first sample.
    #[test]
    fn a_pod_that_ran_already_owes_for_every_packet_since_its_counters_began() {
        let mut books = Rig::default();
        books.0.baselines.counters_begin(POD);
        let first = books.pass(&sample(5 * SECOND, 1_000, 300), Some(("a", 1)));
        assert_eq!(of(&first, own_bytes()), [("a", 5 * SECOND, 300)]);
        assert_eq!(of(&first, Meter::CPU_USAGE), [("a", 5 * SECOND, 0)]);
        let second = books.pass(&sample(6 * SECOND, 1_700, 350), Some(("a", 1)));
        assert_eq!(of(&second, own_bytes()), [("a", 5 * SECOND, 350)]);
        // It becomes another's, with the same counters.
        let other = books.pass(&sample(7 * SECOND, 1_700, 360), Some(("b", 2)));
        assert_eq!(of(&other, own_bytes()), [("b", 7 * SECOND, 0)]);
    }

    #[test]
    fn a_pod_that_ran_already_owes_nothing_for_what_was_before() {
        let mut books = Rig::default();
        let first = books.pass(&sample(10 * SECOND, 1_000, 500), Some(("a", 1)));
        assert_eq!(of(&first, Meter::CPU_USAGE), [("a", 10 * SECOND, 0)]);
        assert_eq!(of(&first, own_bytes()), [("a", 10 * SECOND, 0)]);
        let second = books.pass(&sample(11 * SECOND, 1_007, 520), Some(("a", 1)));
        assert_eq!(of(&second, Meter::CPU_USAGE), [("a", 10 * SECOND, 7)]);
        assert_eq!(of(&second, own_bytes()), [("a", 10 * SECOND, 20)]);
        assert_eq!(of(&second, Meter::MEMORY_CURRENT), [("a", 10 * SECOND, 50)]);
        assert_eq!(of(&second, Meter::MEMORY_BYTE_SECONDS), [("a", 10 * SECOND, 50)]);
    }

    #[test]
    fn a_pod_that_was_told_of_before_it_ran_is_counted_from_zero() {
        let mut books = Rig::default();
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        let first = books.pass(&sample(10 * SECOND, 1_000, 500), Some(("a", 1)));
        assert_eq!(of(&first, Meter::CPU_USAGE), [("a", 0, 1_000)]);
        assert_eq!(of(&first, own_bytes()), [("a", 77, 500)]);
        // Another sandbox of the same pod.
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        let second = books.pass(&sample(11 * SECOND, 1_001, 500), Some(("a", 1)));
        assert_eq!(of(&second, Meter::CPU_USAGE), [("a", 0, 1_001)]);
    }

    #[test]
    fn what_was_used_as_one_virtual_clusters_is_never_anothers() {
        let mut books = Rig::default();
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        books.pass(&sample(10 * SECOND, 1_000, 500), Some(("a", 1)));
        books.pass(&sample(11 * SECOND, 1_100, 600), None);
        let moved = books.pass(&sample(12 * SECOND, 1_200, 700), Some(("b", 2)));
        assert_eq!(of(&moved, Meter::CPU_USAGE), [("b", 12 * SECOND, 0)]);
        assert_eq!(of(&moved, own_bytes()), [("b", 12 * SECOND, 0)]);
        assert_eq!(of(&moved, Meter::MEMORY_BYTE_SECONDS), [("b", 12 * SECOND, 0)]);
        let after = books.pass(&sample(13 * SECOND, 1_205, 703), Some(("b", 2)));
        assert_eq!(of(&after, Meter::CPU_USAGE), [("b", 12 * SECOND, 5)]);
        assert_eq!(of(&after, own_bytes()), [("b", 12 * SECOND, 3)]);
    }

    /// Its counters went when it left, and began again when it came back.
    #[test]
    fn a_pod_that_leaves_and_comes_back_owes_for_all_packets_and_for_no_time_between() {
        let mut books = Rig::default();
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        books.pass(&sample(10 * SECOND, 1_000, 500), Some(("a", 1)));
        books.0.baselines.counters_end(POD);
        books.pass(&sample(11 * SECOND, 5_000, 0), None);
        books.0.baselines.counters_begin(POD);
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        let back = books.pass(&sample(12 * SECOND, 9_000, 7), Some(("a", 1)));
        assert_eq!(of(&back, own_bytes()), [("a", 12 * SECOND, 7)], "a series of its own");
        assert_eq!(of(&back, Meter::CPU_USAGE), [("a", 12 * SECOND, 0)]);
        let after = books.pass(&sample(13 * SECOND, 9_100, 9), Some(("a", 1)));
        assert_eq!(of(&after, own_bytes()), [("a", 12 * SECOND, 9)]);
        assert_eq!(of(&after, Meter::CPU_USAGE), [("a", 12 * SECOND, 100)]);
    }

    #[test]
    fn network_counters_that_began_later_are_whole() {
        let mut books = Rig::default();
        books.pass(&sample(10 * SECOND, 1_000, 500), Some(("a", 1)));
        let fresh = Sample {
            network_epoch: UnixNanos(20 * SECOND),
            foreign: vec![
                ForeignCounters {
                    epoch: UnixNanos(77),
                    by_cgroup: BTreeMap::from([(POD, *network(508))]),
                },
                // Of these nobody knows what they held.
                ForeignCounters {
                    epoch: UnixNanos(3),
                    by_cgroup: BTreeMap::from([(POD, *network(9_999))]),
                },
            ],
            ..sample(21 * SECOND, 1_000, 4)
        };
        let records = books.pass(&fresh, Some(("a", 1)));
        assert_eq!(of(&records, own_bytes()), [("a", 20 * SECOND, 4), ("a", 10 * SECOND, 8)]);
    }

    #[test]
    fn a_pod_whose_cgroup_is_gone_is_counted_by_what_the_programs_hold() {
        let mut books = Rig::default();
        books.0.baselines.begin(POD, VirtualClusterNumber::new(1).unwrap());
        let mut gone = sample(10 * SECOND, 0, 640);
        gone.pods.get_mut(&POD).unwrap().cgroup_counters = CgroupCounters::default();
        let records = books.pass(&gone, Some(("a", 1)));
        assert_eq!(of(&records, own_bytes()), [("a", 77, 640)]);
        assert_eq!(records.len(), 1);
        books.pass(&Sample { pods: BTreeMap::new(), ..gone }, None);
        assert!(books.0.baselines.by_cgroup.is_empty());
    }
}
