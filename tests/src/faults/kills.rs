//! Killing (SIGKILL) at random moments.

use std::time::{Duration, Instant};

use anyhow::Result;
use bulkhead_abi::programs;

use super::chance::Chance;
use super::history::{History, pass};
use super::sabotage::Sabotage;
use crate::demo::ledger;

/// One of the two programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Daemon {
    Agent,
    Controller,
}

/// How often each was killed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Killed {
    agent: u64,
    controller: u64,
    /// With the other one dead, too.
    both: u64,
    /// Within half a second after a start.
    young: u64,
    longest_dead: Duration,
}

/// What comes next for a daemon.
#[derive(Clone, Copy, Debug)]
enum Next {
    Kill(Instant, Instant),
    Start(Instant),
}

impl Next {
    const fn when(self) -> Instant {
        match self {
            Self::Kill(when, _) | Self::Start(when) => when,
        }
    }
}

/// Kills at random moments, so many times, while objects change.
pub(crate) fn kills(history: &mut History, count: u64) -> Result<()> {
    let now = Instant::now();
    let mut killed = Killed::default();
    // Each has a chance of its own: who comes first may differ, what comes of it does not.
    let mut chances = [1, 2, 3].map(|stream| history.fork(stream));
    let mut agent = Next::Kill(now + life(&mut chances[0]), now);
    let mut controller = Next::Kill(now + 2 * life(&mut chances[1]), now);
    let mut change = now;
    while killed.agent + killed.controller < count {
        let next = agent.when().min(controller.when()).min(change);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if next == change {
            history.change_objects()?;
            change = Instant::now() + chances[2].milliseconds(100, 900);
        } else if next == agent.when() {
            agent = act(history, &mut chances[0], (Daemon::Agent, agent), &mut killed)?;
        } else {
            controller =
                act(history, &mut chances[1], (Daemon::Controller, controller), &mut killed)?;
        }
    }
    let Killed { agent, controller, both, young, longest_dead } = killed;
    history.findings.see(
        agent > 0 && controller > 0,
        format!(
            "{agent} agents and {controller} controllers killed ({both} with the other dead, \
             {young} within 0.5 s of their start; dead for up to {} ms)",
            longest_dead.as_millis()
        ),
    );
    Ok(())
}

/// How long somebody lives: often too short to get anywhere, sometimes long enough for all.
const fn life(chance: &mut Chance) -> Duration {
    if chance.percent(40) { chance.milliseconds(0, 500) } else { chance.milliseconds(500, 2_500) }
}

fn act(
    history: &mut History,
    chance: &mut Chance,
    (who, what): (Daemon, Next),
    killed: &mut Killed,
) -> Result<Next> {
    match what {
        Next::Kill(_, born) => {
            history.kill(who)?;
            let world = &history.world;
            match who {
                Daemon::Agent => killed.agent += 1,
                Daemon::Controller => killed.controller += 1,
            }
            killed.both += u64::from(world.agent.is_none() && world.controller.is_none());
            killed.young += u64::from(born.elapsed() < Duration::from_millis(500));
            let dead = chance.milliseconds(0, 1_200);
            killed.longest_dead = killed.longest_dead.max(dead);
            while_dead(history, who, killed)?;
            Ok(Next::Start(Instant::now() + dead))
        }
        Next::Start(_) => {
            history.start(who)?;
            let now = Instant::now();
            let life = life(chance);
            // A controller does less that could be cut.
            let life = if who == Daemon::Controller { 2 * life } else { life };
            Ok(Next::Kill(now + life, now))
        }
    }
}

fn while_dead(history: &History, who: Daemon, killed: &Killed) -> Result<()> {
    if who == Daemon::Agent && killed.agent == 2 && history.broken(Sabotage::DetachWhileDead) {
        history.world.take_off(&programs::ALL)?;
        pass(Duration::from_millis(500));
    }
    if who == Daemon::Controller
        && killed.controller == 2
        && history.broken(Sabotage::DoubleLedgerRows)
    {
        ledger::double(&history.world.controller_data())?;
    }
    Ok(())
}
