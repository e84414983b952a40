//! The journal: torn, and too small for how long the controller is away.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::books::{self, Entry};
use super::history::{History, pass};
use super::kills::Daemon;
use super::sabotage::Sabotage;
use crate::demo::network::{Host, LATE};
use crate::demo::wait;
use crate::demo::world::{World, at};

/// What the journal may hold where the controller is away for longer.
pub(crate) const SMALL_JOURNAL_BYTES: u64 = 12 << 10;

/// A window of the agent, which is also its sample interval.
const WINDOW: Duration = Duration::from_secs(1);

/// A virtual cluster that comes to its end while nobody can store what it used.
pub(crate) const GUEST: &str = "apiVersion: bulkhead.dev/v1alpha1\n\
kind: VirtualCluster\n\
metadata: {name: guest}\n\
spec:\n  members: {addresses: [\"198.18.0.99\", \"fdb1:6b::99\"]}\n  network: {mode: Observe}\n";

fn segments(world: &World) -> Result<Vec<PathBuf>> {
    let dir = world.agent_state().join("journal");
    let mut found: Vec<PathBuf> = fs::read_dir(&dir)
        .with_context(|| format!("list {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    found.sort();
    Ok(found)
}

fn bytes_of(paths: &[PathBuf]) -> u64 {
    // One that is replaced just now is counted the next time.
    paths.iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// Tears the newest segment while both are dead: the tail is cut off, or bytes of it are changed.
pub(crate) fn torn(history: &mut History) -> Result<()> {
    pass(2 * WINDOW);
    for cut in [true, false] {
        let uncovered = uncovered(history)?;
        history.kill(Daemon::Controller)?;
        let backlog = Duration::from_secs(7);
        pass(backlog);
        history.kill(Daemon::Agent)?;
        let dead = Instant::now();
        let newest = segments(&history.world)?.pop().context("there is no segment")?;
        let told = tear(history, &newest, cut)?;
        history.start(Daemon::Agent)?;
        history.start(Daemon::Controller)?;
        history.settle()?;
        let dead = dead.elapsed();
        let lost = self::uncovered(history)?.saturating_sub(uncovered);
        let least = if cut { WINDOW } else { Duration::ZERO };
        // What was torn, the time in which nobody sampled, and a window at each edge.
        let most = backlog + dead + 3 * WINDOW;
        let node = history.world.operator.node()?.context("the node is known")?;
        let reason = node.reasons.iter().find(|reason| reason.subject == "journal");
        history.findings.see(
            lost >= least && lost <= most && (!lost.is_zero() || reason.is_some()),
            format!(
                "{told}: {} ms less are covered ({} to {} ms), the node says {:?}",
                lost.as_millis(),
                least.as_millis(),
                most.as_millis(),
                reason.map_or("nothing", |reason| &reason.message)
            ),
        );
    }
    Ok(())
}

fn tear(history: &mut History, path: &Path, cut: bool) -> Result<String> {
    let length = fs::metadata(path)?.len();
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // More than what a second of usage takes, at most half of everything.
    let torn = 1_000 + history.chance.below(500);
    ensure!(length > 2 * torn, "only {length} bytes to tear");
    if cut {
        file.set_len(length - torn)?;
        return Ok(format!("{torn} of {length} bytes cut off"));
    }
    let mut flipped = 0;
    for _ in 0..8 {
        let offset = length - 1 - history.chance.below(torn);
        flip(&file, offset)?;
        flipped += 1;
    }
    Ok(format!("{flipped} of the last {torn} of {length} bytes changed"))
}

fn flip(file: &File, offset: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x20], offset)?;
    Ok(())
}

/// Time of prod that the ledger knows nothing about, since its first record. The window that has
/// just begun is not in it yet, so the least of some looks is taken.
fn uncovered(history: &History) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..20 {
        let usage = history.world.operator.usage_of("prod")?;
        let coverage = usage.network.context("prod has no network usage")?.coverage;
        let uncovered = coverage.wanted_nanoseconds.saturating_sub(coverage.covered_nanoseconds);
        least = least.min(Duration::from_nanos(uncovered));
        pass(WINDOW / 8);
    }
    Ok(least)
}

/// Adds a virtual cluster whose traffic ends before everything begins.
pub(crate) fn with_guest(world: &mut World) -> Result<()> {
    let limit = SMALL_JOURNAL_BYTES.to_string();
    world.extras.agent_env.insert("BULKHEAD_JOURNAL_BYTES".to_owned(), limit);
    world.objects.put("guest", GUEST)?;
    world.virtual_clusters = 4;
    Ok(())
}

/// Keeps the controller from storing usage while a virtual cluster goes, then away for longer
/// than the journal holds.
pub(crate) fn away(history: &mut History) -> Result<()> {
    history.kill(Daemon::Controller)?;
    let cannot_store = ("FAILPOINTS".to_owned(), "usage.merge=return(error)".to_owned());
    history.world.extras.controller_env.extend([cannot_store]);
    history.start(Daemon::Controller)?;
    let sent = guest_sends(&history.world)?;
    let packets = books::cell("guest", "Egress", "Own", |cell| cell.passed_packets);
    history.entries.push(Entry::exact("guest packets", sent, packets));
    pass(2 * WINDOW);
    history.world.objects.remove("guest")?;
    history.world.virtual_clusters = 3;
    let cgroup = history.world.cgroup_root().join("guest");
    wait::until("the guest's cgroup is gone", history.world.patience(), |_| {
        Ok((!cgroup.exists()).then_some(()))
    })?;
    let stored = history.world.operator.usage_of("guest")?;
    let stored = stored.network("Egress", "Own").passed_packets;
    ensure!(stored == 0, "the controller has stored {stored} packets: has it no fault points?");
    history.kill(Daemon::Controller)?;
    history.world.extras.controller_env.clear();

    let began = Instant::now();
    let (mut most, mut shorter) = (0, 0);
    let mut before = 0;
    wait::until("the journal has been coarsened twice", Duration::from_secs(90), |note| {
        let now = bytes_of(&segments(&history.world)?);
        most = most.max(now);
        shorter += u32::from(now + 1_000 < before);
        before = now;
        *note = format!("{now} bytes");
        Ok((shorter >= 2).then_some(()))
    })?;
    history.findings.see(
        most <= SMALL_JOURNAL_BYTES,
        format!(
            "controller away for {} s: the journal had at most {most} bytes (limit {}), and was \
             coarsened {shorter} times",
            began.elapsed().as_secs(),
            SMALL_JOURNAL_BYTES
        ),
    );
    if history.broken(Sabotage::DropJournal) {
        history.kill(Daemon::Agent)?;
        for segment in segments(&history.world)? {
            fs::remove_file(&segment)?;
        }
        history.start(Daemon::Agent)?;
    }
    history.start(Daemon::Controller)
}

fn guest_sends(world: &World) -> Result<u64> {
    let mut sent = 0;
    for address in LATE {
        let mut command = world.exec("guest");
        let namespace = world.network.host(Host::ProdA).path();
        command.arg("nsenter").arg(format!("--net={}", namespace.display()));
        let line = format!("udp-send --to {} --count 300 --pause-us 500", at(address, 7110));
        command.arg(world.program("bh-traffic")).args(line.split_whitespace());
        let speaker =
            crate::demo::child::Speaker::start(command, "the guest's sender", world.patience())?;
        let said = speaker.finish()?;
        ensure!(said["errors"] == serde_json::json!({}), "the guest's errors: {said}");
        sent += said["sent"].as_u64().context("nothing sent")?;
    }
    Ok(sent)
}
