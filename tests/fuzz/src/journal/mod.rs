//! The journal in a directory: as it is written, as it is damaged, as nobody ever wrote it.

pub mod damage;
pub mod operations;
pub mod segments;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use bulkhead_agent::journal::{Limits, Reader, Sequence};
use bulkhead_core::sample::UnixNanos;
use bulkhead_core::{CgroupId, Epoch, Meter, UsageRecord, VirtualClusterNumber, Window};
use bulkhead_proto::v1::UsageBatch;

/// The boot that is now.
const BOOT: &str = "7f8f6c7e-3ad6-4f4c-8b51-0f5a8f5ad0a1";
/// Room for everything that an input can append, in many segments.
const ROOMY: Limits = Limits { max_bytes: 1 << 20, segment_bytes: 1 << 10 };

/// A record of one cgroup that nothing else has the value of.
fn record(cgroup: u64, value: u64) -> UsageRecord {
    let number = u32::try_from(cgroup).unwrap_or(0).saturating_add(1);
    UsageRecord {
        virtual_cluster: format!("team-{cgroup}").parse().expect("it is a name"),
        number: VirtualClusterNumber::new(number).expect("it is not 0"),
        cgroup: CgroupId(cgroup),
        epoch: Epoch(0),
        window: Window {
            start: UnixNanos(value * 60_000_000_000),
            length_nanoseconds: 60_000_000_000,
        },
        values: BTreeMap::from([(Meter::CPU_USAGE, value), (Meter::MEMORY_CURRENT, value)]),
    }
}

/// The value of the counter in a record that [`record`] made.
fn value_of(record: &bulkhead_proto::v1::UsageRecord) -> Option<u64> {
    let mut values = record.values.iter();
    values.find(|value| value.meter == Meter::CPU_USAGE.code()).map(|value| value.value)
}

/// Every batch after a number with the boot of its chunk, read in small chunks.
fn read(reader: &Reader, after: u64) -> Vec<(String, UsageBatch)> {
    let mut batches: Vec<(String, UsageBatch)> = Vec::new();
    let mut last = after;
    loop {
        let chunk = reader.read_after(Sequence(last), 300).expect("an open journal can be read");
        assert_eq!(chunk.unreadable, Vec::<String>::new(), "what was recovered can be read");
        if chunk.batches.is_empty() {
            return batches;
        }
        for batch in chunk.batches {
            assert!(batch.sequence > last, "{} comes after {last}", batch.sequence);
            last = batch.sequence;
            batches.push((chunk.boot.clone(), batch));
        }
    }
}

/// Every file of the journal with its content.
fn content(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("it is a directory");
    entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file")))
        .collect()
}
