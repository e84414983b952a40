//! Clocks that jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bulkhead_agent::clock::Now;
use bulkhead_core::UnixNanos;
use tokio::time::Instant;

/// When simulations begin: any moment, always the same.
const BEGIN_NANOSECONDS: i64 = 1_900_000_000_000_000_000;

/// The clock of one machine. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    begin: Instant,
    /// How far it is from the truth, milliseconds.
    off: Arc<AtomicI64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), off: Arc::default() }
    }

    /// Somebody sets it.
    pub(crate) fn set_off(&self, milliseconds: i64) {
        self.off.store(milliseconds, Ordering::Relaxed);
    }

    /// Nanoseconds since the Unix epoch, as it says.
    pub(crate) fn wall(&self) -> u64 {
        let elapsed = i64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let off = self.off.load(Ordering::Relaxed) * 1_000_000;
        (BEGIN_NANOSECONDS + elapsed + off).unsigned_abs()
    }

    /// Both clocks of a machine.
    pub(crate) fn now(&self) -> Now {
        let since_boot = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { at: UnixNanos(self.wall()), since_boot_nanoseconds: since_boot }
    }
}
