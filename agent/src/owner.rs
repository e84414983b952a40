//! The thread that owns the kernel: events in, reports out.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bulkhead_core::Fact;
use bulkhead_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::clock::Now;
use crate::cycle::Cycle;
use crate::journal::Sequence;
use crate::kernel::seam::Kernel;
use crate::status;

/// What the owner is told or asked.
#[derive(Debug)]
pub enum Event {
    /// The node was told something.
    Learn(Fact),
    /// The controller has every batch up to here.
    Acknowledged(Sequence),
    /// What would the next turn do?
    Plan(oneshot::Sender<Result<Vec<String>, String>>),
    /// Count once more and end. Everything stays in place.
    Shutdown,
}

/// How the owner works.
#[derive(Clone, Debug)]
pub struct Pace {
    /// This node's name.
    pub node: String,
    /// Time between turns without events.
    pub interval: Duration,
}

/// Runs until [`Event::Shutdown`] or until nobody can send events any more.
pub fn run<K: Kernel>(
    mut cycle: Cycle<K>,
    events: &Receiver<Event>,
    statuses: &watch::Sender<v1::NodeStatus>,
    pace: &Pace,
) {
    let mut next = Instant::now();
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let went_on = match events.recv_timeout(wait) {
            Ok(event) => {
                let mut went_on = take(&mut cycle, event);
                // A burst of facts is one change.
                while let (true, Ok(event)) = (went_on.lives(), events.try_recv()) {
                    went_on = went_on.and(take(&mut cycle, event));
                }
                went_on
            }
            Err(RecvTimeoutError::Timeout) => After::Turn,
            Err(RecvTimeoutError::Disconnected) => After::End,
        };
        if went_on == After::Wait {
            continue;
        }
        let now = Now::read();
        let report = cycle.turn(now);
        let backlog = cycle.journal().reader().backlog_records();
        statuses.send_replace(status::node_status(&report, &pace.node, now.at, backlog));
        if went_on == After::End {
            return;
        }
        next = Instant::now() + pace.interval;
    }
}

/// What follows an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum After {
    Wait,
    Turn,
    End,
}

impl After {
    fn lives(self) -> bool {
        self != Self::End
    }

    fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

fn take<K: Kernel>(cycle: &mut Cycle<K>, event: Event) -> After {
    match event {
        Event::Learn(fact) => {
            cycle.learn(fact);
            After::Turn
        }
        Event::Acknowledged(sequence) => {
            if let Err(error) = cycle.journal().acknowledge(sequence) {
                tracing::error!(%error, %sequence, "the journal could not forget what is durable");
            }
            After::Wait
        }
        Event::Plan(reply) => {
            let plan = cycle.preview().map_err(|error| error.to_string());
            // Whoever asked may be gone.
            drop(reply.send(plan));
            After::Wait
        }
        Event::Shutdown => After::End,
    }
}
