//! How late pods are registered where no runtime tells of them: from when their cgroup was seen.

use std::collections::BTreeMap;

use bulkhead_core::PodUid;

/// Pods that were registered late, since the agent began. Times are nanoseconds since boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Late {
    /// How many.
    pub registered: u64,
    /// How long the last of them waited, nanoseconds.
    pub last_nanoseconds: u64,
    /// How long the one that waited longest did, nanoseconds.
    pub longest_nanoseconds: u64,
}

/// Pods that wait, and how long others did.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Since when.
    since: BTreeMap<PodUid, u64>,
    late: Late,
}

impl Waits {
    /// A pod's cgroup is there.
    pub(super) fn seen(&mut self, uid: PodUid, at: u64) {
        self.since.entry(uid).or_insert(at);
    }

    /// A pod stands in the kernel's table.
    pub(super) fn registered(&mut self, uid: &PodUid, at: u64) {
        let Some(since) = self.since.remove(uid) else { return };
        let waited = at.saturating_sub(since);
        self.late.registered += 1;
        self.late.last_nanoseconds = waited;
        self.late.longest_nanoseconds = self.late.longest_nanoseconds.max(waited);
    }

    /// Forgets pods that wait for nothing.
    pub(super) fn retain(&mut self, waits: impl Fn(&PodUid) -> bool) {
        self.since.retain(|uid, _| waits(uid));
    }

    /// How long pods waited.
    pub(super) const fn late(&self) -> &Late {
        &self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_last_from_the_first_sight_to_the_table() {
        let uid = |text: &str| text.parse::<PodUid>().unwrap();
        let mut waits = Waits::default();
        waits.seen(uid("1"), 100);
        waits.seen(uid("1"), 150);
        waits.seen(uid("2"), 200);
        waits.seen(uid("3"), 200);
        waits.registered(&uid("1"), 400);
        waits.registered(&uid("1"), 900);
        waits.registered(&uid("never-seen"), 900);
        waits.retain(|it| *it != uid("3"));
        waits.registered(&uid("3"), 5_000);
        waits.registered(&uid("2"), 250);
        let late = Late { registered: 2, last_nanoseconds: 50, longest_nanoseconds: 300 };
        assert_eq!(*waits.late(), late);
    }
}
