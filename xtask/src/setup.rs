//! `cargo xtask setup`: what the other verbs need, why, and how it is got.
//!
//! Idempotent: what is present is left alone. The table is in `needs`.

mod debian;
mod get;
mod needs;
mod probe;

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};

pub(crate) use debian::Archive;
pub(crate) use get::modules;
use needs::Need;
pub(crate) use needs::{DEPLOY_MODULES, Group};
use probe::Found;
pub(crate) use probe::{BpfToolchain, bpf_toolchain};

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these groups; all of them when none is named.
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Only tell what is present and what is missing; status 1 when something is missing.
    #[arg(long)]
    check: bool,
    /// Do not ask before adding something to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let groups = if args.groups.is_empty() { Group::ALL } else { &args.groups };
    if args.check { check(groups) } else { ensure(groups, args.yes) }
}

/// Gets whatever of these groups is missing; other verbs call it before they begin.
pub(crate) fn ensure(groups: &[Group], yes: bool) -> Result<()> {
    let missing = missing_of(groups, |_, _| ())?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("This machine lacks:");
    for need in &missing {
        eprintln!("  {}", line(need)?);
    }
    agree(yes)?;
    get::all(&missing)?;
    let left = missing_of(groups, |_, _| ())?;
    if let Some(need) = left.first() {
        bail!("{} was installed but is still not found: {}", need.name, need.probe.told());
    }
    Ok(())
}

fn check(groups: &[Group]) -> Result<()> {
    let missing = missing_of(groups, |need, found| match found {
        Found::Yes(version) => println!("present  {} {version}", need.name),
        Found::TooOld(version) => println!("too old  {} {version}", need.name),
        Found::No => println!("missing  {}", need.name),
    })?;
    for need in &missing {
        println!("{}", line(need)?);
    }
    match missing.len() {
        0 => Ok(()),
        count => bail!("{count} missing; `cargo xtask setup` gets them"),
    }
}

/// The needs of `groups` that this machine does not meet; `each` sees every need on the way.
fn missing_of(groups: &[Group], mut each: impl FnMut(&Need, &Found)) -> Result<Vec<Need>> {
    let mut missing = Vec::new();
    for need in needs::table(bpf_toolchain()) {
        if !need.groups.iter().any(|group| groups.contains(group)) {
            continue;
        }
        let found = need.probe.look().with_context(|| format!("look for {}", need.name))?;
        each(&need, &found);
        if !matches!(found, Found::Yes(_)) {
            missing.push(need);
        }
    }
    Ok(missing)
}

/// One line: what, why, and the command that gets it.
fn line(need: &Need) -> Result<String> {
    Ok(format!("{}: {}; get it: {}", need.name, need.why, get::command(need)?))
}

/// Asks a person at a terminal; automation has agreed by running this.
fn agree(yes: bool) -> Result<()> {
    let automation = env::var("CI").is_ok_and(|ci| ci == "true");
    if yes || automation || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("Get these now? [y/N] ");
    io::stderr().flush().context("show the question")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    bail!("nothing was installed; `cargo xtask setup --yes` does not ask")
}
