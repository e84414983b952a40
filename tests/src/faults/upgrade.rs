//! The agent gives way to one of another ABI version, with counters of another shape, and back.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::history::{History, pass};
use super::kills::Daemon;
use super::points::VARIABLE;
use crate::demo::wait;
use crate::demo::world::Version;

/// Changes the version so many times, while objects change. Each other time the agent that takes
/// over is killed on the way, between two pins or at a random moment, and started again.
pub(crate) fn upgrades(history: &mut History, count: u64) -> Result<()> {
    let (mut cut, mut versions) = (0, Vec::new());
    for turn in 0..count {
        history.kill(Daemon::Agent)?;
        history.world.version = match history.world.version {
            Version::Ours => Version::Next,
            Version::Next => Version::Ours,
        };
        if turn % 4 == 1 {
            history.change_objects()?;
            die_between_pins(history)?;
            cut += 1;
        } else if turn % 4 == 3 {
            history.change_objects()?;
            history.start(Daemon::Agent)?;
            let life = history.chance.milliseconds(20, 400);
            pass(life);
            history.kill(Daemon::Agent)?;
            cut += 1;
        }
        history.settle()?;
        versions.push(only_version(history)?);
        pass(Duration::from_millis(300));
    }
    let changes = versions.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64;
    history.findings.see(
        changes + 1 == count,
        format!("{count} changes between {versions:?}, {cut} of them cut short and begun again"),
    );
    Ok(())
}

/// Starts the agent, which dies when it has pinned some of the other version's tables.
fn die_between_pins(history: &mut History) -> Result<()> {
    /// Tables that it pins so: all but CONFIG, SLOTS and CELLS, since counters differ.
    const PINS: u64 = 5;
    let armed = format!("bpf.pinned={}*off->1*return(kill)", history.chance.below(PINS));
    history.world.extras.agent_env.insert(VARIABLE.to_owned(), armed);
    history.start(Daemon::Agent)?;
    history.world.extras.agent_env.remove(VARIABLE);
    let patience = history.world.patience();
    wait::until("the agent dies between two pins", patience, |_| history.status(Daemon::Agent))?;
    history.forget(Daemon::Agent);
    Ok(())
}

/// The one version that has pins, once what the other has counted is in the journal.
fn only_version(history: &History) -> Result<String> {
    let pins = history.world.pins();
    wait::until("only one version has pins", history.world.patience(), |note| {
        let entries = fs::read_dir(&pins).with_context(|| format!("list {}", pins.display()))?;
        let names: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        *note = format!("{names:?}");
        Ok(<[String; 1]>::try_from(names).ok().map(|[name]| name))
    })
}
