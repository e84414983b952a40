//! What can go wrong while a node is probed.

use std::io;

use nix::errno::Errno;

/// A fact about this node could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file could not be read.
    #[error("cannot read {path}; /proc and /sys of the host must be mounted and readable")]
    Read {
        /// The file.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file is not of the form that its documentation gives.
    #[error(
        "{file} holds \"{text}\", which is not {expected}; report it with the kernel's version"
    )]
    Shape {
        /// The file.
        file: &'static str,
        /// What is expected.
        expected: &'static str,
        /// What is there.
        text: String,
    },
    /// The interfaces could not be listed.
    #[error("cannot list the addresses of this network namespace; run in the host's, as root")]
    Addresses {
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
}

impl ProbeError {
    pub(super) fn read(path: &str, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(super) fn shape(file: &'static str, expected: &'static str, text: &str) -> Self {
        let text = text.chars().take(200).collect();
        Self::Shape { file, expected, text }
    }
}
