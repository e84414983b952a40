//! A kill at every fault point: a program is started that dies when it comes there, is given
//! work until it does, and another is started in its place.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::births;
use super::history::History;
use super::kills::Daemon;
use crate::demo::world::World;

/// The variable from which points are armed.
pub(crate) const VARIABLE: &str = "FAILPOINTS";

/// How long a program may take to come to its point.
const WITHIN: Duration = Duration::from_secs(45);

/// What the journal may hold, so that segments are ended and removed often.
const JOURNAL_BYTES: u64 = 12 << 10;

/// A point of one of the programs.
#[derive(Clone, Copy, Debug)]
struct Aim {
    who: Daemon,
    name: &'static str,
    /// What must happen first for it to be reached.
    needs: Needs,
}

/// What must happen for a point to be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    /// Work.
    Nothing,
    /// A write that fails.
    FailedWrite,
    /// A node that has no agent yet, or will have none any more: see `births`.
    Beginning,
    /// A controller that is away for longer than the journal holds.
    Away,
}

/// Every point of both programs.
fn all() -> Vec<Aim> {
    let of_agent = bulkhead_agent::faults::Point::ALL.iter().map(|point| Aim {
        who: Daemon::Agent,
        name: point.name(),
        needs: match point.name() {
            name if births::ONLY_HERE.contains(&name) => Needs::Beginning,
            "disk.truncate" | "disk.truncated" => Needs::FailedWrite,
            "journal.coarsened" => Needs::Away,
            _ => Needs::Nothing,
        },
    });
    let of_controller = bulkhead_controller::faults::Point::ALL.iter().map(|point| Aim {
        who: Daemon::Controller,
        name: point.name(),
        needs: Needs::Nothing,
    });
    of_agent.chain(of_controller).collect()
}

/// Makes the agent's journal small.
pub(crate) fn small_journal(world: &mut World) {
    let env = &mut world.extras.agent_env;
    env.insert("BULKHEAD_JOURNAL_BYTES".to_owned(), JOURNAL_BYTES.to_string());
}

/// Kills once at each point; `every`: at each so-many-th only, from a place that chance chooses.
pub(crate) fn kills(history: &mut History, every: usize) -> Result<()> {
    // The one that takes half a minute of waiting is for those who have the time.
    let now = |aim: &Aim| match aim.needs {
        Needs::Beginning => false,
        Needs::Away => every == 1,
        Needs::Nothing | Needs::FailedWrite => true,
    };
    let all: Vec<Aim> = all().into_iter().filter(now).collect();
    let first = usize::try_from(history.chance.below(every.try_into()?))?;
    let (mut hit, mut never) = (0, String::new());
    for aim in all.iter().skip(first).step_by(every) {
        if kill_at(history, *aim).with_context(|| format!("the point {}", aim.name))? {
            hit += 1;
        } else {
            write!(never, " {}", aim.name)?;
        }
    }
    let aimed = all.len().saturating_sub(first).div_ceil(every);
    history.findings.see(
        hit == aimed && hit > 0,
        format!(
            "died at {hit} of {aimed} fault points ({} there are); never reached:{}",
            all.len(),
            if never.is_empty() { " none" } else { &never }
        ),
    );
    Ok(())
}

/// Whether it died there.
fn kill_at(history: &mut History, aim: Aim) -> Result<bool> {
    let passes = if aim.needs == Needs::Nothing { history.chance.below(3) } else { 0 };
    let died = die_at(history, aim, passes)?;
    // It may not come there so often.
    if died || passes == 0 { Ok(died) } else { die_at(history, aim, 0) }
}

fn die_at(history: &mut History, aim: Aim, passes: u64) -> Result<bool> {
    let mut armed = format!("{}={passes}*off->1*return(kill)", aim.name);
    if aim.needs == Needs::FailedWrite {
        // From then on each, so that an append is among them.
        armed.push_str(";disk.written=3*off->return(full)");
    }
    if aim.needs == Needs::Away {
        history.kill(Daemon::Controller)?;
    }
    history.kill(aim.who)?;
    env(history, aim.who).insert(VARIABLE.to_owned(), armed);
    history.start(aim.who)?;
    env(history, aim.who).remove(VARIABLE);
    let died = died(history, aim.who)?;
    if !died {
        history.kill(aim.who)?;
    }
    history.start(aim.who)?;
    if aim.needs == Needs::Away {
        history.start(Daemon::Controller)?;
    }
    Ok(died)
}

/// Gives work until it dies.
fn died(history: &mut History, who: Daemon) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < WITHIN {
        if let Some(status) = history.status(who)? {
            let words = history.forget(who);
            anyhow::ensure!(
                status.signal() == Some(Signal::SIGKILL as i32),
                "{who:?} ended by itself ({status}): {words}"
            );
            return Ok(true);
        }
        history.change_objects()?;
        std::thread::sleep(Duration::from_millis(150));
    }
    Ok(false)
}

fn env(history: &mut History, who: Daemon) -> &mut std::collections::BTreeMap<String, String> {
    let extras = &mut history.world.extras;
    match who {
        Daemon::Agent => &mut extras.agent_env,
        Daemon::Controller => &mut extras.controller_env,
    }
}

/// Lets whatever can fail do so now and then, for a while; who ends for that is started again.
pub(crate) fn errors(history: &mut History) -> Result<()> {
    /// How long.
    const FOR: Duration = Duration::from_secs(15);
    for who in [Daemon::Agent, Daemon::Controller] {
        let some = all().into_iter().filter(|aim| aim.who == who);
        let armed: Vec<String> =
            some.map(|aim| format!("{}=4%return(error)->4%sleep(50)", aim.name)).collect();
        history.kill(who)?;
        env(history, who).insert(VARIABLE.to_owned(), armed.join(";"));
        history.start(who)?;
    }
    let began = Instant::now();
    let mut again = 0;
    while began.elapsed() < FOR {
        history.change_objects()?;
        std::thread::sleep(Duration::from_millis(200));
        for who in [Daemon::Agent, Daemon::Controller] {
            if history.status(who)?.is_some() {
                history.forget(who);
                history.start(who)?;
                again += 1;
            }
        }
    }
    for who in [Daemon::Agent, Daemon::Controller] {
        env(history, who).remove(VARIABLE);
        if history.status(who)?.is_none() {
            history.kill(who)?;
        } else {
            history.forget(who);
        }
        history.start(who)?;
    }
    let met = ["bulkhead-agent", "bulkhead-controller"].map(|name| {
        let log = std::fs::read_to_string(history.world.file(&format!("{name}.log")));
        log.unwrap_or_default().lines().filter(|line| line.contains("a fault point")).count()
    });
    history.findings.see(
        met.iter().all(|met| *met > 0),
        format!(
            "4 % errors and 4 % delays everywhere for {} s: the logs tell of {met:?}, {again} starts",
            FOR.as_secs()
        ),
    );
    Ok(())
}
