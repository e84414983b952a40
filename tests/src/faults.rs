//! Fault histories: the real agent and the real controller, killed, starved and lied to, under
//! real traffic and load. What must be true after is known from those who sent, received and
//! burnt; what Bulkhead says is read the way an operator reads it.

mod births;
mod books;
mod chance;
mod clock;
mod disk;
mod history;
mod journal;
mod kills;
mod points;
mod run;
mod sabotage;
mod tighten;
mod traffic;
mod upgrade;

pub use run::{Extent, FaultReport, Wanted, faults, names, sabotages};
pub use sabotage::Sabotage;
