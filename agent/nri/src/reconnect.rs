//! Connects, again and again.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::connection::attempt;
use crate::end::End;
use crate::event::EventMask;
use crate::options::Options;
use crate::plugin::Plugin;
use crate::state::State;

/// Keeps the plugin connected until `stop` is done: connects, registers, serves, and begins again
/// after [`Backoff`](crate::Backoff) when a connection ended, for whatever reason. After it
/// returned, the connection is closed and no method of the plugin runs; another process can
/// register in its place.
///
/// A runtime that closes the connection when it is told what the plugin wants does not know one of
/// the events: the next attempt asks for no more than [`EventMask::BASE`]. The attempt after a
/// connection that worked asks for everything again, since the runtime may be a newer one by then.
///
/// `state` always tells how it is.
pub async fn run_with_reconnect<P: Plugin>(
    plugin: &Arc<P>,
    options: &Options,
    state: &watch::Sender<State>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let (mut allowed, mut failures) = (EventMask::ALL, 0u32);
    loop {
        state.send_replace(State::Connecting);
        let began = Instant::now();
        let end = attempt(plugin, options, allowed, state, stop.as_mut()).await;
        let worked = matches!(*state.borrow(), State::Connected { .. });
        if worked && began.elapsed() >= options.backoff.healthy_after {
            failures = 0;
        }
        let smaller = match &end {
            End::SubscriptionRefused { events } => !events.without(EventMask::BASE).is_empty(),
            _ => false,
        };
        allowed = if smaller {
            EventMask::BASE
        } else if worked {
            EventMask::ALL
        } else {
            allowed
        };
        let stopped = matches!(end, End::Stopped);
        let retry_in = (!stopped).then(|| options.backoff.wait(failures));
        let (reason, since) = (Arc::new(end), SystemTime::now());
        report(&reason, retry_in, failures);
        state.send_replace(State::Disconnected { reason, since, retry_in });
        let Some(wait) = retry_in else { return };
        failures = failures.saturating_add(1);
        tokio::select! {
            biased;
            () = &mut stop => {
                let (reason, since) = (Arc::new(End::Stopped), SystemTime::now());
                state.send_replace(State::Disconnected { reason, since, retry_in: None });
                return;
            }
            () = sleep(wait) => {}
        }
    }
}

fn report(reason: &Arc<End>, retry_in: Option<std::time::Duration>, failures: u32) {
    match retry_in {
        None => info!("disconnected from the runtime: {reason}"),
        // A runtime without NRI would fill the log: say it at the 1st, 2nd, 4th, 8th … failure.
        Some(retry_in) if (failures + 1).is_power_of_two() => {
            warn!(?retry_in, failures, "disconnected from the runtime: {reason}");
        }
        Some(_) => {}
    }
}
