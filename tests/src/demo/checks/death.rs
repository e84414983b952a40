//! What the death of a program changes: nothing.

use anyhow::{Context, Result};
use bulkhead_abi::programs;
use serde_json::json;

use super::super::ledger;
use super::super::network::Host;
use super::super::sabotage::Sabotage;
use super::super::world::{World, at};
use super::Findings;
use super::flow::send;
use super::ledger::{baseline, compare};
use super::usage::{both_ends, stream};

const TCP: u16 = 7041;
const UDP: u16 = 7042;

/// Checks `agent-death-opens-nothing`.
pub(super) fn opens_nothing(world: &mut World) -> Result<Findings> {
    let to = Host::ProdA;
    let tcp = world.serve(to, &format!("tcp-serve --bind [::]:{TCP}"))?;
    let udp = world.receive(to, UDP)?;
    world.kill_agent()?;
    if world.broken(Sabotage::OpenOnAgentDeath) {
        world.take_off(&programs::ALL)?;
    }
    let mut findings = Findings::default();
    for address in [to.v4(), to.v6(), to.mapped()] {
        let line = format!("tcp-connect --to {} --timeout-ms 1500", at(address, TCP));
        let seen = world.say(Host::Dev, &line)?;
        let sent = send(world, Host::Dev, &format!("--to {} --count 3", at(address, UDP)))?;
        findings.see(
            seen["error"] == "EPERM" && sent["errors"] == json!({ "EPERM": 3 }),
            format!("to {address}: connect {}, sendto {}", seen["error"], sent["errors"]),
        );
    }
    let ping = world.say(Host::Dev, &format!("ping --to {}", to.v4()))?;
    findings.see(ping["sent"] == 0, format!("echo {}", ping["errors"]));
    let own = send(world, Host::ProdB, &format!("--to {} --bytes 1", at(to.v6(), UDP)))?;
    let (tcp, udp) = (tcp.finish()?, udp.finish()?);
    findings.see(
        tcp["connections"] == 0 && udp["received"] == 1 && own["sent"] == 1,
        format!(
            "prod-a saw {} connections and {} of {} datagrams of prod-b",
            tcp["connections"], udp["received"], own["sent"]
        ),
    );
    world.mend()?;
    Ok(findings)
}

/// Checks `agent-death-loses-nothing`.
pub(super) fn loses_nothing(world: &mut World) -> Result<Findings> {
    let before = baseline(world)?;
    world.kill_agent()?;
    if world.broken(Sabotage::UncountedWhileDead) {
        world.take_off(&["bulkhead_egress"])?;
    }
    let sent = stream(world, UDP)?;
    world.mend()?;
    let patience = world.patience_unless(Sabotage::UncountedWhileDead);
    compare(world, &before, &both_ends(sent), patience)
}

/// Checks `controller-death-loses-nothing`.
pub(super) fn controller(world: &mut World) -> Result<Findings> {
    let before = baseline(world)?;
    let patience = world.patience();
    world.controller.take().context("the controller does not run")?.kill(patience)?;
    if world.broken(Sabotage::DoubleLedgerRows) {
        ledger::double(&world.controller_data())?;
    }
    let sent = stream(world, UDP)?;
    let since = jiff::Timestamp::now();
    world.start_controller()?;
    world.wait_until_applied(since)?;
    let patience = world.patience_unless(Sabotage::DoubleLedgerRows);
    compare(world, &before, &both_ends(sent), patience)
}
