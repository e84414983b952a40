//! Running histories.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::sabotage::Sabotage;
use super::{births, clock, disk, journal, kills, points, tighten, upgrade};
use crate::demo::checks::Findings;
use crate::demo::world::World;
use crate::demo::{Options, Outcome};

/// How much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Extent {
    /// A few kills and the quick faults: a few minutes.
    Short,
    /// At least fifty kills, every fault point, every fault.
    Full,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How much.
    pub extent: Extent,
    /// From which chance is made.
    pub seed: u64,
    /// Only the histories of these names; none: all.
    pub histories: Vec<String>,
    /// What to break.
    pub sabotage: Option<Sabotage>,
}

/// What came of the histories.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FaultReport {
    /// Everything was as it must be, and there was something.
    pub ok: bool,
    /// Where it ran.
    pub on: String,
    /// From which chance was made: the same seed repeats it.
    pub seed: u64,
    /// The histories.
    pub checks: Vec<Outcome>,
}

/// A history by its name.
struct Kind {
    name: &'static str,
    expected: &'static str,
    /// Also in the short extent.
    short: bool,
    run: fn(&Options, &Wanted) -> Result<Findings>,
}

const fn kind(
    name: &'static str,
    short: bool,
    run: fn(&Options, &Wanted) -> Result<Findings>,
    expected: &'static str,
) -> Kind {
    Kind { name, expected, short, run }
}

const ALL: &[Kind] = &[
    kind(
        "kills",
        true,
        |options, wanted| {
            let count = if wanted.extent == Extent::Full { 60 } else { 12 };
            history(options, wanted, |_| Ok(()), |history| kills::kills(history, count))
        },
        "agent and controller killed (SIGKILL) at random moments under traffic and load",
    ),
    kind(
        "points",
        true,
        |options, wanted| {
            let every = if wanted.extent == Extent::Full { 1 } else { 6 };
            let kills = |history: &mut History| points::kills(history, every);
            let small = |world: &mut World| {
                points::small_journal(world);
                Ok(())
            };
            history(options, wanted, small, kills)
        },
        "a kill at every fault point (short: at one of six)",
    ),
    kind(
        "tighten",
        true,
        |options, wanted| {
            let rounds = if wanted.extent == Extent::Full { 12 } else { 3 };
            let tighten = |history: &mut History| tighten::tighten(history, rounds);
            history(options, wanted, tighten::with_guest, tighten)
        },
        "a way is closed under a socket that sends, with kills between the word and the deed",
    ),
    kind(
        "upgrades",
        true,
        |options, wanted| {
            let count = if wanted.extent == Extent::Full { 12 } else { 4 };
            history(options, wanted, |_| Ok(()), |history| upgrade::upgrades(history, count))
        },
        "an agent of another ABI version takes over, and this one again; each other time cut short",
    ),
    kind(
        "births",
        false,
        births::births,
        "a kill at each point of an agent's first start on a node, and of taking it off",
    ),
    kind(
        "errors",
        false,
        |options, wanted| history(options, wanted, |_| Ok(()), points::errors),
        "every durable write, cgroup step and transaction fails or waits now and then",
    ),
    kind(
        "full-disk",
        true,
        |options, wanted| history(options, wanted, disk::small_disks, disk::full),
        "no room for the journal, then none for the ledger; then room again",
    ),
    kind(
        "read-only-ledger",
        false,
        |options, wanted| history(options, wanted, |_| Ok(()), disk::read_only),
        "the controller finds its ledger read-only, ends and says so; then it can be written",
    ),
    kind(
        "torn-journal",
        true,
        |options, wanted| history(options, wanted, |_| Ok(()), journal::torn),
        "the newest segment torn while both are dead: totals stay exact, coverage tells the hole",
    ),
    kind(
        "controller-away",
        false,
        |options, wanted| history(options, wanted, journal::with_guest, journal::away),
        "the controller is away for longer than the journal holds, and a virtual cluster ends",
    ),
    kind(
        "clock-jumps",
        false,
        |options, wanted| history(options, wanted, clock::with_offsets, clock::jumps),
        "wall clocks an hour ahead and an hour back",
    ),
];

