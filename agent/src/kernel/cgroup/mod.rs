//! Our part of the cgroup v2 hierarchy: a root, below it one directory for each virtual cluster,
//! below that leaves with the processes. Nothing above the root is touched, except for the
//! controllers of a plain root directly below the mount (see [`CgroupTree::enable`]).

mod control;
mod dir;
mod enable;
mod error;
mod leaves;
mod observe;
pub mod parse;
mod pods;
mod removal;
mod sample;
mod tree;
mod whole;

use nix::errno::Errno;

pub use dir::CgroupDir;
pub use error::{CgroupError, Operation, ShapeError};
pub use leaves::{EmptyLeaves, Leaf};
pub use observe::Observer;
pub use pods::{Counted, PodTree};
pub use sample::{CgroupReading, Listing, Place, Sampler, SamplerPass};
pub use tree::{CgroupTree, HOLDER, TreeObservation};

/// The kernel's answer in an [`std::io::Error`]; EIO where there is none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
