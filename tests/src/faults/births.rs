//! Kills where everything begins and ends: the agent's first start on a node, and `detach`.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::chance::Chance;
use super::points::VARIABLE;
use super::run::Wanted;
use crate::demo::Options;
use crate::demo::checks::Findings;
use crate::demo::checks::end::nothing_left;
use crate::demo::network::Host;
use crate::demo::wait;
use crate::demo::world::{World, at};

/// Points of a first start, and how often each is passed in one.
const STARTING: [(&str, u64); 13] = [
    ("bpf.load", 1),
    ("bpf.loaded", 1),
    ("bpf.pin", 6),
    ("bpf.pinned", 6),
    ("bpf.attach", 6),
    ("bpf.attached", 6),
    ("bpf.put", 8),
    ("bpf.put-done", 8),
    ("generation.begun", 3),
    ("cgroup.create", 3),
    ("step.done", 8),
    ("disk.renamed", 1),
    ("snapshot.kept", 1),
];

/// Points of `detach`.
const ENDING: [(&str, u64); 2] = [("bpf.detach", 6), ("bpf.detached", 6)];

/// Names of points that are reached at the beginning or at the end only.
pub(crate) const ONLY_HERE: [&str; 6] =
    ["bpf.pin", "bpf.pinned", "bpf.attach", "bpf.attached", "bpf.detach", "bpf.detached"];

/// Where nobody may connect to.
const PORT: u16 = 7120;

/// Kills a first start at each of its points, and `detach` at each of its own.
pub(crate) fn births(options: &Options, wanted: &Wanted) -> Result<Findings> {
    let mut world = World::prepare(options, None)?;
    let mut chance = Chance::new(wanted.seed);
    let mut findings = Findings::default();
    world.start_controller()?;
    let (mut starts, mut ends, mut refused) = (0, 0, 0);
    for (index, (point, most)) in STARTING.into_iter().enumerate() {
        let passes = chance.below(most);
        let env = &mut world.extras.agent_env;
        env.insert(VARIABLE.to_owned(), format!("{point}={passes}*off->1*return(kill)"));
        world.spawn_agent()?;
        world.extras.agent_env.clear();
        starts += u64::from(died(&mut world, point, &mut findings)?);
        world.start_agent()?;
        refused += u64::from(is_refused(&world, &mut findings)?);
        let last = index + 1 == STARTING.len();
        if !last {
            ends += detach(&mut world, ENDING[index % ENDING.len()], &mut chance, &mut findings)?;
        }
    }
    findings.see(
        starts == STARTING.len() as u64 && refused == starts && ends > 0,
        format!(
            "{starts} first starts killed, each at a point of its own, and {ends} times `detach`; \
             what was started after refused {refused} times"
        ),
    );
    findings.add(nothing_left(world)?);
    Ok(findings)
}

fn died(world: &mut World, point: &str, findings: &mut Findings) -> Result<bool> {
    let patience = world.patience();
    let mut agent = world.agent.take().context("it was started")?;
    let status = wait::settle(patience, || agent.ended(), Option::is_some)?.0;
    let killed = status.is_some_and(was_killed);
    if !killed {
        findings.see(false, format!("{point}: {status:?}: {}", agent.last_words()));
    }
    Ok(killed)
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

/// Whether dev is refused by prod, which prod itself is not.
fn is_refused(world: &World, findings: &mut Findings) -> Result<bool> {
    let server = world.serve(Host::ProdA, &format!("tcp-serve --bind [::]:{PORT}"))?;
    let line = format!("tcp-connect --to {} --timeout-ms 1500", at(Host::ProdA.v4(), PORT));
    let denied = world.start(Host::Dev, "bh-traffic", &line)?.finish()?;
    let allowed = world.start(Host::ProdB, "bh-traffic", &line)?.finish()?;
    let seen = server.finish()?;
    let right =
        denied["error"] == "EPERM" && allowed["connected"] == true && seen["connections"] == 1;
    if !right {
        findings.see(false, format!("dev {denied}, prod {allowed}, the listener {seen}"));
    }
    Ok(right)
}

/// Kills `detach` at a point, then lets another end the work; how often the first died.
fn detach(
    world: &mut World,
    (point, most): (&str, u64),
    chance: &mut Chance,
    findings: &mut Findings,
) -> Result<u64> {
    world.kill_agent()?;
    let mut armed = world.agent_command();
    armed.env(VARIABLE, format!("{point}={}*off->1*return(kill)", chance.below(most)));
    let status = armed.arg("detach").stdin(Stdio::null()).output().context("detach")?.status;
    let killed = was_killed(status);
    if !killed {
        findings.see(false, format!("detach at {point}: {status}"));
    }
    let output = world.agent_command().arg("detach").stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the second detach ended with {}: {said}", output.status);
    let left = count(&world.pins());
    if left > 0 {
        findings.see(false, format!("{left} pins after the second detach"));
    }
    Ok(u64::from(killed))
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}
