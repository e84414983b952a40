//! Tests of the whole journal, on real directories.

mod boots;
mod damage;
mod disk;
mod limits;
mod ordinary;
mod properties;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_core::sample::UnixNanos;
use bulkhead_core::{CgroupId, Epoch, Meter, UsageRecord, VirtualClusterNumber, Window};
use bulkhead_proto::v1::UsageBatch;
use tempfile::TempDir;

use super::{Journal, JournalError, Limits, Reader, Recovered, Sequence};

const BOOT: &str = "7f8f6c7e-3ad6-4f4c-8b51-0f5a8f5ad0a1";
const SMALL: Limits = Limits { max_bytes: 1 << 20, segment_bytes: 1 << 10 };

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(directory: &Path) -> (Journal, Recovered) {
    Journal::open(directory, SMALL, BOOT).unwrap()
}

fn refused(directory: &Path) -> JournalError {
    Journal::open(directory, SMALL, BOOT).unwrap_err()
}

/// A record of one cgroup, with a value of one meter and a gauge.
fn record(cgroup: u64, window: u64, value: u64) -> UsageRecord {
    UsageRecord {
        virtual_cluster: format!("team-{cgroup}").parse().unwrap(),
        number: VirtualClusterNumber::new(u32::try_from(cgroup).unwrap() + 1).unwrap(),
        cgroup: CgroupId(cgroup),
        epoch: Epoch(0),
        window: Window {
            start: UnixNanos(window * 60_000_000_000),
            length_nanoseconds: 60_000_000_000,
        },
        values: BTreeMap::from([(Meter::CPU_USAGE, value), (Meter::MEMORY_CURRENT, window)]),
    }
}

/// Every batch after a number, read in small chunks.
fn read(reader: &Reader, after: Sequence) -> Vec<UsageBatch> {
    let mut batches: Vec<UsageBatch> = Vec::new();
    loop {
        let last = batches.last().map_or(after, |batch| Sequence(batch.sequence));
        let chunk = reader.read_after(last, 300).unwrap();
        assert_eq!(chunk.unreadable, Vec::<String>::new());
        if chunk.batches.is_empty() {
            return batches;
        }
        batches.extend(chunk.batches);
    }
}

fn sequences(batches: &[UsageBatch]) -> Vec<u64> {
    batches.iter().map(|batch| batch.sequence).collect()
}

fn cpu_values(batches: &[UsageBatch]) -> Vec<u64> {
    let records = batches.iter().flat_map(|batch| &batch.records);
    let values = records.flat_map(|record| &record.values);
    values.filter(|value| value.meter == Meter::CPU_USAGE.code()).map(|value| value.value).collect()
}

/// The files of a directory that end so, by name.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    files(directory, ".segment")
}

/// Every file with its content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files(directory, "").into_iter();
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn copy(from: &Path) -> TempDir {
    let to = directory();
    for (path, bytes) in content(from) {
        fs::write(to.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    to
}
