//! What limits do to those who want more, and what they do not do to others.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::child::Speaker;
use super::super::network::Host;
use super::super::sabotage::Sabotage;
use super::super::wait::settle;
use super::super::world::World;
use super::Findings;
use super::ledger::{self, Usages};

/// Checks `cpu-share-held`.
pub(super) fn cpu(world: &mut World) -> Result<Findings> {
    const WALL_MS: u64 = 6_000;
    let frozen = world.freeze_agent_if(Sabotage::LiftCpuMax)?;
    if frozen.is_some() {
        world.meddle("batch", "cpu.max", "max 100000")?;
    }
    let line = format!("burn --threads 2 --wall-ms {WALL_MS}");
    let burnt = world.start(Host::Batch, "bh-load", &line)?.finish()?;
    let (cpu, wall) = (number(&burnt, "burnt_us")?, number(&burnt, "wall_ms")?.max(1));
    // Microseconds per millisecond: thousandths of a CPU.
    let share = cpu / wall;
    let mut findings = Findings::default();
    findings.see(
        (400..=600).contains(&share),
        format!("{} ms of CPU in {wall} ms: {}.{:03} CPUs", cpu / 1000, share / 1000, share % 1000),
    );
    Ok(findings)
}

/// Checks `memory-hog-dies-alone`.
pub(super) fn memory(world: &mut World) -> Result<Findings> {
    const WANTED: u64 = 384 << 20;
    let before = oom_kills(&ledger::baseline(world)?);
    let neighbours = Neighbours::start(world, &[Host::ProdA, Host::Dev, Host::Batch])?;
    let frozen = world.freeze_agent_if(Sabotage::LiftMemoryMax)?;
    if frozen.is_some() {
        world.meddle("dev", "memory.max", "max")?;
    }
    let hog = world.start(Host::Dev, "bh-load", &format!("hog --bytes {WANTED}"))?.end()?;
    drop(frozen);
    let mut findings = Findings::default();
    let mebibytes = number(&hog.last, "taken").unwrap_or(0) >> 20;
    findings.see(
        hog.signal() == Some(9),
        format!("the hog had {mebibytes} MiB and ended with {}", ending(hog.signal())),
    );
    neighbours.finish(&mut findings)?;
    for host in Host::ALL {
        let answer = world.say(host, "ping --to 127.0.0.1")?;
        if answer["answers"] != 1 {
            findings.see(false, format!("the process in {} is not well", host.name()));
        }
    }
    let patience = world.patience_unless(Sabotage::LiftMemoryMax);
    let one_in_dev = |now: &[u64; 3]| *now == [before[0], before[1] + 1, before[2]];
    let (now, right) = settle(patience, || Ok(oom_kills(&world.operator.usage()?)), one_in_dev)?;
    findings.see(right, format!("OOM kills in prod, dev, batch: {before:?}, then {now:?}"));
    Ok(findings)
}

fn ending(signal: Option<i32>) -> String {
    signal.map_or_else(|| "no signal".to_owned(), |signal| format!("signal {signal}"))
}

fn oom_kills(usage: &Usages) -> [u64; 3] {
    let of = |name: &str| {
        let memory = usage.get(name).and_then(|usage| usage.memory);
        memory.map_or(0, |memory| memory.oom_kills)
    };
    ["prod", "dev", "batch"].map(of)
}

/// Processes that go about their work in other places while something happens.
struct Neighbours(Vec<(Host, Speaker)>);

impl Neighbours {
    fn start(world: &World, hosts: &[Host]) -> Result<Self> {
        let start = |host: &Host| {
            let mut beat = world.start(*host, "bh-load", "beat")?;
            beat.next()?;
            Ok((*host, beat))
        };
        Ok(Self(hosts.iter().map(start).collect::<Result<_>>()?))
    }

