//! The books against the truth.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result};

use super::tighten;
use super::traffic::{Role, Truth};
use crate::demo::checks::Findings;
use crate::demo::network::Host;
use crate::demo::operator::Usage;
use crate::demo::wait::settle;
use crate::demo::world::World;

/// What every virtual cluster used.
pub(crate) type Usages = BTreeMap<String, Usage>;

/// How long a right number must stay right: a few samples and windows, in which anything that is
/// counted twice would come in.
const STAYS: Duration = Duration::from_secs(3);

/// Header of an Ethernet frame, which an interface counts and we do not.
const ETHERNET: u64 = 14;

/// What the kernel itself sends on an interface: neighbour discovery, multicast reports.
const KERNEL_BYTES: u64 = 4_000;

/// One tick of the scheduler, and what it costs to end a process, which it does not see itself.
const TICK_US: u64 = 4_000;

/// A number of the books, and what it must be.
pub(crate) struct Entry {
    what: String,
    wanted: RangeInclusive<u64>,
    read: Box<dyn Fn(&Usages) -> u64>,
}

impl Entry {
    /// Exactly this.
    pub(crate) fn exact(
        what: impl Into<String>,
        wanted: u64,
        read: impl Fn(&Usages) -> u64 + 'static,
    ) -> Self {
        Self::within(what, wanted..=wanted, read)
    }

    /// Within these bounds, both of which may be right.
    pub(crate) fn within(
        what: impl Into<String>,
        wanted: RangeInclusive<u64>,
        read: impl Fn(&Usages) -> u64 + 'static,
    ) -> Self {
        Self { what: what.into(), wanted, read: Box::new(read) }
    }

    fn is_right(&self, usages: &Usages) -> bool {
        self.wanted.contains(&(self.read)(usages))
    }

    fn told(&self, usages: &Usages) -> String {
        let (read, (least, most)) = ((self.read)(usages), (self.wanted.start(), self.wanted.end()));
        match (self.is_right(usages), least == most) {
            (true, true) => format!("{} {read}", self.what),
            (true, false) => format!("{} {read} ({least} to {most})", self.what),
            (false, true) => format!("{} {read} instead of {least}", self.what),
            (false, false) => format!("{} {read}, not {least} to {most}", self.what),
        }
    }
}

/// Waits until the books say what they must, and sees that it stays so.
pub(crate) fn compare(world: &World, entries: &[Entry], findings: &mut Findings) -> Result<()> {
    let operator = &world.operator;
    let right = |usages: &Usages| entries.iter().all(|entry| entry.is_right(usages));
    let (mut usages, reached) = settle(world.patience(), || operator.usage(), right)?;
    if reached {
        (usages, _) = settle(STAYS, || operator.usage(), |usages| !right(usages))?;
    }
    for entry in entries {
        findings.see(entry.is_right(&usages), entry.told(&usages));
    }
    Ok(())
}

/// A counter of a virtual cluster.
pub(crate) fn cell(
    virtual_cluster: &'static str,
    direction: &'static str,
    class: &'static str,
    counter: fn(&crate::demo::operator::Counters) -> u64,
) -> impl Fn(&Usages) -> u64 {
    move |usages| {
        let usage = usages.get(virtual_cluster);
        usage.map_or(0, |usage| counter(&usage.network(direction, class)))
    }
}

