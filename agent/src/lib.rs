//! The node agent: turns facts about virtual clusters into cgroups and eBPF, and measures them.

pub mod admin;
pub mod args;
pub mod checkpoint;
pub mod clock;
pub mod command;
mod contact;
pub mod cycle;
pub mod edge;
pub mod faults;
pub mod health;
pub mod inventory;
pub mod journal;
pub mod kernel;
pub mod owner;
pub mod report;
pub mod snapshot_cache;
pub mod status;
