//! What must be refused.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::network::Host;
use super::super::sabotage::Sabotage;
use super::super::world::{World, at};
use super::Findings;
use super::flow::send;
use super::ledger::{self, Added};

const TCP: u16 = 7011;
const UDP: u16 = 7012;

/// A refusal takes microseconds; a lost packet is noticed after a second at the earliest.
const AT_ONCE_US: u64 = 100_000;

/// Bytes of a datagram of this check.
const PAYLOAD: u64 = 64;

/// Checks `connect-refused`.
pub(super) fn connect(world: &mut World) -> Result<Findings> {
    world
        .break_programs_if(Sabotage::DetachConnect, &["bulkhead_connect4", "bulkhead_connect6"])?;
    let mut findings = Findings::default();
    for (from, to) in [(Host::Dev, Host::ProdA), (Host::ProdA, Host::Dev)] {
        // Not through `exec`: who listens must not depend on what is broken.
        let tcp = world.serve(to, &format!("tcp-serve --bind [::]:{TCP}"))?;
        let udp = world.serve(to, &format!("udp-recv --bind [::]:{UDP}"))?;
        let worst = connect_refused(world, from, to, &mut findings)?;
        let (tcp, udp) = (tcp.finish()?, udp.finish()?);
        findings.see(
            tcp["connections"] == 0 && udp["received"] == 0,
            format!(
                "{} saw {} connections and {} datagrams of {} (slowest answer {worst} us)",
                to.name(),
                tcp["connections"],
                udp["received"],
                from.name()
            ),
        );
    }
    Ok(findings)
}

/// Five attempts; the slowest answer in microseconds.
fn connect_refused(
    world: &mut World,
    from: Host,
    to: Host,
    findings: &mut Findings,
) -> Result<u64> {
    let mut worst = 0;
    for address in [to.v4(), to.v6(), to.mapped()] {
        let line = format!("tcp-connect --to {} --timeout-ms 1500", at(address, TCP));
        let seen = world.say(from, &line)?;
        let micros = seen["connect_us"].as_u64().unwrap_or(u64::MAX);
        worst = worst.max(micros);
        let ok = seen["error"] == "EPERM" && micros < AT_ONCE_US;
        if !ok {
            let error = &seen["error"];
            findings.see(false, format!("TCP to {address}: error {error} after {micros} us"));
        }
    }
    for address in [to.v4(), to.v6()] {
        let seen = send(world, from, &format!("--to {} --connected", at(address, UDP)))?;
        if seen["errors"] != json!({ "EPERM": 1 }) {
            findings.see(false, format!("UDP connect to {address}: errors {}", seen["errors"]));
        }
    }
    Ok(worst)
}

/// Checks `sendto-refused`.
pub(super) fn sendto(world: &mut World) -> Result<Findings> {
    const COUNT: u64 = 5;
    let path = ["bulkhead_sendmsg4", "bulkhead_sendmsg6", "bulkhead_egress"];
    let mut findings = Findings::default();
    let receiver = world.serve(Host::ProdA, &format!("udp-recv --bind [::]:{UDP}"))?;
    world.break_programs_if(Sabotage::DetachSendPath, &path)?;
    let to = Host::ProdA;
    for address in [to.v4(), to.v6(), to.mapped()] {
        let line = format!("--to {} --count {COUNT} --bytes {PAYLOAD}", at(address, UDP));
        let seen = send(world, Host::Dev, &line)?;
        findings.see(
            seen["sent"] == 0 && seen["errors"] == json!({ "EPERM": COUNT }),
            format!("to {address}: {} sent, errors {}", seen["sent"], seen["errors"]),
        );
    }
    marker(world)?;
    let seen = receiver.finish()?;
    findings.see(seen["received"] == 1, only_marker(&seen));
    Ok(findings)
}

/// One datagram from where it is allowed, sent after the others: when it is there, they would be.
fn marker(world: &mut World) -> Result<()> {
    send(world, Host::ProdB, &format!("--to {} --bytes 1", at(Host::ProdA.v4(), UDP)))?;
    Ok(())
}

fn only_marker(seen: &Value) -> String {
    format!("the receiver saw {} datagram, {} bytes: prod-b's", seen["received"], seen["bytes"])
}

