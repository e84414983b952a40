//! Points at which tests let the agent die, fail or wait. Without the feature `fault-points`,
//! which no release has, reaching one is nothing at all.
//!
//! With it, the environment variable `FAILPOINTS` says what happens where:
//! `disk.sync=2*off->1*return(kill)` ends the agent as SIGKILL does when it comes there for the
//! third time; `return(error)` and `return(full)` make the operation fail, `sleep(500)` makes it
//! wait.

use std::io;

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A point in the agent's work.
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
    /// Before bytes go to a segment, or to a file that will take another's place.
    DiskWrite = "disk.write";
    /// After that, before they are synced.
    DiskWritten = "disk.written";
    /// After they are synced.
    DiskSynced = "disk.synced";
    /// After a file was begun that will take another's place.
    DiskBegun = "disk.begun";
    /// Before it takes its name.
    DiskRename = "disk.rename";
    /// After that, before the directory is synced.
    DiskRenamed = "disk.renamed";
    /// After the directory is synced.
    DiskDirectorySynced = "disk.directory-synced";
    /// Before a file is cut after a failed write.
    DiskTruncate = "disk.truncate";
    /// After that.
    DiskTruncated = "disk.truncated";
    /// Before an acknowledgement is taken in.
    JournalAcknowledge = "journal.acknowledge";
    /// Before a segment is removed that is acknowledged.
    JournalRemove = "journal.remove";
    /// After that.
    JournalRemoved = "journal.removed";
    /// Before the segments are removed that one coarser segment has replaced.
    JournalCoarsened = "journal.coarsened";
    /// Before the controller's snapshot is kept.
    SnapshotKeep = "snapshot.keep";
    /// After that.
    SnapshotKept = "snapshot.kept";
    /// After the counters of a turn are in the journal, before anything is changed.
    TurnCounted = "turn.counted";
    /// Before a step of the plan.
    StepBegin = "step.begin";
    /// After it.
    StepDone = "step.done";
    /// Before a cgroup is made.
    CgroupCreate = "cgroup.create";
    /// After that.
    CgroupCreated = "cgroup.created";
    /// Before a cgroup file is written.
    CgroupWrite = "cgroup.write";
    /// After that.
    CgroupWritten = "cgroup.written";
    /// Before a cgroup is removed.
    CgroupRemove = "cgroup.remove";
    /// After that.
    CgroupRemoved = "cgroup.removed";
    /// Before the programs are loaded.
    BpfLoad = "bpf.load";
    /// After that, with their tables pinned and nothing attached.
    BpfLoaded = "bpf.loaded";
    /// Before something is pinned.
    BpfPin = "bpf.pin";
    /// After that.
    BpfPinned = "bpf.pinned";
    /// Before a program is attached by a new link.
    BpfAttach = "bpf.attach";
    /// After that, before the link is pinned.
    BpfAttached = "bpf.attached";
    /// Before a link gets another program.
    BpfReplace = "bpf.replace";
    /// After that.
    BpfReplaced = "bpf.replaced";
    /// Before entries are put into a table.
    BpfPut = "bpf.put";
    /// After that.
    BpfPutDone = "bpf.put-done";
    /// Before entries are taken out of a table.
    BpfDelete = "bpf.delete";
    /// After that.
    BpfDeleted = "bpf.deleted";
    /// Before a link is detached.
    BpfDetach = "bpf.detach";
    /// After that, before its pin is removed.
    BpfDetached = "bpf.detached";
    /// After a change of the tables has begun, before the first entry.
    GenerationBegun = "generation.begun";
    /// Before it ends, after the last entry.
    GenerationEnds = "generation.ends";
}

/// Comes to a point.
#[cfg(feature = "fault-points")]
pub fn reach(point: Point) -> io::Result<()> {
    fail::fail_point!(point.name(), |what| happen(what.as_deref()));
    Ok(())
}

/// Comes to a point: nothing.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub const fn reach(_: Point) -> io::Result<()> {
    Ok(())
}

/// As [`reach`], where failing makes no sense.
pub fn pass(point: Point) {
    // Only dying and waiting are meant there.
    let _ = reach(point);
}

#[cfg(feature = "fault-points")]
fn happen(what: Option<&str>) -> io::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    match what {
        Some("kill") => {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            loop {
                std::thread::park();
            }
        }
        Some("full") => Err(io::ErrorKind::StorageFull.into()),
        _ => Err(io::Error::other("a fault point")),
    }
}

/// Takes in what the environment asks for; it holds for as long as the value lives.
#[cfg(feature = "fault-points")]
pub fn arm() -> impl Sized {
    fail::FailScenario::setup()
}

/// A number of the environment, instead of `usual`.
#[cfg(feature = "fault-points")]
pub fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
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
