//! The compiled program against a small controller in this process, over a real unix socket.

mod failures;
mod fixture;
mod get;
mod program;
mod server;
mod top;
mod usage;
mod watch;
