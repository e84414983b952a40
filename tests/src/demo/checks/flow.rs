//! What must flow.

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::child::Speaker;
use super::super::network::{Host, LATE};
use super::super::sabotage::Sabotage;
use super::super::world::{World, at};
use super::Findings;

const TCP: u16 = 7001;
const UDP: u16 = 7002;

/// Checks `starts-inside`.
pub(super) fn starts_inside(world: &mut World) -> Result<Findings> {
    let program = world.command("bh-load").get_program().to_owned();
    let mut command = if world.broken(Sabotage::StartOutside) {
        std::process::Command::new(&program)
    } else {
        let mut exec = world.exec("prod");
        exec.arg(&program);
        exec
    };
    command.arg("where");
    let seen = Speaker::start(command, "bh-load where", world.patience())?.finish()?;
    let cgroup = seen["cgroup"].as_str().unwrap_or("none");
    let root = world.cgroup_root().file_name().context("the root has a name")?.to_string_lossy();
    let inside = format!("/{root}/prod/exec-");
    let mut findings = Findings::default();
    findings.see(cgroup.starts_with(&inside), format!("cgroup {cgroup}"));
    findings.see(seen["sockets"] == 0, format!("{} sockets", seen["sockets"]));
    Ok(findings)
}

/// Checks `same-cluster-flows`.
pub(super) fn same_cluster(world: &mut World) -> Result<Findings> {
    if world.broken(Sabotage::ForgetMember) {
        let told = r#", "198.18.0.2", "fdb1:6b::2""#;
        change(world, |world| world.objects.edit("prod", told, ""))?;
    }
    let findings = exchange(world, Host::ProdA, Host::ProdB);
    if world.broken(Sabotage::ForgetMember) {
        change(world, |world| world.objects.restore("prod"))?;
    }
    findings
}

/// Changes objects, and returns when the agent has applied what follows.
pub(super) fn change(world: &mut World, edit: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let before = world.operator.node()?.context("the node has not reported")?;
    edit(world)?;
    let (operator, patience) = (world.operator.clone(), world.patience());
    super::super::wait::until("the controller has read the new objects", patience, |_| {
        let node = operator.node()?.context("the node has not reported")?;
        Ok((node.wanted_generation > before.wanted_generation).then_some(()))
    })?;
    world.wait_until_applied(jiff::Timestamp::UNIX_EPOCH)
}

fn exchange(world: &mut World, from: Host, to: Host) -> Result<Findings> {
    const BYTES: u64 = 100_000;
    const DATAGRAMS: u64 = 50;
    let mut findings = Findings::default();
    let tcp = world.serve(to, &format!("tcp-serve --bind [::]:{TCP}"))?;
    let udp = world.serve(to, &format!("udp-recv --bind [::]:{UDP}"))?;
    let before = world.network.host(to).received()?;
    for address in [to.v4(), to.v6()] {
        let tcp = at(address, TCP);
        let line = format!("tcp-connect --to {tcp} --bytes {BYTES} --timeout-ms 3000");
        let sent = world.say(from, &line)?;
        findings.see(
            sent["sent"] == BYTES && sent["error"].is_null(),
            format!(
                "TCP to {tcp}: connected in {} us, error {}",
                sent["connect_us"], sent["error"]
            ),
        );
        let udp = at(address, UDP);
        send(world, from, &format!("--to {udp} --count {DATAGRAMS} --pause-us 200"))?;
        let ping = world.say(from, &format!("ping --to {address} --count 3 --timeout-ms 1000"))?;
        findings.see(ping["answers"] == 3, format!("{} of 3 echoes answered", ping["answers"]));
    }
    let (tcp, udp) = (tcp.finish()?, udp.finish()?);
    let after = world.network.host(to).received()?;
    findings.see(tcp["bytes"] == 2 * BYTES, format!("{} bytes of TCP arrived", tcp["bytes"]));
    findings.see(
        udp["received"] == 2 * DATAGRAMS,
        format!("{} of {} datagrams arrived", udp["received"], 2 * DATAGRAMS),
    );
    let packets = after.packets - before.packets;
    findings.see(
        packets >= 2 * DATAGRAMS,
        format!("the interface of {} counted {packets} packets", to.name()),
    );
    Ok(findings)
}

/// Sends datagrams from the process that lives in `from`.
pub(super) fn send(world: &mut World, from: Host, arguments: &str) -> Result<Value> {
    world.say(from, &format!("udp-send {arguments}"))
}

/// Checks `unknown-then-learnt`.
pub(super) fn unknown(world: &mut World) -> Result<Findings> {
    const COUNT: u64 = 5;
    let mut findings = Findings::default();
    let receiver = world.serve(Host::ProdB, &format!("udp-recv --bind [::]:{UDP}"))?;
    for address in LATE {
        let sent = send(world, Host::ProdA, &format!("--to {} --count {COUNT}", at(address, UDP)))?;
        findings.see(
            sent["sent"] == COUNT,
            format!("{} of {COUNT} sent to {address}, errors {}", sent["sent"], sent["errors"]),
        );
    }
    // Sent after the others on the same way: when it is there, they would be.
    send(world, Host::ProdA, &format!("--to {} --bytes 1", at(Host::ProdB.v4(), UDP)))?;
    let seen = receiver.finish()?;
    findings.see(
        seen["received"] == 1 && seen["bytes"] == 1,
        format!("{} datagrams arrived, 1 of them to a known address", seen["received"]),
    );

    // Begun while the address is unknown; the kernel tries again until it is answered.
    let patience = world.patience_unless(Sabotage::TellNobody);
    let server = world.serve(Host::ProdB, &format!("tcp-serve --bind [::]:{TCP}"))?;
    let late = at(LATE[0], TCP);
    let line = format!("tcp-connect --to {late} --bytes 10 --timeout-ms {}", patience.as_millis());
    let attempt = world.start(Host::ProdA, "bh-traffic", &line)?;
    if !world.broken(Sabotage::TellNobody) {
        let [v4, v6] = LATE;
        let (old, new) = (r#""fdb1:6b::2"]"#, format!(r#""fdb1:6b::2", "{v4}", "{v6}"]"#));
        change(world, |world| world.objects.edit("prod", old, &new))?;
    }
    let attempt = attempt.finish()?;
    findings.see(
        attempt["connected"] == true,
        format!(
            "TCP, begun before: connected {}, {} us",
            attempt["connected"], attempt["connect_us"]
        ),
    );
    server.finish()?;
    let receiver = world.serve(Host::ProdB, &format!("udp-recv --bind [::]:{UDP}"))?;
    for address in LATE {
        send(world, Host::ProdA, &format!("--to {} --count {COUNT}", at(address, UDP)))?;
    }
    let seen = receiver.finish()?;
    let told = format!("then {} of {} datagrams arrived", seen["received"], 2 * COUNT);
    findings.see(seen["received"] == 2 * COUNT, told);
    if !world.broken(Sabotage::TellNobody) {
        change(world, |world| world.objects.restore("prod"))?;
    }
    Ok(findings)
}
