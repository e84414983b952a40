//! Whether the operator reads what was really used.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::child::Speaker;
use super::super::ledger;
use super::super::network::Host;
use super::super::operator::{Memory, Usage};
use super::super::sabotage::Sabotage;
use super::super::wait::settle;
use super::super::world::{World, at};
use super::Findings;
use super::flow::send;
use super::ledger::{Added, baseline, compare};
use super::limits::number;

const TCP: u16 = 7031;
const UDP: u16 = 7032;

/// Headers of a datagram: IPv4 or IPv6, and UDP.
const HEADERS: [u64; 2] = [20 + 8, 40 + 8];

/// Sends datagrams from prod-a to prod-b, IPv4 and IPv6, and returns how many packets and bytes,
/// headers included, the receiver has really got.
pub(super) fn stream(world: &mut World, port: u16) -> Result<(u64, u64)> {
    const COUNT: u64 = 200;
    const PAYLOAD: u64 = 1_000;
    let (mut packets, mut bytes) = (0, 0);
    for (address, headers) in [Host::ProdB.v4(), Host::ProdB.v6()].into_iter().zip(HEADERS) {
        let receiver = world.receive(Host::ProdB, port)?;
        let to = at(address, port);
        let line = format!("--to {to} --count {COUNT} --bytes {PAYLOAD} --pause-us 200");
        send(world, Host::ProdA, &line)?;
        let seen = receiver.finish()?;
        let count = number(&seen, "received")?;
        packets += count;
        bytes += number(&seen, "bytes")? + count * headers;
    }
    Ok((packets, bytes))
}

/// What the ledger must have got of a [`stream`], at both ends.
pub(super) fn both_ends((packets, bytes): (u64, u64)) -> [Added; 2] {
    ["Egress", "Ingress"]
        .map(|direction| Added::new("prod", direction, "Own").passed(packets, bytes))
}

/// Checks `usage-network`.
pub(super) fn network(world: &mut World) -> Result<Findings> {
    let before = baseline(world)?;
    let patience = world.patience_unless(Sabotage::SwapLedgerRows);
    let sent = stream(world, UDP)?;
    let swapped = world.swap_ledger_rows_if(Sabotage::SwapLedgerRows)?;
    let mut findings = compare(world, &before, &both_ends(sent), patience)?;
    if let Some(swapped) = swapped {
        swapped.swap_back()?;
        return Ok(findings);
    }
    tcp(world, patience, &mut findings)?;
    Ok(findings)
}

/// TCP of unknown packets: the interface is the witness.
fn tcp(world: &mut World, patience: Duration, findings: &mut Findings) -> Result<()> {
    const BYTES: u64 = 2_000_000;
    const ETHERNET: u64 = 14;
    let passed = |world: &World| {
        let usage = world.operator.usage_of("prod")?;
        anyhow::Ok(usage.network("Egress", "Own").passed_bytes)
    };
    baseline(world)?;
    let before = passed(world)?;
    let server = world.serve(Host::ProdB, &format!("tcp-serve --bind [::]:{TCP}"))?;
    let hosts = [Host::ProdA, Host::ProdB];
    // Both are prod: acknowledgements are prod's bytes too.
    let on_the_wire = |world: &World| {
        let sent = hosts.map(|host| world.network.host(host).sent());
        sent.into_iter().try_fold(0, |sum, sent| {
            let sent = sent?;
            anyhow::Ok(sum + sent.bytes - ETHERNET * sent.packets)
        })
    };
    let wire_before = on_the_wire(world)?;
    let line = format!("tcp-connect --to {} --bytes {BYTES}", at(Host::ProdB.v6(), TCP));
    world.say(Host::ProdA, &line)?;
    server.finish()?;
    let wire = on_the_wire(world)? - wire_before;
    let near = |ledger: &u64| ledger.abs_diff(wire) <= wire / 100;
    let (ledger, right) = settle(patience, || Ok(passed(world)? - before), near)?;
    findings.see(
        right && wire >= BYTES,
        format!("TCP of {BYTES} bytes: interfaces sent {wire}, the operator reads {ledger}"),
    );
    Ok(())
}