/// Checks `icmp-refused`.
pub(super) fn icmp(world: &mut World) -> Result<Findings> {
    const COUNT: u64 = 3;
    world.break_programs_if(Sabotage::DetachEgress, &["bulkhead_egress"])?;
    let mut findings = Findings::default();
    let refused = json!({ "EPERM": COUNT });
    let before = world.network.host(Host::ProdA).received()?.echoes;
    for address in [Host::ProdA.v4(), Host::ProdA.v6()] {
        let line = format!("ping --to {address} --count {COUNT} --timeout-ms 300");
        let seen = world.say(Host::Dev, &line)?;
        findings.see(
            seen["sent"] == 0 && seen["errors"] == refused,
            format!("echo to {address}: {} sent, errors {}", seen["sent"], seen["errors"]),
        );
        let seen = world.say(Host::Dev, &format!("raw-send --to {address} --count {COUNT}"))?;
        findings.see(
            seen["sent"] == 0 && seen["errors"] == refused,
            format!("raw to {address}: {} sent, errors {}", seen["sent"], seen["errors"]),
        );
    }
    // One of each from where it is allowed shows that the counter counts.
    for address in [Host::ProdA.v4(), Host::ProdA.v6()] {
        world.say(Host::ProdB, &format!("ping --to {address}"))?;
    }
    let echoes = world.network.host(Host::ProdA).received()?.echoes - before;
    findings
        .see(echoes == 2, format!("prod-a's stack took in {echoes} echo requests, 2 of prod-b"));
    Ok(findings)
}

/// Checks `receiver-refuses`.
pub(super) fn receiver(world: &mut World) -> Result<Findings> {
    const COUNT: u64 = 20;
    let mut findings = Findings::default();
    let to = Host::ProdA;
    let receiver = world.serve(to, &format!("udp-recv --bind [::]:{UDP}"))?;
    world.break_programs_if(Sabotage::DetachIngress, &["bulkhead_ingress"])?;
    let before = world.network.host(to).received()?.packets;
    for address in [to.v4(), to.v6()] {
        let line = format!("--to {} --count {COUNT} --pause-us 200", at(address, UDP));
        let seen = send(world, Host::Batch, &line)?;
        findings
            .see(seen["sent"] == COUNT, format!("{} of {COUNT} sent to {address}", seen["sent"]));
    }
    let arrived = world.network.host(to).received()?.packets - before;
    findings.see(arrived >= 2 * COUNT, format!("prod-a's interface counted {arrived} packets"));
    marker(world)?;
    let seen = receiver.finish()?;
    findings.see(seen["received"] == 1, only_marker(&seen));
    Ok(findings)
}

/// Checks `refusals-counted`.
pub(super) fn counted(world: &mut World) -> Result<Findings> {
    let before = ledger::baseline(world)?;
    let sendmsg = ["bulkhead_sendmsg4", "bulkhead_sendmsg6"];
    world.break_programs_if(Sabotage::DetachSendmsg, &sendmsg)?;
    let to = Host::ProdA;
    // What comes in is judged where it is handed to a socket.
    let receiver = world.serve(to, &format!("udp-recv --bind [::]:{UDP}"))?;
    for address in [to.v4(), to.v6(), to.mapped()] {
        world.say(Host::Dev, &format!("tcp-connect --to {}", at(address, TCP)))?;
        send(world, Host::Dev, &format!("--to {} --count 4", at(address, UDP)))?;
    }
    let (pings, datagrams) = (3, 10);
    for address in [to.v4(), to.v6()] {
        world.say(Host::Dev, &format!("ping --to {address} --count {pings}"))?;
        let line = format!("--to {} --count {datagrams} --bytes {PAYLOAD}", at(address, UDP));
        send(world, Host::Batch, &line)?;
    }
    receiver.finish()?;
    world.mend()?;
    // An echo request is an IP header and 8 bytes.
    let sent = Added::new("dev", "Egress", "Other")
        .denied(2 * pings, pings * (20 + 8) + pings * (40 + 8))
        .refused_calls(3, 12);
    let arrived = Added::new("prod", "Ingress", "Other")
        .denied(2 * datagrams, datagrams * (28 + PAYLOAD) + datagrams * (48 + PAYLOAD));
    let patience = world.patience_unless(Sabotage::DetachSendmsg);
    ledger::compare(world, &before, &[sent, arrived], patience)
}
