//! Wall clocks that jump, of the agent and of the controller. The machine's own stays as it is:
//! the programs add what a file says (feature `fault-points`).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::history::{History, pass};
use super::kills::Daemon;
use crate::demo::world::World;

const HOUR_SECONDS: i64 = 3_600;

/// How long a clock stands wrong.
const WRONG_FOR: Duration = Duration::from_secs(3);

const VARIABLE: &str = "BULKHEAD_CLOCK_OFFSET_FILE";
const AGENT: &str = "agent-clock";
const CONTROLLER: &str = "controller-clock";

/// Lets both read how far their clocks are off, and asks about all of that time.
pub(crate) fn with_offsets(world: &mut World) -> Result<()> {
    let told = |name| (VARIABLE.to_owned(), world.file(name).display().to_string());
    let (agent, controller) = (told(AGENT), told(CONTROLLER));
    world.extras.agent_env.extend([agent]);
    world.extras.controller_env.extend([controller]);
    world.operator.since = "5h";
    set(world, AGENT, 0)?;
    set(world, CONTROLLER, 0)
}

fn set(world: &World, name: &str, seconds: i64) -> Result<()> {
    // Whole at once: a clock that reads half a number would jump elsewhere.
    let (path, beside) = (world.file(name), world.file("clock.new"));
    fs::write(&beside, seconds.to_string()).context("write a clock's offset")?;
    fs::rename(&beside, &path).context("set a clock")
}

/// Sets the clocks an hour ahead and back, one after the other and both; whoever's is wrong is
/// killed once meanwhile.
pub(crate) fn jumps(history: &mut History) -> Result<()> {
    let ahead = [HOUR_SECONDS, -HOUR_SECONDS];
    let mut jumps = 0;
    for (agent, controller) in [(true, false), (false, true), (true, true)] {
        for seconds in ahead {
            if agent {
                set(&history.world, AGENT, seconds)?;
            }
            if controller {
                set(&history.world, CONTROLLER, seconds)?;
            }
            jumps += 1;
            pass(WRONG_FOR / 2);
            let who = if agent { Daemon::Agent } else { Daemon::Controller };
            history.kill(who)?;
            history.start(who)?;
            pass(WRONG_FOR / 2);
            history.check()?;
            set(&history.world, AGENT, 0)?;
            set(&history.world, CONTROLLER, 0)?;
            pass(WRONG_FOR / 3);
        }
    }
    history.findings.see(jumps == 6, format!("{jumps} jumps of an hour, each way, and back"));
    Ok(())
}
