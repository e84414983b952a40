//! A request that the runtime waits for.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::options::WhenLate;

/// A request that is worked on, or was answered in the plugin's place.
pub(crate) struct Pending {
    pub(crate) method: &'static str,
    pub(crate) event: Option<Event>,
    pub(crate) received: Instant,
    /// How long the runtime waits.
    pub(crate) allowed: Duration,
    pub(crate) answered: bool,
}

impl Pending {
    /// When it is answered in the plugin's place; `None` for never.
    pub(crate) fn answer_by(&self, when_late: WhenLate) -> Option<Instant> {
        let waits = self.answered || self.event.is_none() || when_late == WhenLate::Wait;
        (!waits).then(|| self.received + self.nearly_all())
    }

    /// How long the plugin has taken, if that was nearly all that the runtime waits, or more.
    pub(crate) fn too_long(&self) -> Option<Duration> {
        let took = self.received.elapsed();
        (took >= self.nearly_all()).then_some(took)
    }

    /// Whether the runtime waited in vain.
    pub(crate) fn in_vain(&self) -> bool {
        !self.answered && self.received.elapsed() >= self.allowed
    }

    fn nearly_all(&self) -> Duration {
        self.allowed / 10 * 9
    }
}
