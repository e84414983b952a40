//! What a pass over the usage of 500 cgroups costs, half of them busy.
//!
//! Measured is the CPU time of the thread that reads, what the kernel does for it included: by the
//! agent's own sampler with the cgroup iterator, by the same sampler from files that are kept open,
//! and by the `cgroupfs` crate, whose readers are kept, too. In each round every way reads every
//! cgroup, in an order that changes from round to round. Before, between and after the rounds all
//! processes are frozen and every field is compared with the file's value.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

pub(crate) mod burner;
mod scene;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::machine;
use bulkhead_tests::bench::statistics::{TOLERATED_SPREAD, median, median_ratio, shuffled, spread};
use nix::time::{ClockId, clock_gettime};

use scene::Scene;
use ways::{Way, Ways};

/// All fields: no more than this share of the crate's cost.
const GOAL_ALL: f64 = 0.1;
/// CPU times alone.
const GOAL_CPU: f64 = 0.02;

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel programs.
    #[arg(long, value_name = "FILE")]
    object: PathBuf,
    /// How many cgroups there are; every second one is busy.
    #[arg(long, default_value_t = 500)]
    cgroups: usize,
    /// How often every way is measured.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
}

/// Nanoseconds for one cgroup, round by round.
#[derive(Default)]
struct Measured {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.rounds >= 3, "a spread needs at least 3 rounds");
    ensure!(args.cgroups >= 2, "half of the cgroups are busy");
    let described = machine::describe()?;
    let pinned = machine::pin()?;
    let scene = Scene::new(args.cgroups, pinned)?;
    let mut ways = Ways::open(&args.object, scene.tree())?;
    eprintln!("{}: {} cgroups; {}", described, args.cgroups, Ways::describe(scene.tree()));
    let mut measured: Vec<Measured> = Way::ALL.iter().map(|_| Measured::default()).collect();
    let mut checked = scene.check(&mut ways).context("before the first round")?;
    for round in 0..args.rounds {
        for way in shuffled(&Way::ALL, round) {
            let passes = way.passes();
            let (cpu, wall) = (thread_time()?, now()?);
            for _ in 0..passes {
                ways.pass(way, scene.tree())?;
            }
            let cpu = thread_time()?.saturating_sub(cpu);
            let wall = now()?.saturating_sub(wall);
            let each =
                |time: Duration| time.as_secs_f64() * 1e9 / f64::from(passes) / count(args.cgroups);
            measured[way as usize].cpu.push(each(cpu));
            measured[way as usize].wall.push(each(wall));
        }
        if round == args.rounds / 2 || round + 1 == args.rounds {
            checked += scene.check(&mut ways).context("the fields against the files")?;
        }
    }
    for way in Way::ALL {
        let one = &measured[way as usize];
        eprintln!(
            "{way:?}: CPU {:.0} ns, wall {:.0} ns for one cgroup, spread {:.1} %",
            median(&one.cpu),
            median(&one.wall),
            100.0 * spread(&one.cpu)
        );
    }
    let report = Report { args, measured: &measured, machine: described, checked };
    Ok(report.rows(&scene))
}

fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's clock")?.into())
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?.into())
}

#[expect(clippy::cast_precision_loss, reason = "some hundred cgroups")]
fn count(cgroups: usize) -> f64 {
    cgroups as f64
}

struct Report<'a> {
    args: &'a Args,
    measured: &'a [Measured],
    machine: String,
    /// How many values were compared with files.
    checked: usize,
}

impl Report<'_> {
    fn rows(&self, scene: &Scene) -> Vec<Row> {
        let crate_name = "cgroupfs crate 0.8.1, readers kept";
        let all = format!("all fields of the agent's sampler; {}", Ways::describe(scene.tree()));
        let cpu = "usage_usec, user_usec, system_usec".to_owned();
        let text = format!("≤ {GOAL_ALL} × the cgroupfs crate for the same fields (10 × cheaper)");
        let rows = [
            (Way::Sampler, Way::CrateAll, crate_name, Some((GOAL_ALL, text)), all.clone()),
            (
                Way::IteratorCpu,
                Way::CrateCpu,
                crate_name,
                Some((
                    GOAL_CPU,
                    format!("≤ {GOAL_CPU} × the cgroupfs crate's cpu.stat (50 × cheaper)"),
                )),
                cpu.clone(),
            ),
            (Way::Sampler, Way::FilesAll, "the same sampler from files kept open", None, all),
            (Way::IteratorCpu, Way::FilesCpu, "cpu.stat kept open, pread", None, cpu),
        ];
        rows.into_iter()
            .map(|(ours, peer, peer_name, goal, fields)| {
                self.row(ours, (peer, peer_name), goal, &fields)
            })
            .collect()
    }

    fn row(
        &self,
        ours: Way,
        (peer, peer_name): (Way, &str),
        goal: Option<(f64, String)>,
        fields: &str,
    ) -> Row {
        let [our, their] = [ours, peer].map(|way| &self.measured[way as usize]);
        let steady = spread(&their.cpu) <= TOLERATED_SPREAD;
        let ratio = median_ratio(&our.cpu, &their.cpu);
        let what = if ours == Way::Sampler { "every field" } else { "CPU times" };
        let (most, text) =
            goal.map_or((None, "none: shown beside".to_owned()), |(most, text)| (Some(most), text));
        Row {
            name: format!(
                "a usage pass, {what}, {} cgroups, half of them busy: CPU time for one cgroup",
                self.args.cgroups
            ),
            unit: "ns".to_owned(),
            ours: median(&our.cpu),
            peer: Some(median(&their.cpu)),
            peer_name: Some(peer_name.to_owned()),
            ratio: steady.then_some(ratio.value),
            goal: text,
            met: most.filter(|_| steady).and_then(|most| ratio.interval.at_most(most)),
            spread: format!(
                "middle half of {} rounds: ours {:.1} %, peer {:.1} %; 95 % interval of the ratio \
                 {:.3}",
                self.args.rounds,
                100.0 * spread(&our.cpu),
                100.0 * spread(&their.cpu),
                ratio.interval
            ),
            machine: self.machine.clone(),
            note: format!(
                "{fields}; wall time {:.0} ns against {:.0} ns; {} values compared with the \
                 files', all equal; the peer reads no memory.peak, pids.peak and pids.events, \
                 which it does not know",
                median(&our.wall),
                median(&their.wall),
                self.checked
            ),
            profile: String::new(),
        }
    }
}
