//! Points at which tests let the controller die, fail or wait. Without the feature `fault-points`,
//! which no release has, reaching one is nothing at all.
//!
//! With it, the environment variable `FAILPOINTS` says what happens where:
//! `ledger.commit=2*off->1*return(kill)` ends the controller as SIGKILL does when it comes there for the
//! third time; `return(error)` makes a transaction fail, `sleep(500)` makes it wait.

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A point in the controller's work.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Point {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in `FAILPOINTS`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

points! {
    /// After the ledger was opened and has its tables.
    LedgerPrepared = "ledger.prepared";
    /// Before a transaction begins.
    LedgerBegin = "ledger.begin";
    /// Before it is committed.
    LedgerCommit = "ledger.commit";
    /// After that, before anybody is told.
    LedgerCommitted = "ledger.committed";
    /// Before a batch of usage is stored.
    UsageMerge = "usage.merge";
    /// After a generation has its number, before agents are told.
    GenerationCounted = "generation.counted";
    /// Before a chunk of a snapshot goes to an agent.
    SnapshotTell = "snapshot.tell";
    /// Before a batch is acknowledged that is durable.
    UsageAcknowledge = "usage.acknowledge";
    /// After that.
    UsageAcknowledged = "usage.acknowledged";
}

/// Comes to a point.
#[cfg(feature = "fault-points")]
pub(crate) fn reach(point: Point) -> rusqlite::Result<()> {
    fail::fail_point!(point.name(), |what| happen(what.as_deref()));
    Ok(())
}

/// Comes to a point: nothing.
#[cfg(not(feature = "fault-points"))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "with the feature fault-points it can fail")]
pub(crate) const fn reach(_: Point) -> rusqlite::Result<()> {
    Ok(())
}

/// As [`reach`], where failing makes no sense.
pub(crate) fn pass(point: Point) {
    // Only dying and waiting are meant there.
    let _ = reach(point);
}

#[cfg(feature = "fault-points")]
fn happen(what: Option<&str>) -> rusqlite::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    if what == Some("kill") {
        let _ = kill(Pid::this(), Signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    Err(rusqlite::Error::SqliteFailure(error, Some("a fault point".to_owned())))
}

/// Takes in what the environment asks for; it holds for as long as the value lives.
#[cfg(feature = "fault-points")]
pub fn arm() -> impl Sized {
    fail::FailScenario::setup()
}

/// How far the wall clock is set off, in seconds: the content of the file that
/// `BULKHEAD_CLOCK_OFFSET_FILE` names, which may change at any time.
#[cfg(feature = "fault-points")]
pub fn clock_offset_seconds() -> i64 {
    let file = std::env::var_os("BULKHEAD_CLOCK_OFFSET_FILE");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_points_have_one_name() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