/// Checks `usage-cpu`.
pub(super) fn cpu(world: &mut World) -> Result<Findings> {
    const CPU_MS: u64 = 3_000;
    let before = baseline_of(world, "dev")?.cpu_milliseconds();
    let frozen = world.freeze_agent_if(Sabotage::StopSampler)?;
    let line = format!("burn --cpu-ms {CPU_MS}");
    let burnt = world.start(Host::Dev, "bh-load", &line)?.finish()?;
    let burnt = number(&burnt, "cpu_us")? / 1_000;
    // Starting the process costs dev something too, which the process does not see.
    let (least, most) = (burnt - burnt / 50, burnt + burnt * 8 / 100 + 500);
    let look = || Ok(world.operator.usage_of("dev")?.cpu_milliseconds() - before);
    let patience = world.patience_unless(Sabotage::StopSampler);
    let (read, _) = settle(patience, look, |read| *read >= least)?;
    drop(frozen);
    let mut findings = Findings::default();
    findings.see(
        (least..=most).contains(&read),
        format!("burnt {burnt} ms by getrusage, the operator reads {read} ms more"),
    );
    Ok(findings)
}

/// Checks `usage-memory`.
pub(super) fn memory(world: &mut World) -> Result<Findings> {
    const BYTES: u64 = 64 << 20;
    const HELD: Duration = Duration::from_secs(12);
    let really = if world.broken(Sabotage::HoldHalf) { BYTES / 2 } else { BYTES };
    let before = baseline_of(world, "prod")?.memory.unwrap_or_default();
    let began = Instant::now();
    let mut holder = world.start(Host::ProdA, "bh-load", &format!("hold --bytes {really}"))?;
    holder.next()?;
    // The time is the measure here, not a wait for something.
    std::thread::sleep(HELD);
    let held_ms = number(&holder.finish()?, "held_ms")?;
    let claimed = BYTES * held_ms / 1_000;
    // Until what was held is given back, by the operator's own reading.
    let look = || Ok(world.operator.usage_of("prod")?.memory.unwrap_or_default());
    let given_back = |now: &Memory| {
        now.current_bytes < before.current_bytes + BYTES / 4
            && now.byte_seconds > before.byte_seconds
    };
    let (after, _) = settle(world.patience(), look, given_back)?;
    // What the rest of prod held in that time, by its level before.
    let others = before.current_bytes * began.elapsed().as_secs();
    let read = (after.byte_seconds - before.byte_seconds).saturating_sub(others);
    let mut findings = Findings::default();
    findings.see(
        read.abs_diff(claimed) <= claimed / 4,
        format!(
            "{} MiB held for {held_ms} ms is {} MiB s, the operator reads {} MiB s more",
            BYTES >> 20,
            claimed >> 20,
            read >> 20
        ),
    );
    Ok(findings)
}

/// What a virtual cluster has used until now.
fn baseline_of(world: &World, virtual_cluster: &str) -> Result<Usage> {
    Ok(baseline(world)?.remove(virtual_cluster).unwrap_or_default())
}

impl World {
    /// Swaps two virtual clusters in the ledger, if this is to be broken. The agent is stopped
    /// until they are swapped back: what it sent would be booked beside the swapped rows.
    fn swap_ledger_rows_if(&self, sabotage: Sabotage) -> Result<Option<ledger::Swapped>> {
        if !self.broken(sabotage) {
            return Ok(None);
        }
        // What was sent must be in the ledger, or nothing would be swapped.
        baseline(self)?;
        let frozen = self.freeze_agent()?;
        ledger::Swapped::swap(&self.controller_data(), ["prod", "dev"], frozen).map(Some)
    }

    /// Starts a receiver of datagrams, and returns when it is ready.
    pub(super) fn receive(&self, host: Host, port: u16) -> Result<Speaker> {
        self.serve(host, &format!("udp-recv --bind [::]:{port}"))
    }
}
