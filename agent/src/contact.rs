//! Whether the controller is heard of: what it said last may be out of date when it has been away
//! for long, and no longer is when it has told what there is.

use std::time::Duration;

use tokio::time::Instant;

use crate::report::ReportEvent;

/// How long the controller may be away before what it said last may be out of date. Its own
/// restart takes less.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// How long it may take, once it is back, to tell what changed. When it says nothing until then,
/// nothing has.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// How it is with the controller.
#[derive(Debug)]
pub(crate) enum Contact {
    /// What it said is what there is.
    Here,
    /// It was not heard of since then, or since the start.
    Away(Instant),
    /// Not for so long that what it said last may be out of date.
    Stale,
    /// It is back since then, and has not told yet what changed.
    Back(Instant),
}

impl Contact {
    /// At the start: nobody was heard of.
    pub(crate) fn new() -> Self {
        Self::Away(Instant::now())
    }

    /// Waits until this has lasted for so long that it means something else: whether what was said
    /// last may be out of date now.
    pub(crate) async fn lasted(&mut self) -> bool {
        let (until, next) = match self {
            Self::Here | Self::Stale => return std::future::pending().await,
            Self::Away(since) => (*since + STALE_AFTER, Self::Stale),
            Self::Back(since) => (*since + TOLD_WITHIN, Self::Here),
        };
        tokio::time::sleep_until(until).await;
        *self = next;
        matches!(self, Self::Stale)
    }

    /// Takes in what happened on the stream. `Some`: whether what was said last may be out of date
    /// is otherwise than before; to be told after the event.
    pub(crate) fn hear(&mut self, event: &ReportEvent) -> Option<bool> {
        let next = match (event, &*self) {
            (ReportEvent::Connected { .. }, Self::Away(_)) => Self::Here,
            (ReportEvent::Connected { .. }, Self::Stale) => Self::Back(Instant::now()),
            (ReportEvent::Away { .. }, Self::Here) => Self::Away(Instant::now()),
            (ReportEvent::Away { .. }, Self::Back(_)) => Self::Stale,
            (ReportEvent::Snapshot(_), Self::Back(_)) => {
                *self = Self::Here;
                return Some(false);
            }
            _ => return None,
        };
        *self = next;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    fn away() -> ReportEvent {
        ReportEvent::Away { since: SystemTime::UNIX_EPOCH, reason: "gone".to_owned() }
    }

    fn connected() -> ReportEvent {
        let since = SystemTime::UNIX_EPOCH;
        ReportEvent::Connected { since, controller_version: "1".to_owned() }
    }

    /// What is said within so many seconds.
    async fn within(contact: &mut Contact, seconds: u64) -> Option<bool> {
        tokio::time::timeout(Duration::from_secs(seconds), contact.lasted()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_out_of_date_when_nobody_was_heard_of_for_half_a_minute() {
        let mut contact = Contact::new();
        assert_eq!(within(&mut contact, 29).await, None);
        assert_eq!(within(&mut contact, 2).await, Some(true), "since the start");
        assert_eq!(within(&mut contact, 600).await, None, "and once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_of_the_controller_puts_nothing_out_of_date() {
        let mut contact = Contact::new();
        assert_eq!(contact.hear(&connected()), None);
        assert_eq!(within(&mut contact, 600).await, None);
        assert_eq!(contact.hear(&away()), None);
        assert_eq!(within(&mut contact, 20).await, None);
        // That it is still away, for another reason, is no news.
        assert_eq!(contact.hear(&away()), None);
        assert_eq!(within(&mut contact, 5).await, None);
        assert_eq!(contact.hear(&connected()), None);
        assert_eq!(within(&mut contact, 600).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_back_is_believed_when_he_has_told_what_changed() {
        let mut contact = Contact::Stale;
        assert_eq!(contact.hear(&connected()), None);
        assert_eq!(contact.hear(&ReportEvent::Snapshot(Arc::default())), Some(false));
        assert_eq!(contact.hear(&ReportEvent::Snapshot(Arc::default())), None);
        let mut silent = Contact::Stale;
        assert_eq!(silent.hear(&connected()), None);
        assert_eq!(within(&mut silent, 11).await, Some(false), "nothing has changed");
        let mut gone = Contact::Stale;
        assert_eq!(gone.hear(&connected()), None);
        assert_eq!(gone.hear(&away()), None);
        assert_eq!(within(&mut gone, 600).await, None, "it still is out of date");
    }
}
