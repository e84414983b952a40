//! Usage records between messages and core values.

use std::collections::BTreeMap;

use bulkhead_core::sample::UnixNanos;
use bulkhead_core::usage::{Epoch, UsageRecord, Window};
use bulkhead_core::{CgroupId, Meter, VirtualClusterName, VirtualClusterNumber};

use crate::conversions::ConversionError;
use crate::v1;

/// The last nanosecond that a window may hold: what a signed 64-bit number holds, year 2262.
pub const LATEST_UNIX_NANOSECONDS: u64 = i64::MAX.unsigned_abs();

impl From<&UsageRecord> for v1::UsageRecord {
    fn from(record: &UsageRecord) -> Self {
        Self {
            virtual_cluster: record.virtual_cluster.to_string(),
            virtual_cluster_number: record.number.get(),
            cgroup_id: record.cgroup.0,
            epoch: record.epoch.0,
            window_start_unix_nanoseconds: record.window.start.0,
            window_nanoseconds: record.window.length_nanoseconds,
            values: record
                .values
                .iter()
                .map(|(meter, value)| v1::MeterValue { meter: meter.code(), value: *value })
                .collect(),
        }
    }
}

impl TryFrom<&v1::UsageRecord> for UsageRecord {
    type Error = ConversionError;

    /// A meter that comes twice in one record counts once, with its highest value.
    fn try_from(message: &v1::UsageRecord) -> Result<Self, ConversionError> {
        let wrong = |field: &str, problem: String| ConversionError {
            object: message.virtual_cluster.clone(),
            field: field.to_owned(),
            problem,
        };
        let virtual_cluster: VirtualClusterName = message
            .virtual_cluster
            .parse()
            .map_err(|error| wrong("virtual_cluster", format!("{error}")))?;
        let number = VirtualClusterNumber::new(message.virtual_cluster_number)
            .ok_or_else(|| wrong("virtual_cluster_number", "is 0".to_owned()))?;
        if message.cgroup_id == 0 {
            return Err(wrong("cgroup_id", "is 0, which is no cgroup".to_owned()));
        }
        let mut values = BTreeMap::new();
        for v1::MeterValue { meter, value } in &message.values {
            if *meter == 0 {
                return Err(wrong("values.meter", "is 0, which is no meter".to_owned()));
            }
            let highest = values.entry(Meter::from_code(*meter)).or_insert(*value);
            *highest = (*highest).max(*value);
        }
        if values.is_empty() {
            return Err(wrong("values", "is empty".to_owned()));
        }
        Ok(Self {
            virtual_cluster,
            number,
            cgroup: CgroupId(message.cgroup_id),
            epoch: Epoch(message.epoch),
            window: window(message).map_err(|(field, problem)| wrong(field, problem))?,
            values,
        })
    }
}

fn window(message: &v1::UsageRecord) -> Result<Window, (&'static str, String)> {
    let (start, length) = (message.window_start_unix_nanoseconds, message.window_nanoseconds);
    if length == 0 {
        return Err(("window_nanoseconds", "is 0".to_owned()));
    }
    if !start.is_multiple_of(length) {
        let problem = format!("{start} is no multiple of window_nanoseconds {length}");
        return Err(("window_start_unix_nanoseconds", problem));
    }
    if start.checked_add(length).is_none_or(|end| end > LATEST_UNIX_NANOSECONDS) {
        let problem = format!("{start} is after the year 2262; set the node's clock");
        return Err(("window_start_unix_nanoseconds", problem));
    }
    Ok(Window { start: UnixNanos(start), length_nanoseconds: length })
}
