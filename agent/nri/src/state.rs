//! How it is with the connection, for those who ask.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::end::End;
use crate::event::EventMask;
use crate::runtime::RuntimeInfo;

/// How it is with the connection.
#[derive(Clone, Debug)]
pub enum State {
    /// Not connected yet, or the runtime has not told yet what exists.
    Connecting,
    /// The runtime took the subscription and told what exists; events come.
    Connected {
        /// The runtime.
        runtime: Arc<RuntimeInfo>,
        /// What the plugin is told: what it wanted and the runtime knows.
        events: EventMask,
        /// Since when.
        since: SystemTime,
    },
    /// Not connected: pods come and go unseen.
    Disconnected {
        /// Why.
        reason: Arc<End>,
        /// Since when.
        since: SystemTime,
        /// When it is tried again; `None` for never.
        retry_in: Option<Duration>,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Connected { runtime, events, .. } => {
                write!(f, "connected to {} {}: {events}", runtime.name, runtime.version)
            }
            Self::Disconnected { reason, .. } => write!(f, "disconnected: {reason}"),
        }
    }
}
