//! Cgroups, `exec` and the probe on a real kernel, as root.
//!
//! `hierarchy`, `execution` and `counters` run on every machine with cgroup v2; `hybrid` where
//! cgroup v1 holds the controllers; `limits` where cgroup v2 has them; `systemd` where systemd is
//! process 1. On a machine of another kind they fail: whoever runs them chooses by name.

#![expect(clippy::unwrap_used, reason = "what cannot be had here fails the test")]

mod counters;
mod execution;
mod fixture;
mod hierarchy;
mod hybrid;
mod limits;
mod systemd;
mod usage;
