//! What happened, in order: to compare two runs, and to read when one fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What happened in one run. Clones write into the same.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    begin: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<String>,
    /// The first check that failed.
    broken: Option<String>,
}

impl Trace {
    pub(crate) fn begin() -> Self {
        Self { begin: Instant::now(), inner: Arc::default() }
    }

    /// Writes down what happened now. Nothing that another run would have otherwise: no ids that
    /// chance made, no paths.
    pub(crate) fn say(&self, who: &str, what: impl AsRef<str>) {
        let now = self.begin.elapsed().as_millis();
        self.inner().lines.push(format!("{now:>7} ms {who}: {}", what.as_ref()));
    }

    /// A check failed. The first one counts.
    pub(crate) fn broke(&self, what: String) {
        self.say("CHECK", &what);
        self.inner().broken.get_or_insert(what);
    }

    pub(crate) fn broken(&self) -> Option<String> {
        self.inner().broken.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.inner().lines.clone()
    }

    /// FNV-1a of everything that happened.
    pub(crate) fn hash(&self) -> u64 {
        let inner = self.inner();
        let bytes = inner.lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
