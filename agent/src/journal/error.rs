//! What can go wrong with a journal.

use std::io;
use std::path::{Path, PathBuf};

use super::Sequence;

/// Why a journal did not do what was asked. Nothing that it held is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system or the quota is full. Records are cumulative, so the next append that
    /// succeeds makes up for this one: only resolution is lost.
    #[error(
        "{operation} {path}: no space is left; free some on its file system, usage is measured \
         on but not stored meanwhile"
    )]
    DiskFull {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The journal may not grow, and holds nothing that could be told in less.
    #[error(
        "journal {directory} has reached its {max_bytes} bytes and cannot be made smaller; bring \
         the controller back, or allow the journal more"
    )]
    Full {
        /// The journal.
        directory: PathBuf,
        /// Its limit.
        max_bytes: u64,
    },
    /// Numbers would be given that no ledger can keep.
    #[error(
        "journal {directory} would go on behind number {last}, the last that there is; it or the \
         controller's ledger is damaged: move the directory aside, the agent begins another"
    )]
    OutOfNumbers {
        /// The journal.
        directory: PathBuf,
        /// The last number.
        last: u64,
    },
    /// The system refused something else.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "journal {directory} is in use by another agent; stop that one (`fuser {directory}/lock` \
         tells which), or give this one another --state-dir"
    )]
    Locked {
        /// The journal.
        directory: PathBuf,
    },
    /// Not a segment.
    #[error("{path} is no segment of a Bulkhead journal; move it out of this directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer agent.
    #[error(
        "{path} has journal format {version}, this agent knows up to {known}; run the newer \
         agent, or move the file aside: `mv {path} {path}.aside`"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// Segments of two journals lie in one directory.
    #[error(
        "{path} belongs to journal {found}, the others here to {expected}; move it aside: \
         `mv {path} {path}.aside`"
    )]
    Mixed {
        /// The file.
        path: PathBuf,
        /// Its journal.
        found: String,
        /// That of the segments before it.
        expected: String,
    },
    /// A segment lies under another's name.
    #[error("{path} begins with batch {base}, so it was renamed; name it {name} again")]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// Its first sequence number.
        base: u64,
        /// Its name.
        name: String,
    },
    /// The controller cannot have what was never given to it.
    #[error("batch {sequence} cannot be acknowledged: the last in the journal is {last}")]
    NeverWritten {
        /// What was acknowledged.
        sequence: Sequence,
        /// The newest batch.
        last: Sequence,
    },
    /// One record or checkpoint is longer than the format allows.
    #[error("{what} has {bytes} bytes, which is more than a journal's record can hold")]
    TooLong {
        /// A usage record or a checkpoint.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The limits do not fit together.
    #[error(
        "a journal of {max_bytes} bytes in segments of {segment_bytes} is not possible; give it \
         4 segments at least and 4 GiB at most, and a segment 1 KiB at least"
    )]
    Limits {
        /// Limit of all.
        max_bytes: u64,
        /// Limit of one.
        segment_bytes: u64,
    },
    /// What was given is no boot id.
    #[error("\"{boot}\" is no boot id; give the text of /proc/sys/kernel/random/boot_id")]
    Boot {
        /// What was given.
        boot: String,
    },
}

impl JournalError {
    /// Whether it passes by itself once there is space or the controller is back.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Full { .. })
    }

    /// From what the system said.
    pub(super) fn system(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { operation, path, source }
            }
            _ => Self::System { operation, path, source },
        }
    }
}
