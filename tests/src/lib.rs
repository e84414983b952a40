//! What needs a real kernel, a real runtime or a real cluster.
