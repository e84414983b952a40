//! The end that people ask for.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CliError, Kind};

/// Comes back when somebody wants the program to end: ctrl-C, SIGTERM or a closed terminal.
pub(crate) async fn asked() -> Result<(), CliError> {
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::new(Kind::Output, "listen for signals", error))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
