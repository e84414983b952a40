//! Reading clocks, once for each turn of the cycle; everything else is passed the time.

use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_core::UnixNanos;
use nix::time::{ClockId, clock_gettime};

/// One moment by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Wall clock: decides windows.
    pub at: UnixNanos,
    /// `CLOCK_BOOTTIME`, which never steps: nanoseconds since boot.
    pub since_boot_nanoseconds: u64,
}

impl Now {
    /// Reads both clocks. A wall clock before 1970 reads as 1970.
    pub fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = since_epoch.map_or(0, |since| since.as_nanos());
        #[cfg(feature = "fault-points")]
        let wall = wall.saturating_add_signed(
            i128::from(crate::faults::clock_offset_seconds()) * 1_000_000_000,
        );
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |time| std::time::Duration::from(time).as_nanos());
        Self {
            at: UnixNanos(u64::try_from(wall).unwrap_or(u64::MAX)),
            since_boot_nanoseconds: u64::try_from(since_boot).unwrap_or(u64::MAX),
        }
    }
}
