//! The kernel programs on a real kernel: what they let through, what they count, and that they
//! outlive the agent. Needs root; `cargo xtask test` runs it.

mod counting;
mod fixture;
mod lifecycle;
mod memory;
mod no_runtime;
mod node_ports;
mod overlay;
mod refusals;
mod sockets;
mod tables;
mod taking_off;
mod verdicts;
mod versions;
