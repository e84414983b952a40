//! What the agent itself takes: memory and CPU time of a real agent with a real controller, 100
//! virtual clusters with 5 cgroups each, half of those busy, sampled once a second.
//!
//! CPU time is that of all the agent's threads, and of the kernel programs, which run on the time
//! of others. Memory is the agent's own (`RssAnon`), from its first moment on; what its tables and
//! programs take in the kernel is shown beside.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

mod process;
mod scene;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::machine;

use process::{Process, Seen};
use scene::Scene;

const GOAL_MIB: f64 = 16.0;
const GOAL_PERCENT: f64 = 0.5;
const MIB: f64 = 1_048_576.0;

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where `bulkhead-agent`, `bulkhead-controller` and `bulkhead.bpf.o` are.
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// How long the agent is watched once everything stands.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many virtual clusters there are.
    #[arg(long, default_value_t = 100)]
    virtual_clusters: usize,
    /// How many cgroups each of them has; every second one is busy.
    #[arg(long, default_value_t = 5)]
    leaves: usize,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.seconds >= 10, "nothing can be said of less than 10 seconds");
    let described = machine::describe()?;
    let scene = Scene::new(&args.programs, args.virtual_clusters, args.leaves)?;
    let agent = Process::new(scene.agent_id());
    // What happens at the start is over: objects that came, cgroups that were made.
    thread::sleep(Duration::from_secs(5));
    let (began, first) = (Instant::now(), agent.look()?);
    eprintln!("everything stands: {first}");
    let mut peak = first.anonymous_bytes;
    while began.elapsed() < Duration::from_secs(args.seconds) {
        thread::sleep(Duration::from_secs(1));
        peak = peak.max(agent.anonymous_bytes()?);
    }
    let (elapsed, last) = (began.elapsed(), agent.look()?);
    eprintln!("the end: {last}");
    let watched = Watched { args, elapsed, first, last, peak, machine: described };
    let controllers = scene.controllers()?;
    Ok(watched.rows(scene.peak_at_start(), &controllers))
}

struct Watched<'a> {
    args: &'a Args,
    elapsed: Duration,
    first: Seen,
    last: Seen,
    peak: u64,
    machine: String,
}

impl Watched<'_> {
    /// What each thread used while it was watched, the greatest first.
    fn threads(&self) -> Vec<(String, Duration)> {
        let before = |name| self.first.cpu.get(name).copied().unwrap_or_default();
        let used = self.last.cpu.iter();
        let mut used: Vec<_> =
            used.map(|(name, time)| (name.clone(), time.saturating_sub(before(name)))).collect();
        used.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        used
    }

    fn rows(&self, peak_at_start: u64, controllers: &str) -> Vec<Row> {
        let Self { args, first, last, .. } = self;
        let what = format!(
            "{} virtual clusters, {} cgroups, 1 Hz, {} s, controllers: {controllers}",
            args.virtual_clusters,
            args.virtual_clusters * args.leaves,
            args.seconds
        );
        let row =
            |name: &str, unit: &str, ours: f64, goal: f64, (note, profile): (String, String)| Row {
                name: format!("the agent itself, {name}: {what}"),
                unit: unit.to_owned(),
                ours,
                peer: None,
                peer_name: None,
                ratio: None,
                goal: format!("≤ {goal} {unit}"),
                met: Some(ours <= goal),
                spread: "one run".to_owned(),
                machine: self.machine.clone(),
                note,
                profile,
            };
        let core = self.elapsed.as_secs_f64() / 100.0;
        let threads = self.threads();
        let agent = seconds(threads.iter().map(|(_, time)| *time).sum()) / core;
        let by_thread: Vec<String> = threads
            .iter()
            .map(|(name, time)| format!("thread {name} {:.3} %", seconds(*time) / core))
            .collect();
        let programs = seconds(last.programs.saturating_sub(first.programs)) / core;
        let runs = last.runs.saturating_sub(first.runs);
        let kernel = format!(
            "tables and programs in the kernel: {:.1} MiB, which their capacities bound",
            mib(last.kernel_bytes)
        );
        vec![
            row(
                "anonymous memory, peak while it runs",
                "MiB",
                mib(self.peak),
                GOAL_MIB,
                (format!("RssAnon, once a second; {:.1} MiB at the end; {kernel}", mib(last.anonymous_bytes)), String::new()),
            ),
            row(
                "anonymous memory, peak of its start",
                "MiB",
                mib(peak_at_start),
                GOAL_MIB,
                (
                    "RssAnon every 5 ms until every virtual cluster stands; the loader (aya) reads \
                     all of the kernel's types into memory, uses none of them, and gives it back"
                        .to_owned(),
                    String::new(),
                ),
            ),
            row(
                "CPU time",
                "% of a core",
                agent + programs,
                GOAL_PERCENT,
                (
                    format!(
                        "its threads {agent:.3} %, kernel programs {programs:.3} % ({runs} runs, \
                         each measured with a floor of about 60 ns, which is not taken off)"
                    ),
                    format!("{}; kernel programs {programs:.3} %", by_thread.join(", ")),
                ),
            ),
        ]
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