/// What holds after every history.
const AFTER: &str = "the ledger is what was sent, received and burnt; every probe of a denied \
                     path was refused, and nothing of it arrived; nothing is left";

/// Names of all histories.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|kind| kind.name).collect()
}

/// Runs them, one after the other.
pub fn faults(options: &Options, wanted: &Wanted) -> Result<FaultReport> {
    for name in &wanted.histories {
        ensure!(names().contains(&name.as_str()), "no history \"{name}\"");
    }
    let chosen = |kind: &&Kind| match wanted.histories.as_slice() {
        [] => kind.short || wanted.extent == Extent::Full,
        some => some.iter().any(|name| name == kind.name),
    };
    let checks = ALL.iter().filter(chosen).map(|kind| outcome(kind, options, wanted)).collect();
    FaultReport::new(options, wanted.seed, checks)
}

/// Runs every sabotage in its history; each must turn what it breaks red.
pub fn sabotages(options: &Options, seed: u64) -> Result<FaultReport> {
    // What was broken never comes: it is waited for as long as it takes where it is not.
    let options = Options { patience: BROKEN_PATIENCE, ..options.clone() };
    let mut checks = Vec::new();
    for sabotage in Sabotage::ALL {
        let kind = ALL.iter().find(|kind| kind.name == sabotage.history());
        let kind = kind.with_context(|| format!("{sabotage} has no history"))?;
        let wanted = Wanted {
            extent: Extent::Short,
            seed,
            histories: vec![kind.name.to_owned()],
            sabotage: Some(sabotage),
        };
        let outcome = outcome(kind, &options, &wanted);
        let red: Vec<&str> =
            outcome.seen.split("; ").filter(|part| part.starts_with(NOT_OK)).collect();
        let ok = red.iter().any(|part| part.contains(sabotage.reddens()));
        let mark = if ok { "ok " } else { "RED" };
        println!("{mark}  {sabotage} turns \"{}\" red", sabotage.reddens());
        checks.push(Outcome {
            name: sabotage.to_string(),
            expected: format!("\"{}\" turns red in {}", sabotage.reddens(), kind.name),
            seen: red.join("; "),
            ok,
            milliseconds: outcome.milliseconds,
        });
    }
    FaultReport::new(&options, seed, checks)
}

/// How long something is waited for that was broken on purpose.
const BROKEN_PATIENCE: Duration = Duration::from_secs(10);

/// How a finding begins that is not as it must be.
const NOT_OK: &str = "NOT OK: ";

fn outcome(kind: &Kind, options: &Options, wanted: &Wanted) -> Outcome {
    let began = Instant::now();
    eprintln!("  {} (seed {}) …", kind.name, wanted.seed);
    let (seen, ok) = match (kind.run)(options, wanted) {
        Ok(findings) => findings.told(),
        Err(error) => (format!("{NOT_OK}{error:#}"), false),
    };
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mark = match (ok, wanted.sabotage) {
        (true, _) => "ok ",
        (false, None) => "RED",
        (false, Some(_)) => "red",
    };
    println!("{mark}  {} ({} s, seed {}): {seen}", kind.name, milliseconds / 1_000, wanted.seed);
    Outcome {
        name: kind.name.to_owned(),
        expected: format!("{}: {AFTER}", kind.expected),
        seen,
        ok,
        milliseconds,
    }
}

impl FaultReport {
    fn new(options: &Options, seed: u64, checks: Vec<Outcome>) -> Result<Self> {
        let kernel = uname().context("uname")?;
        let on = format!("{} (kernel {})", options.on, kernel.release().to_string_lossy());
        let ok = !checks.is_empty() && checks.iter().all(|check| check.ok);
        Ok(Self { ok, on, seed, checks })
    }
}

fn history(
    options: &Options,
    wanted: &Wanted,
    prepare: impl FnOnce(&mut World) -> Result<()>,
    happens: impl FnOnce(&mut History) -> Result<()>,
) -> Result<Findings> {
    let mut history = History::begin(options, wanted.seed, wanted.sabotage, prepare)?;
    happens(&mut history)?;
    history.settle()?;
    history.finish()
}