/// What the ledger must have of the traffic.
pub(crate) fn network(world: &World, truth: &Truth) -> Result<Vec<Entry>> {
    let (flow, control) = (truth.datagrams(Role::Flow)?, truth.datagrams(Role::Control)?);
    let (packets, bytes) = (flow.packets + control.packets, flow.bytes + control.bytes);
    let mut entries = Vec::new();
    for direction in ["Egress", "Ingress"] {
        let passed = cell("prod", direction, "Own", |cell| cell.passed_packets);
        entries.push(Entry::exact(format!("prod {direction} packets"), packets, passed));
        let passed = cell("prod", direction, "Own", |cell| cell.passed_bytes);
        entries.push(Entry::exact(format!("prod {direction} bytes"), bytes, passed));
    }
    let refused = truth.of(Role::RefusedProbe);
    let attempts = |said: &serde_json::Value| said["attempts"].as_u64().context("no attempts");
    let connects = cell("dev", "Egress", "Other", |cell| cell.denied_connects);
    let wanted = attempts(&refused["connects"])?;
    entries.push(Entry::exact("refused connects", wanted, connects));
    let mut sends = 0;
    for to in refused["sends"].as_array().context("no sends")? {
        sends += attempts(&to["probes"])?;
    }
    let sendmsgs = cell("dev", "Egress", "Other", |cell| cell.denied_sendmsgs);
    entries.push(Entry::exact("refused sendmsgs", sends, sendmsgs));
    // Each attempt is one SYN, or more where it took so long that the kernel tried again.
    let dropped = truth.of(Role::DroppedProbe);
    let syns = attempts(&dropped["connects"])?;
    let again = dropped["connects"]["slow"].as_u64().context("no slow ones")?;
    let least = truth.datagrams(Role::DroppedProbe)?.packets + syns;
    let let_go = cell("batch", "Egress", "Other", |cell| cell.would_deny_packets);
    entries.push(Entry::within("batch would-deny packets", least..=least + 2 * again, let_go));
    // A guest is let in at times.
    let guest =
        truth.knows(Role::GuestFlow).then(|| truth.datagrams(Role::GuestFlow)).transpose()?;
    let least = least + guest.as_ref().map_or(0, |guest| guest.packets);
    let denied = cell("prod", "Ingress", "Other", |cell| cell.denied_packets + cell.passed_packets);
    entries.push(Entry::within("dropped at prod", least..=least + 2 * again, denied));
    if let Some(guest) = guest {
        entries.push(tighten::entry(guest.packets));
        let came: u64 = truth.received(Role::GuestSink).values().sum();
        let passed = cell("prod", "Ingress", "Other", |cell| cell.passed_packets);
        entries.push(Entry::exact("let in at prod", came, passed));
    }
    entries.push(stream(world, truth)?);
    Ok(entries)
}

/// TCP of unknown packets: the interface is the witness, and the payload is the least.
fn stream(world: &World, truth: &Truth) -> Result<Entry> {
    let payload = truth.of(Role::Stream)["sent"].as_u64().context("the stream sent nothing")?;
    let sent = world.network.host(Host::Dev).sent()?;
    let wire = sent.bytes - ETHERNET * sent.packets;
    let least = payload.max((wire - wire / 100).saturating_sub(KERNEL_BYTES));
    let passed = cell("dev", "Egress", "Other", |cell| cell.passed_bytes);
    Ok(Entry::within(format!("dev TCP bytes of {payload}"), least..=wire + wire / 100, passed))
}

/// What the ledger must have of the CPU time.
pub(crate) fn cpu(truth: &Truth) -> Result<Vec<Entry>> {
    ["prod", "dev", "batch"]
        .into_iter()
        .map(|name| {
            let (burnt, processes) = truth.cpu_us(name)?;
            let slack = burnt / 100 + processes * TICK_US;
            let read = move |usages: &Usages| {
                let cpu = usages.get(name).and_then(|usage| usage.cpu).unwrap_or_default();
                cpu.usage_nanoseconds / 1_000
            };
            let wanted = burnt.saturating_sub(slack)..=burnt + slack;
            Ok(Entry::within(format!("{name} CPU us"), wanted, read))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_is_told_with_what_it_must_be() {
        let usages = Usages::new();
        let exact = Entry::exact("packets", 5, |_| 4);
        assert!(!exact.is_right(&usages));
        assert_eq!(exact.told(&usages), "packets 4 instead of 5");
        let within = Entry::within("time", 3..=5, |_| 4);
        assert!(within.is_right(&usages));
        assert_eq!(within.told(&usages), "time 4 (3 to 5)");
        assert_eq!(Entry::within("time", 5..=6, |_| 4).told(&usages), "time 4, not 5 to 6");
    }
}
