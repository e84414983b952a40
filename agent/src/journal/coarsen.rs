//! Telling the same totals in fewer records. No I/O.
//!
//! Counters are cumulative, so of a stretch of time that nobody has read yet each series can be
//! told by its newest values alone: totals stay exact, only the resolution within the stretch is
//! lost. A level (gauge) keeps that of its newest window.

use std::collections::HashMap;

use bulkhead_proto::v1::{UsageBatch, UsageRecord};

/// Where a value is: the batch's sequence and the record's place in it. Later is newer.
type Place = (u64, usize);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Series {
    virtual_cluster: String,
    number: u32,
    cgroup: u64,
    epoch: u64,
}

impl Series {
    fn of(record: &UsageRecord) -> Self {
        Self {
            virtual_cluster: record.virtual_cluster.clone(),
            number: record.virtual_cluster_number,
            cgroup: record.cgroup_id,
            epoch: record.epoch,
        }
    }
}

/// Knows where the newest value of each meter of each series is. Every batch is noted first, in
/// order, then each is reduced.
#[derive(Clone, Debug, Default)]
pub(super) struct Coarsener {
    newest: HashMap<Series, HashMap<u32, Place>>,
}

impl Coarsener {
    /// Takes in a batch that is newer than all before.
    pub(super) fn note(&mut self, batch: &UsageBatch) {
        for (index, record) in batch.records.iter().enumerate() {
            let meters = self.newest.entry(Series::of(record)).or_default();
            for value in &record.values {
                meters.insert(value.meter, (batch.sequence, index));
            }
        }
    }

    /// Takes everything out of a batch that a newer one says too; records that say nothing any
    /// more are dropped. Gives the number of these.
    pub(super) fn reduce(&self, batch: &mut UsageBatch) -> u64 {
        let before = batch.records.len();
        for (index, record) in batch.records.iter_mut().enumerate() {
            let Some(meters) = self.newest.get(&Series::of(record)) else {
                continue;
            };
            let place = (batch.sequence, index);
            record.values.retain(|value| meters.get(&value.meter) == Some(&place));
        }
        batch.records.retain(|record| !record.values.is_empty());
        u64::try_from(before - batch.records.len()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_proto::v1::MeterValue;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Totals = BTreeMap<(String, u64, u64, u32), u64>;

    fn totals(batches: &[UsageBatch]) -> Totals {
        let mut totals = Totals::new();
        for record in batches.iter().flat_map(|batch| &batch.records) {
            for value in &record.values {
                let name = record.virtual_cluster.clone();
                totals.insert((name, record.cgroup_id, record.epoch, value.meter), value.value);
            }
        }
        totals
    }

    fn record() -> impl Strategy<Value = UsageRecord> {
        let values = prop::collection::btree_map(1..5u32, any::<u64>(), 1..4);
        ("[ab]", 0..2u64, 0..2u64, values).prop_map(
            |(virtual_cluster, cgroup_id, epoch, values)| {
                let values = values.into_iter().map(|(meter, value)| MeterValue { meter, value });
                UsageRecord {
                    virtual_cluster,
                    cgroup_id,
                    epoch,
                    values: values.collect(),
                    ..UsageRecord::default()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn totals_stay_exact_and_each_is_told_once(
            records in prop::collection::vec(prop::collection::vec(record(), 0..4), 0..8)
        ) {
            let batches: Vec<UsageBatch> = (1..)
                .zip(records)
                .map(|(sequence, records)| UsageBatch { sequence, records })
                .collect();
            let mut coarsener = Coarsener::default();
            for batch in &batches {
                coarsener.note(batch);
            }
            let mut reduced = batches.clone();
            let dropped: u64 = reduced.iter_mut().map(|batch| coarsener.reduce(batch)).sum();

            prop_assert_eq!(totals(&reduced), totals(&batches));
            let count = |batches: &[UsageBatch]| {
                batches.iter().map(|batch| batch.records.len()).sum::<usize>()
            };
            prop_assert_eq!(u64::try_from(count(&batches) - count(&reduced)).unwrap(), dropped);
            let values = reduced.iter().flat_map(|batch| &batch.records);
            prop_assert_eq!(
                values.map(|record| record.values.len()).sum::<usize>(),
                totals(&batches).len()
            );
        }
    }
}
