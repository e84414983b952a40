//! What needs a real kernel, a real runtime or a real cluster.

pub mod bench;
pub mod demo;
pub mod faults;
pub mod sandbox;
