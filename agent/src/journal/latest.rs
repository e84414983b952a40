//! The newest value of everything that was counted in this boot.

use std::collections::BTreeMap;

use bulkhead_core::{CgroupId, Epoch, Meter, UsageRecord, VirtualClusterName};
use bulkhead_proto::v1;

/// Counters that go on from each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Series {
    /// Whose.
    pub virtual_cluster: VirtualClusterName,
    /// The cgroup's incarnation.
    pub cgroup: CgroupId,
    /// The life of these counters.
    pub epoch: Epoch,
}

/// The newest value of each meter of each series that was found when the journal was opened.
/// Segments that the controller has acknowledged are gone, so what has to outlive them belongs
/// into a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Latest(BTreeMap<Series, BTreeMap<Meter, u64>>);

impl Latest {
    /// The newest value of one meter.
    pub fn get(&self, series: &Series, meter: Meter) -> Option<u64> {
        self.0.get(series)?.get(&meter).copied()
    }

    /// Every series with the newest values of its meters.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, &BTreeMap<Meter, u64>)> {
        self.0.iter()
    }

    /// Takes in a batch that is newer than all before.
    pub(super) fn note(&mut self, batch: &v1::UsageBatch) {
        for record in &batch.records {
            // A name that is none was never written by this program.
            let Ok(virtual_cluster) = record.virtual_cluster.parse() else {
                continue;
            };
            let cgroup = CgroupId(record.cgroup_id);
            let series = Series { virtual_cluster, cgroup, epoch: Epoch(record.epoch) };
            let values = record.values.iter();
            let meters = self.0.entry(series).or_default();
            meters.extend(values.map(|value| (Meter::from_code(value.meter), value.value)));
        }
    }
}

/// A record as it is sent and stored.
pub(super) fn message(record: &UsageRecord) -> v1::UsageRecord {
    let values = record.values.iter();
    v1::UsageRecord {
        virtual_cluster: record.virtual_cluster.to_string(),
        virtual_cluster_number: record.number.get(),
        cgroup_id: record.cgroup.0,
        epoch: record.epoch.0,
        window_start_unix_nanoseconds: record.window.start.0,
        window_nanoseconds: record.window.length_nanoseconds,
        values: values
            .map(|(meter, value)| v1::MeterValue { meter: meter.code(), value: *value })
            .collect(),
    }
}
