//! A client for the Node Resource Interface (NRI) of containerd and CRI-O: write plugins for
//! container runtimes in Rust.
//!
//! A plugin is told when pods and containers are made, started, changed, stopped and removed on a
//! node, and can adjust or refuse them. See [`Plugin`], then [`run_with_reconnect`]:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use bulkhead_nri::messages::PodSandbox;
//! use bulkhead_nri::{Event, EventMask, Options, Plugin, PluginName, Refusal, RuntimeInfo, State};
//!
//! struct Doorman;
//!
//! impl Plugin for Doorman {
//!     fn events(&self, _: &RuntimeInfo) -> EventMask {
//!         EventMask::of(&[Event::RunPodSandbox])
//!     }
//!
//!     async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Refusal> {
//!         if pod.namespace == "nobody" {
//!             return Err(Refusal::retry_later("nobody may run pods yet"));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # async fn main_of_a_plugin() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(PluginName::new("doorman", 10)?);
//! let (state, _watch) = tokio::sync::watch::channel(State::Connecting);
//! bulkhead_nri::run_with_reconnect(&Arc::new(Doorman), &options, &state, std::future::pending())
//!     .await;
//! # Ok(())
//! # }
//! ```
//!
//! What to know before enforcing anything through NRI: it *fails open*. A runtime goes on without
//! a plugin that is not connected, too slow, or wrong. Look again at what matters once it runs.
//!
//! The layers below can be used by themselves, do no I/O and allocate only for what has arrived:
//! [`mux`] (connections within the connection), [`ttrpc`] (calls), [`messages`] (what is said).

mod connection;
mod dispatch;
mod end;
mod event;
mod link;
pub mod messages;
pub mod mux;
mod options;
mod pending;
mod plugin;
mod reconnect;
mod runtime;
mod session;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
pub mod ttrpc;

pub use connection::{connect, serve};
pub use end::{End, Stage};
pub use event::{Event, EventMask, UnknownEvent};
pub use options::{Backoff, DEFAULT_SOCKET, NameError, Options, PluginName, WhenLate};
pub use plugin::{Plugin, Refusal};
pub use reconnect::run_with_reconnect;
pub use runtime::{CallError, Runtime, RuntimeInfo};
pub use state::State;
