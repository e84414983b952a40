//! The socket, and the loop that serves it.

use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use crate::end::End;
use crate::event::EventMask;
use crate::options::Options;
use crate::plugin::Plugin;
use crate::session::Session;
use crate::state::State;

/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// Calls of the plugin's that wait to be sent.
const CALLS: usize = 16;

/// Connects to the runtime's socket, registers, and serves until the connection ends. Does not
/// connect again: see [`run_with_reconnect`](crate::run_with_reconnect).
///
/// When `stop` is done, requests that were begun are answered and the connection is closed.
pub async fn connect<P: Plugin>(
    plugin: &Arc<P>,
    options: &Options,
    state: &watch::Sender<State>,
    stop: impl Future<Output = ()>,
) -> Arc<End> {
    state.send_replace(State::Connecting);
    let end = Arc::new(attempt(plugin, options, EventMask::ALL, state, pin!(stop)).await);
    disconnected(state, &end);
    end
}

/// As [`connect`], over a connection that exists: such as the one that a runtime gives to a plugin
/// that it starts itself (environment variable `NRI_PLUGIN_SOCKET`).
pub async fn serve<P: Plugin, S: AsyncRead + AsyncWrite>(
    stream: S,
    plugin: &Arc<P>,
    options: &Options,
    state: &watch::Sender<State>,
    stop: impl Future<Output = ()>,
) -> Arc<End> {
    state.send_replace(State::Connecting);
    let end = Arc::new(converse(stream, plugin, options, EventMask::ALL, state, pin!(stop)).await);
    disconnected(state, &end);
    end
}

fn disconnected(state: &watch::Sender<State>, end: &Arc<End>) {
    let (reason, since) = (Arc::clone(end), SystemTime::now());
    state.send_replace(State::Disconnected { reason, since, retry_in: None });
}

/// One connection, from the socket on.
pub(crate) async fn attempt<P: Plugin, F: Future<Output = ()>>(
    plugin: &Arc<P>,
    options: &Options,
    allowed: EventMask,
    state: &watch::Sender<State>,
    mut stop: Pin<&mut F>,
) -> End {
    let connected = tokio::select! {
        biased;
        () = &mut stop => return End::Stopped,
        connected = UnixStream::connect(&options.socket) => connected,
    };
    match connected {
        Ok(stream) => converse(stream, plugin, options, allowed, state, stop).await,
        Err(source) => End::Unreachable { socket: options.socket.clone(), source },
    }
}

async fn converse<P: Plugin, S: AsyncRead + AsyncWrite, F: Future<Output = ()>>(
    stream: S,
    plugin: &Arc<P>,
    options: &Options,
    allowed: EventMask,
    state: &watch::Sender<State>,
    mut stop: Pin<&mut F>,
) -> End {
    let (mut incoming, mut outlet) = tokio::io::split(stream);
    let (calls, mut called) = mpsc::channel(CALLS);
    let mut session = Session::new(plugin, options, allowed, state, calls);
    let mut buffer = vec![0; READ];
    while session.closing().is_none() {
        let deadline = session.next_deadline();
        let (reads, writes) = (session.wants_input(), !session.outgoing().is_empty());
        let (outgoing, running) = session.parts();
        tokio::select! {
            biased;
            () = &mut stop => session.close(End::Stopped),
            written = outlet.write(outgoing), if writes => sent(&mut session, written),
            Some(finished) = running.join_next_with_id() => session.finished(finished),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                session.late();
            }
            read = incoming.read(&mut buffer), if reads => match read {
                Ok(length) if length > 0 => {
                    if let Err(error) = session.receive(&buffer[..length]) {
                        session.close(error.into());
                    }
                }
                Err(error) if !gone(&error) => session.close(End::Broken(error)),
                _ => session.closed(),
            },
            Some(call) = called.recv() => session.update_containers(call),
        }
    }
    drop(called);
    drain(&mut session, &mut outlet, options).await;
    // The runtime sees the end of the connection at once, not when the last half is dropped.
    let _ = outlet.shutdown().await;
    session.into_end()
}

/// Lets the plugin's methods come to their end, and sends their answers.
async fn drain<P: Plugin, W: AsyncWrite + Unpin>(
    session: &mut Session<'_, P>,
    outlet: &mut W,
    options: &Options,
) {
    let until = Instant::now() + options.drain;
    while !(session.parts().1.is_empty() && session.outgoing().is_empty()) {
        let writes = !session.outgoing().is_empty();
        let (outgoing, running) = session.parts();
        let step = async {
            tokio::select! {
                written = outlet.write(outgoing), if writes => Step::Sent(written),
                Some(finished) = running.join_next_with_id() => Step::Finished(finished),
            }
        };
        match timeout_at(until, step).await {
            Ok(Step::Sent(written)) => sent(session, written),
            Ok(Step::Finished(finished)) => session.finished(finished),
            Err(_) => {
                let methods = running.len();
                warn!(methods, after = ?options.drain, "cut off methods of the plugin that still ran");
                return running.shutdown().await;
            }
        }
    }
}

enum Step<F> {
    Sent(io::Result<usize>),
    Finished(F),
}

fn sent<P: Plugin>(session: &mut Session<'_, P>, written: io::Result<usize>) {
    match written {
        Ok(count) if count > 0 => session.sent(count),
        // What the runtime said before it went is still to be read, and tells more.
        Ok(_) => session.mute(),
        Err(error) if gone(&error) => session.mute(),
        Err(error) => {
            session.mute();
            session.close(End::Broken(error));
        }
    }
}

/// Whether the error says nothing but that the other end closed.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
