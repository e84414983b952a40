//! A way that is opened and closed again under a socket that sends all the time, with kills
//! between the word and the deed: what was closed stays closed, whoever dies.

use std::time::Duration;

use anyhow::{Context, Result};

use super::books::{Entry, Usages};
use super::chance::Chance;
use super::history::{History, pass};
use super::journal::GUEST;
use super::kills::Daemon;
use super::traffic::Role;
use crate::demo::child::Speaker;
use crate::demo::network::{Host, LATE};
use crate::demo::wait;
use crate::demo::world::{World, at};

const PORT: u16 = 7104;

/// After a way was closed, what had passed before is counted.
const IN_FLIGHT: Duration = Duration::from_millis(300);

/// Adds a virtual cluster that has the second addresses of prod-b's host.
pub(crate) fn with_guest(world: &mut World) -> Result<()> {
    world.virtual_clusters = 4;
    world.objects.put("guest", GUEST)
}

/// Opens and closes prod for the guest, so many times.
pub(crate) fn tighten(history: &mut History, rounds: u64) -> Result<()> {
    let mut sink = history.world.start(Host::ProdA, "bh-traffic", &line_of_sink())?;
    sink.next()?;
    let sender = guest_sends(&history.world)?;
    let mut chance = history.fork(4);
    let (mut kills, mut leaked, mut passed) = (0, 0, 0);
    for _ in 0..rounds {
        let (old, new) = ("mode: Enforce", "mode: Enforce\n    allow: [{virtualCluster: guest}]");
        history.world.objects.edit("prod", old, new)?;
        let before = received(&mut sink)?;
        wait::until("an open way is open", history.world.patience(), |_| {
            Ok((received(&mut sink)? > before + 20).then_some(()))
        })?;
        passed += received(&mut sink)? - before;
        history.world.objects.restore("prod")?;
        // Before it has heard, while it works, or after.
        pass(chance.milliseconds(0, 250));
        kills += kill_some(history, &mut chance)?;
        history.settle_with(|_| Ok(()))?;
        pass(IN_FLIGHT);
        let closed = received(&mut sink)?;
        kills += kill_some(history, &mut chance)?;
        history.settle_with(|_| Ok(()))?;
        pass(IN_FLIGHT);
        leaked += received(&mut sink)? - closed;
    }
    history.findings.see(
        leaked == 0 && passed > 0,
        format!(
            "{rounds} times opened ({passed} datagrams came) and closed with {kills} kills on the \
             way: {leaked} datagrams came after"
        ),
    );
    let said = sender.finish()?;
    history.said.push((Role::GuestFlow, said));
    history.said.push((Role::GuestSink, sink.finish()?));
    history.world.objects.remove("guest")?;
    history.world.virtual_clusters = 3;
    Ok(())
}

fn line_of_sink() -> String {
    format!("udp-count --bind [::]:{PORT}")
}

fn guest_sends(world: &World) -> Result<Speaker> {
    let mut command = world.exec("guest");
    let namespace = world.network.host(Host::ProdB).path();
    command.arg("nsenter").arg(format!("--net={}", namespace.display()));
    let [from4, from6] = LATE;
    let (to4, to6) = (at(Host::ProdA.v4(), PORT), at(Host::ProdA.v6(), PORT));
    let line = format!("udp-flow --to {to4} --to {to6} --from {from4} --from {from6}");
    command.arg(world.program("bh-traffic")).args(line.split_whitespace());
    let mut speaker = Speaker::start(command, "the guest's sender", world.patience())?;
    speaker.next()?;
    Ok(speaker)
}

fn received(sink: &mut Speaker) -> Result<u64> {
    sink.ask("count")?["received"].as_u64().context("the sink does not count")
}

/// Kills the agent, the controller or both, and starts them again.
fn kill_some(history: &mut History, chance: &mut Chance) -> Result<u64> {
    let whom: &[Daemon] = match chance.below(4) {
        0 | 1 => &[Daemon::Agent],
        2 => &[Daemon::Controller],
        _ => &[Daemon::Controller, Daemon::Agent],
    };
    for who in whom {
        history.kill(*who)?;
    }
    pass(chance.milliseconds(0, 700));
    for who in whom {
        history.start(*who)?;
    }
    Ok(whom.len() as u64)
}

/// What the books must have of the guest: all of it was sent, and prod let it in or dropped it.
pub(crate) fn entry(sent: u64) -> Entry {
    Entry::exact("guest packets", sent, |usages: &Usages| {
        let usage = usages.get("guest").cloned().unwrap_or_default();
        let cell = usage.network("Egress", "Other");
        cell.passed_packets + cell.would_deny_packets
    })
}
