//! What accounting carries over a restart of the agent, kept in the journal.

use std::collections::BTreeMap;

use bulkhead_core::{CgroupId, Epoch, Integral, Integrals};
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

/// As bytes for the journal.
pub fn encode(boot_id: &str, integrals: &Integrals) -> Result<Vec<u8>, CheckpointError> {
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
        integrals: integrals.by_cgroup.iter().map(entry).collect(),
    };
    Ok(serde_json::to_vec(&checkpoint)?)
}

/// What the journal held; nothing where it is of another boot.
pub fn decode(boot_id: &str, bytes: &[u8]) -> Result<Integrals, CheckpointError> {
    let checkpoint: Checkpoint = serde_json::from_slice(bytes)?;
    if checkpoint.boot_id != boot_id {
        return Ok(Integrals::default());
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
    Ok(Integrals { by_cgroup })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_core::UnixNanos;

    #[test]
    fn integrals_come_back_in_the_same_boot_only() {
        let mut integrals = Integrals::default();
        integrals.see(CgroupId(7), UnixNanos(5), 10, 1 << 40, u64::MAX);
        integrals.see(CgroupId(7), UnixNanos(5), 1_000_000_010, 1 << 40, u64::MAX);
        let bytes = encode("boot", &integrals).unwrap();
        assert_eq!(decode("boot", &bytes).unwrap(), integrals);
        assert_eq!(decode("another", &bytes).unwrap(), Integrals::default());
        assert!(decode("boot", b"garbage").is_err());
    }
}
