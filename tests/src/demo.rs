//! The whole system at work on this machine: a controller, an agent, three virtual clusters with
//! real processes in network namespaces, and checks of what Bulkhead promises.
//!
//! What happened is told by those who did it: receivers, generators, `getrusage`, interface
//! counters. Nothing here reads Bulkhead's own maps; what Bulkhead says is read the way an
//! operator reads it, with `bulkheadctl`.

mod agent;
mod checks;
mod child;
mod janitor;
mod ledger;
mod leftovers;
mod network;
mod objects;
mod operator;
mod program;
mod report;
mod run;
mod sabotage;
mod wait;
mod world;

pub use janitor::supervise;
pub use report::{Outcome, Report, SabotageOutcome, SabotageReport};
pub use run::{Options, demo, sabotages};
pub use sabotage::Sabotage;
pub use world::Only;

/// Begins the name of everything that a demo makes on a machine; its process id follows.
const PREFIX: &str = "bulkhead-demo-";
