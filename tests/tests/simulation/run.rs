//! Running histories by their seeds.

use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokio::runtime::Builder;

use crate::trace::Trace;
use crate::world::World;

/// Histories where nobody says how many.
const HISTORIES: u64 = 1_000;
/// Tests that share them.
const PARTS: u64 = 8;
/// Lines of a history that failed that are shown.
const SHOWN: usize = 60;

/// A history that came to its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) lines: Vec<String>,
    pub(crate) hash: u64,
    /// Every number of the ledger could be compared exactly.
    pub(crate) is_exact: bool,
}

/// The seed that somebody wants to see again.
pub(crate) fn replayed() -> Option<u64> {
    number("BULKHEAD_SIM_SEED")
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The seeds of one part.
pub(crate) fn seeds(part: u64) -> Range<u64> {
    let all = number("BULKHEAD_SIM_SEEDS").unwrap_or(HISTORIES);
    all * part / PARTS..all * (part + 1) / PARTS
}

/// Runs one history. Where a check fails, shows how it came to that and how to see it again.
pub(crate) fn history(seed: u64) -> Outcome {
    let place = place();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    let trace = runtime.block_on(async { Trace::begin() });
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { World::new(seed, place.path(), &trace).run().await })
    }));
    let failure = match ran {
        Ok(Ok(is_exact)) => {
            return Outcome { lines: trace.lines(), hash: trace.hash(), is_exact };
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic".to_owned())
        }
    };
    let lines = trace.lines();
    let last = &lines[lines.len().saturating_sub(SHOWN)..];
    panic!(
        "{}\n\nseed {seed}: {failure}\nto see it again: BULKHEAD_SIM_SEED={seed} cargo test -p \
         bulkhead-tests --test simulation a_seed -- --nocapture",
        last.join("\n")
    );
}

/// A directory for the files of one history; in memory where the system has such a place.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
    made.expect("a directory can be made")
}
