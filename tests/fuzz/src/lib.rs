//! Arbitrary input for everything of Bulkhead that reads what others wrote: users, disks, the
//! kernel, other versions of its own programs.
//!
//! Each target is a function of bytes that panics where a promise is broken; the programs of
//! libFuzzer in `targets/` only call them. `cargo xtask fuzz` builds and runs them, and
//! `cargo xtask fuzz TARGET --input FILE` runs one input again.

#[path = "../../../cli/src"]
mod cli {
    //! Of a program, so there is no library to take them from.
    pub(crate) mod units;
    pub(crate) mod when;
}

pub mod cgroup_files;
mod choices;
pub mod config;
pub mod conversions;
pub mod deltas;
pub mod journal;
pub mod messages;
pub mod nri;
pub mod probe_files;
pub mod quantity;
pub mod saved;
pub mod snapshots;
mod values;
mod wire;
pub mod words;
