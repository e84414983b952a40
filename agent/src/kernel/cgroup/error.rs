//! What can go wrong with a cgroup, with the path and the way out.

use std::fmt;
use std::path::PathBuf;

use bulkhead_core::control::ControlParseError;
use bulkhead_core::{Control, ControlValue, VirtualClusterName};
use nix::errno::Errno;

/// What was being done to a file or directory of the cgroup file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// open(2)
    Open,
    /// mkdir(2)
    Create,
    /// rmdir(2)
    Remove,
    /// getdents(2)
    List,
    /// read(2)
    Read,
    /// write(2) of this text.
    Write(String),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Create => f.write_str("create"),
            Self::Remove => f.write_str("remove"),
            Self::List => f.write_str("list"),
            Self::Read => f.write_str("read"),
            Self::Write(text) => write!(f, "write \"{text}\" to"),
        }
    }
}

/// Why something could not be done with a cgroup. Nothing else was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel refused.
    #[error("cannot {operation} {}; {}", path.display(), mend(operation, *errno))]
    System {
        /// What was tried.
        operation: Operation,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// A component of a path is a symbolic link.
    #[error(
        "{} is a symbolic link, on the way to {}; cgroup paths are never followed through links: \
         give the directory itself",
        link.display(), path.display()
    )]
    Symlink {
        /// The path that was to be opened.
        path: PathBuf,
        /// Its component that is a link.
        link: PathBuf,
    },
    /// The path cannot be one of a cgroup.
    #[error("{} is no path of a cgroup; give an absolute path without \"..\"", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// The directory is on another file system.
    #[error(
        "{} is not on a cgroup v2 file system (magic {magic:#x}); `bulkhead-agent probe` shows \
         where cgroup v2 is mounted",
        path.display()
    )]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
        /// Magic number of the file system that it is on.
        magic: i64,
    },
    /// The mount shows only a part of the hierarchy.
    #[error(
        "the root of the cgroup v2 hierarchy cannot be reached from {}; run the agent in the \
         host's cgroup namespace, with the host's cgroup v2 mount",
        path.display()
    )]
    PartOfHierarchy {
        /// The directory from which it was searched.
        path: PathBuf,
    },
    /// The virtual cluster has no cgroup on this node.
    #[error(
        "virtual cluster \"{name}\" has no cgroup below {} on this node; see `bulkhead-agent \
         status` for those that have one, or add the virtual cluster to the controller",
        root.display()
    )]
    UnknownVirtualCluster {
        /// Its name.
        name: VirtualClusterName,
        /// Where its cgroup would be.
        root: PathBuf,
    },
    /// The control's file is not there.
    #[error(
        "{} is absent: {}; `bulkhead-agent probe` shows which controls this node can enforce",
        path.display(), absent(*control)
    )]
    ControlAbsent {
        /// The control.
        control: Control,
        /// Its file.
        path: PathBuf,
    },
    /// That control does not take such a value.
    #[error(
        "{control} does not take the value \"{value}\"; this is a mistake in Bulkhead: report it"
    )]
    WrongValue {
        /// The control.
        control: Control,
        /// The value.
        value: ControlValue,
    },
    /// The kernel took the value and shows another.
    #[error(
        "{} reads \"{reads}\" after \"{wrote}\" was written; something else writes to this file, \
         or the kernel cannot keep the value",
        path.display()
    )]
    ReadBack {
        /// The file.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What it reads.
        reads: String,
    },
    /// A file holds what no kernel that we know writes there.
    #[error("{} cannot be understood; report it with the kernel's version", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ShapeError,
    },
    /// A cgroup holds processes.
    #[error(
        "{} holds processes, so it cannot be removed; end them first (`grep -r . {} \
         --include=cgroup.procs` names them)",
        path.display(), path.display()
    )]
    Populated {
        /// The cgroup.
        path: PathBuf,
    },
    /// Killing was asked for in a cgroup that is no test's and no demo's.
    #[error(
        "{} is no cgroup of a test or demo; only those whose name begins with one of {prefixes:?} \
         are ever killed",
        path.display()
    )]
    NotDisposable {
        /// The cgroup.
        path: PathBuf,
        /// Beginnings of names that may be killed.
        prefixes: &'static [&'static str],
    },
    /// The processes did not come to rest, or did not end, in time.
    #[error(
        "{} did not become {state} within {milliseconds} ms; a process in it waits in the kernel \
         (state D in `ps`): see its /proc/PID/stack",
        path.display()
    )]
    Timeout {
        /// The cgroup.
        path: PathBuf,
        /// What was waited for.
        state: &'static str,
        /// How long.
        milliseconds: u128,
    },
}

/// Text of a kernel file that is not of the form that its documentation gives.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShapeError {
    /// A key that must be there is not.
    #[error("it has no {key}")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// Something is no number of the expected range.
    #[error("\"{text}\" is not {what}")]
    NotANumber {
        /// What was expected.
        what: &'static str,
        /// What is there.
        text: String,
    },
    /// A number cannot be kept in the ledger's unit.
    #[error("{value} × {factor} does not fit 64 bits")]
    TooLarge {
        /// The number.
        value: u64,
        /// To the ledger's unit.
        factor: u64,
    },
    /// A control does not parse.
    #[error(transparent)]
    Control(#[from] ControlParseError),
}

const fn absent(control: Control) -> &'static str {
    match control {
        Control::IoWeight => "no iocost or bfq on this node, or the io controller is not enabled",
        Control::CgroupMaxDepth | Control::CgroupMaxDescendants => {
            "only the root cgroup lacks it, and the root is never ours"
        }
        _ => "its controller is not enabled for this cgroup",
    }
}

/// What a person can do about it.
const fn mend(operation: &Operation, errno: Errno) -> &'static str {
    match (operation, errno) {
        (Operation::Write(_), Errno::EBUSY) => {
            "processes are in that cgroup itself, or a child has the controller enabled"
        }
        (Operation::Write(_), Errno::EINVAL | Errno::ERANGE) => {
            "the kernel does not take this value: see cgroup-v2.rst for the control's range"
        }
        (Operation::Write(_), Errno::ENODEV) => {
            "the cgroup was removed meanwhile, or there is no such block device (see lsblk)"
        }
        (Operation::Remove, Errno::EBUSY) => "end the processes in it and remove what is below",
        (Operation::Create, Errno::EAGAIN) => {
            "cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached"
        }
        (Operation::Create, Errno::ENOENT) => "its parent is not there: create that first",
        (_, Errno::EACCES | Errno::EPERM) => {
            "run as root, with cgroup v2 mounted read-write, in the host's cgroup namespace"
        }
        (_, Errno::EROFS) => "mount cgroup v2 read-write",
        (_, Errno::ENOENT | Errno::ENODEV) => "it is not there, or was removed meanwhile",
        (_, Errno::EOPNOTSUPP) => "the cgroup is threaded, or the kernel lacks this",
        (_, Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files (RLIMIT_NOFILE)",
        _ => "see the kernel's answer",
    }
}
