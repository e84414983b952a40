//! Why a connection ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::EventMask;
use crate::mux::MuxError;
use crate::plugin::Refusal;
use crate::ttrpc::Status;

/// How far a registration got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The plugin introduced itself; the runtime has not configured it.
    Registering,
    /// The plugin said what it wants to be told; the runtime has not told what exists.
    Synchronizing,
    /// Events come.
    Serving,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The plugin's own side asked for it.
    #[error("the plugin was stopped")]
    Stopped,
    /// The runtime said that it goes down.
    #[error("the runtime shuts down")]
    Shutdown,
    /// There is nobody at the socket.
    #[error(
        "cannot connect to the runtime at {}: is NRI enabled in its configuration?", socket.display()
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The runtime refused the plugin's name or index.
    #[error("the runtime refused the plugin: {0}")]
    RegistrationRefused(Status),
    /// The plugin's own `configure` refused the runtime.
    #[error("the plugin refused the runtime: {0}")]
    ConfigurationRefused(Refusal),
    /// The runtime did not go on with the registration.
    #[error("the runtime did not go on with the registration within {after:?} ({stage:?})")]
    RegistrationTimedOut {
        /// How far it got.
        stage: Stage,
        /// How long it had.
        after: Duration,
    },
    /// The runtime closed the connection when it was told what the plugin wants: it does not know
    /// one of the events, or it went down at that moment.
    #[error("the runtime closed the connection after it was asked for these events: {events}")]
    SubscriptionRefused {
        /// What it was asked for.
        events: EventMask,
    },
    /// The runtime closed the connection.
    #[error(
        "the runtime closed the connection{}",
        late.map_or_else(String::new, |method| format!(", while {method} took longer than it allows"))
    )]
    ClosedByRuntime {
        /// The request that was past its time then, if there was one.
        late: Option<&'static str>,
    },
    /// The system took the connection away.
    #[error("the connection to the runtime broke")]
    Broken(#[source] io::Error),
    /// What the runtime sends is not the protocol.
    #[error("what the runtime sends is not NRI: {0}")]
    NotTheProtocol(#[from] MuxError),
}
