//! The brain of the node agent: pure decisions, no I/O.
