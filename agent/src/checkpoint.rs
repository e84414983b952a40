//! What accounting carries over a restart of the agent, kept in the journal.

use std::collections::BTreeMap;

use bulkhead_core::{
    Baseline, Baselines, Books, CgroupId, Epoch, Integral, Integrals, Meter, VirtualClusterNumber,
};
use serde::{Deserialize, Serialize};

/// Why a checkpoint was not taken up.
#[derive(Debug, thiserror::Error)]
#[error("the journal's checkpoint cannot be read; time integrals begin again at zero")]
pub struct CheckpointError(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    /// Cgroup ids mean nothing in another boot.
    boot_id: String,
    integrals: Vec<Entry>,
    /// An agent from before pods were registered has none.
    #[serde(default)]
    baselines: Vec<PodEntry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    cgroup: u64,
    epoch: u64,
    byte_seconds: u64,
    rest_byte_nanoseconds: u64,
    last_bytes: u64,
    last_since_boot_nanoseconds: u64,
}

#[derive(Serialize, Deserialize)]
struct PodEntry {
    cgroup: u64,
    number: u32,
    epoch: u64,
    network_epoch: u64,
    values: BTreeMap<u32, u64>,
}

impl From<(&CgroupId, &Baseline)> for PodEntry {
    fn from((cgroup, baseline): (&CgroupId, &Baseline)) -> Self {
        Self {
            cgroup: cgroup.0,
            number: baseline.number.get(),
            epoch: baseline.epoch.0,
            network_epoch: baseline.network_epoch.0,
            values: baseline.values.iter().map(|(meter, value)| (meter.code(), *value)).collect(),
        }
    }
}

impl PodEntry {
    fn baseline(self) -> Option<(CgroupId, Baseline)> {
        let values = self.values.into_iter();
        let baseline = Baseline {
            number: VirtualClusterNumber::new(self.number)?,
            epoch: Epoch(self.epoch),
            network_epoch: Epoch(self.network_epoch),
            values: values.map(|(meter, value)| (Meter::from_code(meter), value)).collect(),
        };
        Some((CgroupId(self.cgroup), baseline))
    }
}

/// As bytes for the journal.
pub fn encode(boot_id: &str, books: &Books) -> Result<Vec<u8>, CheckpointError> {
    let entry = |(cgroup, integral): (&CgroupId, &Integral)| Entry {
        cgroup: cgroup.0,
        epoch: integral.epoch.0,
        byte_seconds: integral.byte_seconds,
        rest_byte_nanoseconds: integral.rest_byte_nanoseconds,
        last_bytes: integral.last_bytes,
        last_since_boot_nanoseconds: integral.last_since_boot_nanoseconds,
    };
    let checkpoint = Checkpoint {
        boot_id: boot_id.to_owned(),
        integrals: books.integrals.by_cgroup.iter().map(entry).collect(),
        baselines: books.baselines.by_cgroup.iter().map(PodEntry::from).collect(),
    };
    Ok(serde_json::to_vec(&checkpoint)?)
}

/// What the journal held; nothing where it is of another boot.
pub fn decode(boot_id: &str, bytes: &[u8]) -> Result<Books, CheckpointError> {
    let checkpoint: Checkpoint = serde_json::from_slice(bytes)?;
    if checkpoint.boot_id != boot_id {
        return Ok(Books::default());
    }
    let integral = |entry: Entry| {
        let integral = Integral {
            epoch: Epoch(entry.epoch),
            byte_seconds: entry.byte_seconds,
            rest_byte_nanoseconds: entry.rest_byte_nanoseconds,
            last_bytes: entry.last_bytes,
            last_since_boot_nanoseconds: entry.last_since_boot_nanoseconds,
        };
        (CgroupId(entry.cgroup), integral)
    };
    let by_cgroup: BTreeMap<_, _> = checkpoint.integrals.into_iter().map(integral).collect();
    let baselines = checkpoint.baselines.into_iter().filter_map(PodEntry::baseline);
    Ok(Books {
        integrals: Integrals { by_cgroup },
        baselines: Baselines { by_cgroup: baselines.collect(), ..Baselines::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_core::UnixNanos;

    #[test]
    fn the_books_come_back_in_the_same_boot_only() {
        let mut books = Books::default();
        books.integrals.see(CgroupId(7), UnixNanos(5), 10, 1 << 40, u64::MAX);
        books.integrals.see(CgroupId(7), UnixNanos(5), 1_000_000_010, 1 << 40, u64::MAX);
        let baseline = Baseline {
            number: VirtualClusterNumber::new(3).unwrap(),
            epoch: Epoch(5),
            network_epoch: Epoch(2),
            values: BTreeMap::from([(Meter::CPU_USAGE, u64::MAX)]),
        };
        books.baselines.by_cgroup.insert(CgroupId(9), baseline);
        let bytes = encode("boot", &books).unwrap();
        assert_eq!(decode("boot", &bytes).unwrap(), books);
        assert_eq!(decode("another", &bytes).unwrap(), Books::default());
        assert!(decode("boot", b"garbage").is_err());
    }

    #[test]
    fn what_an_older_agent_kept_is_taken_up() {
        let older = br#"{"boot_id":"boot","integrals":[]}"#;
        assert_eq!(decode("boot", older).unwrap(), Books::default());
    }
}
