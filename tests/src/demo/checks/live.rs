//! What a tighter policy does to what is under way.

use anyhow::Result;

use super::super::network::Host;
use super::super::sabotage::Sabotage;
use super::super::wait;
use super::super::world::{World, at};
use super::Findings;
use super::flow::change;

const TCP: u16 = 7021;

/// Checks `live-connection-ended`.
pub(super) fn ended(world: &mut World) -> Result<Findings> {
    let mut findings = Findings::default();
    change(world, |world| world.objects.edit("dev", "mode: Enforce", "mode: Observe"))?;
    let mut server = world.serve(Host::Dev, &format!("tcp-serve --bind [::]:{TCP} --events"))?;
    let line = format!("tcp-hold --to {}", at(Host::Dev.v4(), TCP));
    let mut client = world.start(Host::Batch, "bh-traffic", &line)?;
    client.next()?;
    let accepted = server.next()?;
    let open = accepted["accepted"].is_string();
    findings.see(open, format!("under Observe, dev accepted {}", accepted["accepted"]));

    let patience = world.patience_unless(Sabotage::FreezePolicy);
    let frozen = world.freeze_agent_if(Sabotage::FreezePolicy)?;
    world.objects.restore("dev")?;
    let began = std::time::Instant::now();
    for (who, speaker) in [("batch, the client", &mut client), ("dev, the server", &mut server)] {
        let said = speaker.next_within(patience.saturating_sub(began.elapsed()))?;
        let told = match &said {
            Some(said) if said["woke"] == true => {
                format!("{who} woke: read {}, write {}", said["read"], said["write"])
            }
            Some(said) => format!("{who}: {said}"),
            None => format!("{who} still has the connection after {} s", patience.as_secs()),
        };
        findings.see(said.is_some(), told);
    }
    let took = began.elapsed().as_millis();
    findings.see(true, format!("{took} ms after the file was written"));
    drop(frozen);
    drop((client, server));
    // What follows stands on the policy of the beginning.
    let patience = world.patience();
    wait::until("dev is refused to batch again", patience, |_| {
        let seen =
            world.say(Host::Dev, &format!("tcp-connect --to {}", at(Host::Batch.v4(), TCP)))?;
        Ok((seen["error"] == "EPERM").then_some(()))
    })?;
    Ok(findings)
}
