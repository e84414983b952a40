//! The only code that touches the kernel: cgroupfs, bpf(2), processes. Nothing here decides what
//! a virtual cluster may have; it does what it is told, reads it back, and reports what it sees.

pub mod bpf;
pub mod cgroup;
pub mod delegate;
pub mod exec;
#[cfg(test)]
pub mod fake;
pub mod linux;
pub mod overlay;
pub mod probe;
pub mod seam;
pub mod sockets;
mod tables;
