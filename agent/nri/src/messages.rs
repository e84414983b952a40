//! The protocol's messages: package `nri.pkg.api.v1alpha1`.
//!
//! Written by hand, so that nobody needs a protobuf compiler. Fields that this crate does not
//! know, such as those of newer runtimes, are skipped. Left out because nobody needed them yet:
//! seccomp policies, schedulers, RDT, memory policies, network devices, and who owns which field
//! in a validation.

mod adjust;
mod calls;
mod container;
mod pod;
mod resources;

pub use adjust::*;
pub use calls::*;
pub use container::*;
pub use pod::*;
pub use resources::*;
