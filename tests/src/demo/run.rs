//! Running the checks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use super::checks::{self, Check, Findings, Run};
use super::report::{Outcome, Report, SabotageOutcome, SabotageReport};
use super::sabotage::Sabotage;
use super::world::{Only, World};

/// How to run a demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the programs.
    pub programs: PathBuf,
    /// "host" or "vm".
    pub on: String,
    /// Half of it.
    pub only: Option<Only>,
    /// How long to wait for what should come.
    pub patience: Duration,
}

/// Checks that stand beside a sabotaged one in [`sabotages`], to stay green: quick ones.
const CONTROLS: [&str; 4] =
    ["starts-inside", "same-cluster-flows", "connect-refused", "nothing-left"];

/// Runs every check that this machine can show, with one thing broken or none.
pub fn demo(options: &Options, sabotage: Option<Sabotage>) -> Result<Report> {
    let (chosen, left_out) = checks::shown_here(options.only)?;
    let mut report = run(options, sabotage, &chosen)?;
    report.left_out = left_out;
    Ok(report)
}

/// Runs sabotages, each in a fresh world, with the check that it must turn red and a few that
/// must stay green. None named: all that this machine can show.
pub fn sabotages(options: &Options, chosen: &[Sabotage]) -> Result<SabotageReport> {
    let (shown, _) = checks::shown_here(options.only)?;
    let is_shown = |sabotage: &Sabotage| shown.iter().any(|check| check.name == sabotage.reddens());
    let all: Vec<Sabotage> = match chosen {
        [] => Sabotage::ALL.iter().copied().filter(is_shown).collect(),
        some => some.to_vec(),
    };
    let mut outcomes = Vec::new();
    for sabotage in all {
        let needed =
            |check: &Check| check.name == sabotage.reddens() || CONTROLS.contains(&check.name);
        let chosen: Vec<Check> = checks::ALL.iter().copied().filter(needed).collect();
        let report = run(options, Some(sabotage), &chosen)
            .with_context(|| format!("the demo with sabotage {sabotage}"))?;
        let outcome = SabotageOutcome::judge(sabotage.name(), sabotage.reddens(), &report);
        println!("{}", outcome.lines());
        outcomes.push(outcome);
    }
    Ok(SabotageReport::new(on(options)?, outcomes))
}

fn run(options: &Options, sabotage: Option<Sabotage>, chosen: &[Check]) -> Result<Report> {
    let began = Instant::now();
    let mut world = Some(World::new(options, sabotage).context("set the demo up")?);
    eprintln!("  set up in {} ms", began.elapsed().as_millis());
    let mut outcomes = Vec::new();
    for check in chosen {
        let began = Instant::now();
        let (seen, ok) = look(check, &mut world);
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        eprintln!("  {} {} ({milliseconds} ms)", if ok { "ok " } else { "RED" }, check.name);
        outcomes.push(Outcome {
            name: check.name.to_owned(),
            expected: check.expected.to_owned(),
            seen,
            ok,
            milliseconds,
        });
    }
    let mut report = Report::new(on(options)?, outcomes, Vec::new());
    report.sabotage = sabotage.map(|sabotage| sabotage.name().to_owned());
    Ok(report)
}

/// A check that could not be made is red too, and says why.
fn look(check: &Check, world: &mut Option<World>) -> (String, bool) {
    let found = match (check.run, world.as_mut()) {
        (Run::Amid(look), Some(world)) => {
            let found = look(world);
            // A check that failed half-way may have left the agent dead.
            let mended = world.mend().context("the agent does not come back");
            found.and_then(|found| mended.map(|()| found))
        }
        (Run::AtTheEnd(look), Some(_)) => world.take().map_or(Ok(Findings::default()), look),
        (_, None) => Err(anyhow::anyhow!("the demo has ended before this check")),
    };
    match found {
        Ok(findings) => findings.told(),
        Err(error) => (format!("the check failed: {error:#}"), false),
    }
}

fn on(options: &Options) -> Result<String> {
    let kernel = uname().context("uname")?;
    Ok(format!("{} (kernel {})", options.on, kernel.release().to_string_lossy()))
}
