//! The whole system at work on this machine: a controller, an agent, three virtual clusters with
//! real processes in network namespaces, and checks of what Bulkhead promises.
//!
//! What happened is told by those who did it: receivers, generators, `getrusage`, interface
//! counters. Nothing here reads Bulkhead's own maps; what Bulkhead says is read the way an
//! operator reads it, with `bulkheadctl`.

pub(crate) mod agent;
pub(crate) mod checks;
pub(crate) mod child;
mod janitor;
pub(crate) mod ledger;
pub(crate) mod leftovers;
pub(crate) mod network;
pub(crate) mod objects;
pub(crate) mod operator;
pub(crate) mod program;
mod report;
mod run;
mod sabotage;
pub(crate) mod wait;
pub(crate) mod world;

pub use janitor::supervise;
pub use report::{Outcome, Report, SabotageOutcome, SabotageReport};
pub use run::{Options, demo, sabotages};
pub use sabotage::Sabotage;
pub use world::Only;

/// Begins the name of everything that this program makes on a machine; its process id follows.
/// Each program has its own: nobody takes the work of another for what a dead one left behind.
fn prefix() -> String {
    format!("bulkhead-{}-", program().trim_start_matches("bh-"))
}

/// The name of this program, as the kernel knows it.
fn program() -> String {
    let own = std::env::current_exe().unwrap_or_default();
    let name = own.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // One that was replaced while it runs is told as such.
    name.split(' ').next().unwrap_or_default().to_owned()
}
