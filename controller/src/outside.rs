//! What a controller takes from outside: the time, and a place for work that blocks. Passed in,
//! so that a simulation of the whole protocol can be replayed.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task;

/// Work that blocks, and says itself what came of it.
pub type Blocking = Box<dyn FnOnce() + Send>;

/// What a controller takes from outside.
pub trait Outside: fmt::Debug + Send + Sync {
    /// Now, nanoseconds since the Unix epoch.
    fn now(&self) -> u64;

    /// Does the work where it holds nothing else up; or drops it, and the request that it was
    /// for ends with an error.
    fn block(&self, work: Blocking);

    /// Any number, another each time.
    fn random(&self) -> u64 {
        // The hasher's keys are random; more is not needed to tell one process from another.
        RandomState::new().build_hasher().finish()
    }

    /// Largest chunk of a snapshot in bytes, but one virtual cluster always.
    fn chunk_bytes(&self) -> usize {
        1 << 20
    }
}

/// The world as it is.
#[derive(Clone, Copy, Debug)]
pub struct World;

impl Outside for World {
    /// 0 where the clock stands before the epoch.
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        #[cfg(feature = "fault-points")]
        let now = now.saturating_add_signed(crate::faults::clock_offset_seconds() * 1_000_000_000);
        now
    }

    fn block(&self, work: Blocking) {
        task::spawn_blocking(work);
    }
}

/// Work that blocks ended without a result: it panicked, or there was no place for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedEarly;

/// Does work that blocks, and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    outside: &Arc<dyn Outside>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EndedEarly> {
    let (result, done) = oneshot::channel();
    outside.block(Box::new(move || {
        // Whoever asked may be gone.
        let _ = result.send(work());
    }));
    done.await.map_err(|_| EndedEarly)
}
