//! What was sent and not acknowledged yet. No I/O; time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u64,
    bytes: usize,
    at: Instant,
}

/// Bounds what is on its way, so that neither side has to hold more.
#[derive(Clone, Debug)]
pub(super) struct Window {
    max_batches: usize,
    max_bytes: usize,
    sent: VecDeque<Sent>,
    bytes: usize,
    /// Of the newest batch that was sent, or what the controller had at the beginning.
    newest: u64,
    acknowledged: u64,
}

impl Window {
    /// Where the controller has everything up to `acknowledged`.
    pub(super) const fn new(max_batches: usize, max_bytes: usize, acknowledged: u64) -> Self {
        let sent = VecDeque::new();
        Self { max_batches, max_bytes, sent, bytes: 0, newest: acknowledged, acknowledged }
    }

    /// Whether so many bytes more may be sent; one batch always may.
    pub(super) fn admits(&self, bytes: usize) -> bool {
        self.sent.is_empty()
            || (self.sent.len() < self.max_batches && self.bytes + bytes <= self.max_bytes)
    }

    /// Nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn sent(&mut self, sequence: u64, bytes: usize, at: Instant) {
        self.sent.push_back(Sent { sequence, bytes, at });
        self.bytes += bytes;
        self.newest = self.newest.max(sequence);
    }

    /// Takes in an acknowledgement. Gives whether it says anything new; `None`: it is of a batch
    /// that was never sent.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Option<bool> {
        if sequence > self.newest {
            return None;
        }
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.sequence <= sequence) {
            self.bytes -= sent.bytes;
        }
        let news = sequence > self.acknowledged;
        self.acknowledged = self.acknowledged.max(sequence);
        Some(news)
    }

    /// When patience with the oldest batch ends, and which that is.
    pub(super) fn deadline(&self, patience: Duration) -> Option<(Instant, u64)> {
        let oldest = self.sent.front()?;
        Some((oldest.at + patience, oldest.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_by_batches_and_bytes() {
        let now = Instant::now();
        let mut window = Window::new(2, 100, 0);
        assert!(window.admits(1_000));
        window.sent(1, 60, now);
        assert!(window.admits(40));
        assert!(!window.admits(41));
        window.sent(2, 10, now);
        assert!(!window.admits(1));
        assert_eq!(window.acknowledge(1), Some(true));
        assert!(window.admits(90));
        assert_eq!(window.acknowledge(2), Some(true));
        assert!(window.is_empty());
    }

    #[test]
    fn late_and_double_acknowledgements_are_no_news() {
        let now = Instant::now();
        let mut window = Window::new(9, 100, 4);
        assert_eq!(window.acknowledge(4), Some(false));
        window.sent(5, 1, now);
        window.sent(9, 1, now);
        assert_eq!(window.acknowledge(7), Some(true));
        assert_eq!(window.acknowledge(5), Some(false));
        assert_eq!(window.acknowledge(10), None);
        let patience = Duration::from_secs(1);
        assert_eq!(window.deadline(patience), Some((now + patience, 9)));
        assert_eq!(window.acknowledge(9), Some(true));
        assert_eq!(window.deadline(patience), None);
    }
}
