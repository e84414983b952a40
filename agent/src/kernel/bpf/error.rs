//! What can go wrong, with the object and the mend.

use std::io;
use std::path::PathBuf;

use super::shape::MapShape;

/// Why something about the kernel programs could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The directory for pins is on another kind of file system.
    #[error(
        "{} is not on a BPF file system, where links and maps outlive the agent: \
         `mount -t bpf bpf /sys/fs/bpf`, or name another directory with --bpffs", path.display()
    )]
    NotBpffs {
        /// The directory for pins.
        path: PathBuf,
    },
    /// The root of the hierarchy is not a cgroup v2 directory.
    #[error(
        "{} is not a cgroup v2 directory: name one below the cgroup2 mount with --cgroup-root",
        path.display()
    )]
    NotCgroup {
        /// The root of the hierarchy.
        path: PathBuf,
    },
    /// The object is missing, or is not one of ours.
    #[error("{} is no object of ours ({what}): `cargo xtask build-ebpf` makes it", path.display())]
    Object {
        /// The object.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The object speaks another version of the layouts.
    #[error(
        "{} has ABI {object}, this agent has ABI {agent}: install both from one release",
        path.display()
    )]
    Abi {
        /// The object.
        path: PathBuf,
        /// Its version.
        object: u32,
        /// Ours.
        agent: u32,
    },
    /// A pinned map is not what we would make.
    #[error(
        "map {map}, pinned at {}, is {pinned}, but this agent wants {wanted}: start it with the \
         capacities that it had, or run `bulkhead-agent detach` first, which lifts every limit \
         on traffic and ends its counters", path.display()
    )]
    MapShape {
        /// The map's name.
        map: &'static str,
        /// Where it is pinned.
        path: PathBuf,
        /// What is there.
        pinned: Box<MapShape>,
        /// What we want.
        wanted: Box<MapShape>,
    },
    /// The kernel or aya refused the object.
    #[error("load {}", path.display())]
    Load {
        /// The object.
        path: PathBuf,
        /// Why; for a program, with the verifier's log.
        source: Box<aya::EbpfError>,
    },
    /// The kernel refused a program.
    #[error("load program {program}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// Why, with the verifier's log.
        source: Box<aya::programs::ProgramError>,
    },
    /// A table has no room for what was to be written; nothing of it was.
    #[error(
        "map {map} has room for {capacity} entries and cannot take {wanted} more or changed \
         ones, nothing was written: raise its capacity (`bulkhead-agent detach` first), or give \
         this node fewer virtual clusters"
    )]
    TableFull {
        /// The map's name.
        map: &'static str,
        /// How many entries it can hold.
        capacity: u32,
        /// How many were to be written.
        wanted: usize,
    },
    /// A write failed, and so did taking it back.
    #[error(
        "map {map} holds part of a change that failed and could not be taken back ({write}): the \
         next cycle writes it again"
    )]
    HalfWritten {
        /// The map's name.
        map: &'static str,
        /// The error of the write.
        write: io::Error,
        /// The error of taking it back.
        source: io::Error,
    },
    /// An operation on a map failed.
    #[error("{operation} map {map}")]
    Map {
        /// What was to be done.
        operation: &'static str,
        /// The map's name.
        map: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An operation on a file, pin or link failed.
    #[error("{operation} {}", path.display())]
    File {
        /// What was to be done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BpfError {
    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    pub(super) fn map(operation: &'static str, map: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Map { operation, map, source }
    }
}