    fn finish(self, findings: &mut Findings) -> Result<()> {
        for (host, beat) in self.0 {
            let ended = beat.end()?;
            let (beats, forks) = (number(&ended.last, "beats")?, number(&ended.last, "forks")?);
            let failed = &ended.last["failed_forks"];
            findings.see(
                ended.status.success() && beats > 0 && forks > 0 && *failed == 0,
                format!(
                    "{}'s neighbour: {beats} beats, {forks} forks, {failed} failed, longest gap \
                     {} ms",
                    host.name(),
                    ended.last["longest_gap_ms"]
                ),
            );
        }
        Ok(())
    }
}

/// Checks `fork-bomb-stops`.
pub(super) fn pids(world: &mut World) -> Result<Findings> {
    const AT_MOST: u64 = 120;
    const LIMIT: u64 = 48;
    let before = ledger::baseline(world)?;
    let before = before.get("batch").and_then(|usage| usage.pids).unwrap_or_default().refused;
    let neighbours = Neighbours::start(world, &[Host::ProdA, Host::Dev])?;
    let frozen = world.freeze_agent_if(Sabotage::LiftPidsMax)?;
    if frozen.is_some() {
        world.meddle("batch", "pids.max", "max")?;
    }
    let mut bomb = world.start(Host::Batch, "bh-load", &format!("bomb --at-most {AT_MOST}"))?;
    let ready = bomb.next()?["ready"].clone();
    let (forked, refused) = (number(&ready, "forked")?, number(&ready, "refused")?);
    let mut findings = Findings::default();
    findings.see(
        forked < LIMIT && refused > 0 && ready["errno"] == "EAGAIN",
        format!("forked {forked} times, then refused {refused} times with {}", ready["errno"]),
    );
    neighbours.finish(&mut findings)?;
    bomb.finish()?;
    drop(frozen);
    let patience = world.patience_unless(Sabotage::LiftPidsMax);
    let look = || Ok(world.operator.usage_of("batch")?.pids.unwrap_or_default().refused - before);
    let (counted, right) = settle(patience, look, |counted| *counted == refused)?;
    findings.see(right, format!("the operator reads {counted} refusals"));
    Ok(findings)
}

/// Checks `meddling-mended`.
pub(super) fn meddling(world: &mut World) -> Result<Findings> {
    let files = [("cpu.max", "max 100000"), ("pids.max", "max")];
    let patience = world.patience_unless(Sabotage::FreezeMending);
    let mended_before = world.operator.mended("batch")?;
    let right: Vec<String> =
        files.iter().map(|(file, _)| world.control("batch", file)).collect::<Result<_>>()?;
    let frozen = world.freeze_agent_if(Sabotage::FreezeMending)?;
    for (file, wrong) in files {
        world.meddle("batch", file, wrong)?;
    }
    let began = std::time::Instant::now();
    let look = || files.iter().map(|(file, _)| world.control("batch", file)).collect();
    let (now, mended): (Vec<String>, bool) = settle(patience, look, |now| *now == right)?;
    let took = began.elapsed();
    let mut findings = Findings::default();
    findings.see(
        mended,
        format!("{right:?} set to max, after {} ms {now:?}", whole_milliseconds(took)),
    );
    if mended {
        let look = || Ok(world.operator.mended("batch")? - mended_before);
        let (counted, right) = settle(patience, look, |counted| *counted == 2)?;
        findings.see(right, format!("{counted} changes counted as mended"));
    }
    drop(frozen);
    // Whatever was broken, the next check finds everything in place.
    let look = || files.iter().map(|(file, _)| world.control("batch", file)).collect();
    settle(world.patience(), look, |now: &Vec<String>| *now == right)?;
    Ok(findings)
}

fn whole_milliseconds(time: Duration) -> u128 {
    time.as_millis()
}

/// A number in what somebody said.
pub(super) fn number(said: &Value, name: &str) -> Result<u64> {
    said[name].as_u64().with_context(|| format!("no number \"{name}\" in {said}"))
}
