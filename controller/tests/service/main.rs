//! A whole controller in this process: a real ledger, unix sockets in a temporary directory.

#![expect(clippy::unwrap_used, reason = "a test ends with a panic")]

mod bad_input;
mod deltas;
mod objects;
mod operators;
mod running;
mod sync;
mod trust;
