//! How many records the controller merges, in memory and on a disk, and how soon it answers.
//!
//! A record is what an agent sends of one life of one virtual cluster's counters in one window,
//! with all its meters; it comes as decoded from a batch. Batches are as agents with the default
//! options send them: one for each pass every 10 seconds, with every virtual cluster of the node,
//! in windows of 60 seconds. The ledger's own code merges them, batch by batch, each with its
//! mark in one transaction; the peer is the table that one would make of the same, with one row
//! for each value, in the same SQLite with the same settings. Both begin with half an hour of
//! records, and every round goes on where the one before ended.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

mod load;
mod peer;
mod query;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bulkhead_controller::Ledger;
use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::machine;
use bulkhead_tests::bench::statistics::{Interval, TOLERATED_SPREAD, median, shuffled, spread};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use load::{Load, Turn};
use peer::Table;

/// Nodes that report, each with a hundred virtual clusters.
const NODES: u32 = 10;
/// Windows that are in both ledgers before the first round.
const WINDOWS_BEFORE: u64 = 30;
/// Windows of one round.
const WINDOWS: u64 = 3;

const GOAL_IN_MEMORY: f64 = 250_000.0;
const GOAL_DURABLE: f64 = 20_000.0;

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk that is measured; what is made in it is removed again.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Days of one-minute windows that questions are asked of.
    #[arg(long, default_value_t = 90)]
    days: u64,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.rounds >= 3, "a spread needs at least 3 rounds");
    let machine = machine::describe()?;
    machine::pin()?;
    let scratch = Scratch::create(&args.dir)?;
    let mut rows = merging(args.rounds, &scratch.0, &machine)?;
    rows.extend(query::measure(&scratch.0, args.rounds, args.days, &machine)?);
    Ok(rows)
}

/// Who merges, and where.
#[derive(Clone, Copy, Debug)]
enum Variant {
    OursInMemory,
    OursDurable,
    PeerInMemory,
    PeerDurable,
}

impl Variant {
    const ALL: [Self; 4] =
        [Self::OursInMemory, Self::OursDurable, Self::PeerInMemory, Self::PeerDurable];
}

/// The four that merge the same.
struct Places {
    ours: [Ledger; 2],
    peers: [Table; 2],
}

impl Places {
    fn new(scratch: &Path) -> Result<Self> {
        let durable = Ledger::open(&scratch.join("ours"), None).context("open a ledger")?;
        Ok(Self {
            ours: [Ledger::in_memory().context("make a ledger in memory")?, durable],
            peers: [Table::in_memory()?, Table::create(&scratch.join("peer.db"))?],
        })
    }

    fn merge(&mut self, variant: Variant, turn: &Turn) -> Result<()> {
        match variant {
            Variant::OursInMemory => ours(&self.ours[0], turn),
            Variant::OursDurable => ours(&self.ours[1], turn),
            Variant::PeerInMemory => self.peers[0].merge(turn),
            Variant::PeerDurable => self.peers[1].merge(turn),
        }
    }
}

fn ours(ledger: &Ledger, turn: &Turn) -> Result<()> {
    let merged = ledger.merge(&turn.stream, &turn.batch, turn.now).context("merge")?;
    ensure!(!merged.duplicate, "every batch is new");
    Ok(())
}

fn merging(rounds: u32, scratch: &Path, machine: &str) -> Result<Vec<Row>> {
    let mut places = Places::new(scratch)?;
    let mut load = Load::new(NODES);
    for _ in 0..WINDOWS_BEFORE {
        for turn in load.last_turns() {
            Variant::ALL.iter().try_for_each(|variant| places.merge(*variant, &turn))?;
        }
    }
    let mut speeds: [Vec<f64>; Variant::ALL.len()] = Default::default();
    for round in 0..rounds {
        let turns: Vec<Turn> = (0..WINDOWS).flat_map(|_| load.turns()).collect();
        let records: usize = turns.iter().map(|turn| turn.batch.records.len()).sum();
        for variant in shuffled(&Variant::ALL, round) {
            let begun = Instant::now();
            turns.iter().try_for_each(|turn| places.merge(variant, turn))?;
            let speed = f64::from(u32::try_from(records)?) / begun.elapsed().as_secs_f64();
            eprintln!("round {round}: {variant:?}: {speed:.0} records/s");
            speeds[variant as usize].push(speed);
        }
    }
    // What was measured was really kept: both say the same.
    for (ledger, table) in places.ours.iter().zip(&places.peers) {
        let (ours, peer) = (query::cpu_time(ledger, load.now())?, table.cpu_time()?);
        ensure!(ours == peer, "the ledger says {ours} ns of CPU time, the table {peer}");
    }
    let of = |variant: Variant| speeds[variant as usize].as_slice();
    let in_memory = (of(Variant::OursInMemory), of(Variant::PeerInMemory));
    let durable = (of(Variant::OursDurable), of(Variant::PeerDurable));
    Ok(vec![
        row("records merged by the controller, in memory", in_memory, GOAL_IN_MEMORY, machine),
        row("records merged by the controller, durable", durable, GOAL_DURABLE, machine),
    ])
}

fn row(name: &str, (ours, peer): (&[f64], &[f64]), goal: f64, machine: &str) -> Row {
    let (speed, of_peer, noise) = (median(ours), median(peer), spread(peer));
    let values = load::VALUES_EACH;
    Row {
        name: name.to_owned(),
        unit: "records/s".to_owned(),
        ours: speed,
        peer: Some(of_peer),
        peer_name: Some(format!(
            "SQLite {}, one table with a row for each value, INSERT … ON CONFLICT max",
            rusqlite::version()
        )),
        ratio: (noise <= TOLERATED_SPREAD).then_some(of_peer / speed),
        goal: format!("≥ {goal}/s"),
        met: Interval::middle_half(ours).at_least(goal),
        spread: format!(
            "middle half within {:.0} % (peer {:.0} %), {} rounds",
            spread(ours) * 100.0,
            noise * 100.0,
            ours.len()
        ),
        machine: machine.to_owned(),
        note: format!(
            "a record is one UsageRecord as decoded from a batch, {values:.1} meter values on \
             average ({:.0} values/s); {NODES} nodes, batches of {} records, one transaction \
             each; five of six batches are of a window that is there already",
            speed * values,
            load::RECORDS_EACH,
        ),
        profile: String::new(),
    }
}

/// A directory of ours on a disk; dropped, it is gone.
struct Scratch(PathBuf);

impl Scratch {
    fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("ledger-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let made = Self(path);
        let found = statfs(&made.0).with_context(|| format!("look at {}", made.0.display()))?;
        ensure!(
            found.filesystem_type() != TMPFS_MAGIC,
            "{} is in memory, where nothing is durable; give --dir on a disk",
            dir.display()
        );
        Ok(made)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}
