//! What must have been added to the ledger: no more, no less.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::super::operator::{Counters, Usage};
use super::super::wait::{self, settle};
use super::super::world::World;
use super::Findings;

/// What must have been added to the counters of one virtual cluster, direction and class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    virtual_cluster: &'static str,
    direction: &'static str,
    class: &'static str,
    counters: Counters,
}

impl Added {
    /// Nothing, so far.
    pub(super) fn new(
        virtual_cluster: &'static str,
        direction: &'static str,
        class: &'static str,
    ) -> Self {
        Self { virtual_cluster, direction, class, counters: Counters::default() }
    }

    /// Packets and bytes that passed.
    pub(super) fn passed(mut self, packets: u64, bytes: u64) -> Self {
        self.counters.passed_packets = packets;
        self.counters.passed_bytes = bytes;
        self
    }

    /// Packets and bytes that were dropped.
    pub(super) fn denied(mut self, packets: u64, bytes: u64) -> Self {
        self.counters.denied_packets = packets;
        self.counters.denied_bytes = bytes;
        self
    }

    /// Calls that were refused.
    pub(super) fn refused_calls(mut self, connects: u64, sendmsgs: u64) -> Self {
        self.counters.denied_connects = connects;
        self.counters.denied_sendmsgs = sendmsgs;
        self
    }

    fn really(&self, before: &Usages, after: &Usages) -> Counters {
        let of = |usages: &Usages| {
            let usage = usages.get(self.virtual_cluster);
            usage.map(|usage| usage.network(self.direction, self.class)).unwrap_or_default()
        };
        of(after) - of(before)
    }
}

/// What every virtual cluster used.
pub(super) type Usages = BTreeMap<String, Usage>;

/// What the ledger has when everything until now is in it: counters are sampled every second.
pub(super) fn baseline(world: &World) -> Result<Usages> {
    let operator = &world.operator;
    // The first window that begins after now: whoever sampled in it has seen all that was.
    let next = Timestamp::from_second(Timestamp::now().as_second() + 1)?;
    wait::until("all that was until now is in the ledger", world.patience(), |note| {
        if Timestamp::now() <= next {
            return Ok(None);
        }
        let seen = operator.usage_since(next)?;
        let covered = |usage: &&Usage| {
            let network = usage.network.as_ref();
            network.is_some_and(|network| network.coverage.covered_nanoseconds > 0)
        };
        let count = seen.values().filter(covered).count();
        *note = format!("of {count} virtual clusters since {next}");
        Ok((count == VIRTUAL_CLUSTERS).then_some(()))
    })?;
    operator.usage()
}

/// How many there are in the demo.
const VIRTUAL_CLUSTERS: usize = 3;

/// How long a right number must stay right: a few samples and windows, in which anything that is
/// counted twice would come in.
const STAYS: Duration = Duration::from_secs(3);

/// Waits until exactly this has been added since `before`, and sees that it stays so.
pub(super) fn compare(
    world: &World,
    before: &Usages,
    wanted: &[Added],
    patience: Duration,
) -> Result<Findings> {
    let operator = &world.operator;
    let right =
        |after: &Usages| wanted.iter().all(|added| added.really(before, after) == added.counters);
    let (mut after, reached) = settle(patience, || operator.usage(), right)?;
    if reached {
        // Until it is wrong, or long enough.
        (after, _) = settle(STAYS, || operator.usage(), |after| !right(after))?;
    }
    let mut findings = Findings::default();
    for added in wanted {
        let really = added.really(before, &after);
        findings.see(really == added.counters, told(added, really));
    }
    Ok(findings)
}

/// What was added, with what was wanted beside each number that differs.
fn told(added: &Added, really: Counters) -> String {
    let wanted = added.counters;
    let numbers = [
        ("packets passed", really.passed_packets, wanted.passed_packets),
        ("bytes passed", really.passed_bytes, wanted.passed_bytes),
        ("packets denied", really.denied_packets, wanted.denied_packets),
        ("bytes denied", really.denied_bytes, wanted.denied_bytes),
        ("connects refused", really.denied_connects, wanted.denied_connects),
        ("sendmsgs refused", really.denied_sendmsgs, wanted.denied_sendmsgs),
    ];
    let shown = numbers.iter().filter(|(_, really, wanted)| *really != 0 || *wanted != 0);
    let shown: Vec<String> = shown
        .map(|(what, really, wanted)| {
            if really == wanted {
                format!("{really} {what}")
            } else {
                format!("{really} {what} instead of {wanted}")
            }
        })
        .collect();
    let Added { virtual_cluster, direction, class, .. } = added;
    format!("{virtual_cluster} {direction}/{class}: {}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_differ_have_what_was_wanted_beside_them() {
        let added = Added::new("prod", "Egress", "Own").passed(2, 100);
        let really = Counters { passed_packets: 2, passed_bytes: 90, ..Counters::default() };
        let text = told(&added, really);
        assert_eq!(text, "prod Egress/Own: 2 packets passed, 90 bytes passed instead of 100");
    }
}
