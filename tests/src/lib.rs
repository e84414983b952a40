//! What needs a real kernel, a real runtime or a real cluster.

pub mod demo;
pub mod sandbox;
