//! What a verdict costs at 100,000 addresses against 1,000.
//!
//! The kernel itself times every run of the programs (`BPF_STATS_RUN_TIME`) while real sockets
//! send and receive, as `network` has them do. `BPF_PROG_TEST_RUN` would not do for this: it
//! makes a new socket for each call, so that a verdict that is kept with the socket is either
//! never found or always. What the timing itself takes is measured on a program that does
//! nothing, in the same round, and taken off.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use bulkhead_abi::programs;
use bulkhead_tests::bench::statistics::{
    self, TOLERATED_SPREAD, differences, median, median_estimate, median_ratio, spread,
};
use bulkhead_tests::bench::{Row, machine};

use crate::network::end::Pattern;
use crate::network::place::{Place, Program};
use crate::network::{ADDRESSES, Variant};

/// How many addresses are few.
const FEW: u32 = 1_000;

/// The programs that judge a datagram on its way, and how they are called here.
const PROGRAMS: [(&str, &str); 3] = [
    (programs::EGRESS, "egress"),
    (programs::INGRESS, "ingress"),
    (programs::SENDMSG4, "sendmsg4"),
];

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The object of the kernel programs.
    #[arg(long, value_name = "FILE")]
    object: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// How many packets are sent each time.
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
}

/// Nanoseconds a run, one value for each round.
#[derive(Default)]
struct Times {
    /// Of the program that does nothing.
    floor: Vec<f64>,
    /// By program; those that do not run for a pattern have none.
    few: [Vec<f64>; PROGRAMS.len()],
    many: [Vec<f64>; PROGRAMS.len()],
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.rounds >= 3, "an interval needs at least 3 rounds");
    let machine = machine::describe()?;
    let mut place = Place::new(&args.object, &[])?;
    let _timed = enable_stats(Stats::RunTime).context("have the kernel time programs")?;
    let mut all = Pattern::ALL.map(|pattern| (pattern, Times::default()));
    for round in 0..args.rounds {
        for addresses in statistics::shuffled(&[FEW, ADDRESSES], round) {
            place.know(addresses)?;
            for (pattern, times) in &mut all {
                measure(&mut place, *pattern, addresses, args.packets, times)
                    .with_context(|| format!("round {round}, {addresses} addresses"))?;
            }
        }
    }
    Ok(all.iter().flat_map(|(pattern, times)| rows(*pattern, times, args, &machine)).collect())
}

fn measure(
    place: &mut Place,
    pattern: Pattern,
    addresses: u32,
    packets: u32,
    times: &mut Times,
) -> Result<()> {
    if addresses == FEW {
        let floor = timed(place, Variant::EmptyBoth, pattern, packets, &[Program::Empty])?;
        times.floor.extend(floor);
    }
    let programs = PROGRAMS.map(|(name, _)| Program::Ours(name));
    let programs = &programs[..judging(pattern)];
    let ran = timed(place, Variant::Both, pattern, packets, programs)?;
    let into = if addresses == FEW { &mut times.few } else { &mut times.many };
    into.iter_mut().zip(ran).for_each(|(times, ran)| times.push(ran));
    Ok(())
}

/// How many of [`PROGRAMS`] run for a packet: a connected socket was judged when it connected.
fn judging(pattern: Pattern) -> usize {
    match pattern {
        Pattern::Established => 2,
        Pattern::Hot | Pattern::Random => 3,
    }
}

/// What a run of each program takes while packets are sent.
fn timed(
    place: &mut Place,
    variant: Variant,
    pattern: Pattern,
    packets: u32,
    programs: &[Program],
) -> Result<Vec<f64>> {
    place.switch(variant, pattern)?;
    let mut ran = |program: &Program| place.ran(*program);
    let before = programs.iter().map(&mut ran).collect::<Result<Vec<_>>>()?;
    place.send(variant, pattern, packets)?;
    programs
        .iter()
        .zip(before)
        .map(|(program, (time, count))| {
            let (time_after, count_after) = place.ran(*program)?;
            let runs = u32::try_from(count_after - count)?;
            ensure!(runs >= packets, "{program:?} ran {runs} times for {packets} packets");
            Ok(time_after.saturating_sub(time).as_secs_f64() * 1e9 / f64::from(runs))
        })
        .collect()
}

/// At most so much more, and how it is said.
fn goal(pattern: Pattern) -> (f64, &'static str) {
    match pattern {
        Pattern::Established => (1.1, "established sockets within 10 %"),
        Pattern::Hot => (1.25, "64 hot peers within 25 %"),
        Pattern::Random => (3.5, "uniformly random peers ≤ 3.5 ×"),
    }
}

fn rows(pattern: Pattern, times: &Times, args: &Args, machine: &str) -> Vec<Row> {
    PROGRAMS[..judging(pattern)]
        .iter()
        .enumerate()
        .map(|(index, (_, called))| {
            let few = differences(&times.few[index], &times.floor);
            let many = differences(&times.many[index], &times.floor);
            row(called, pattern, (&few, &many, &times.floor), args, machine)
        })
        .collect()
}

fn row(
    called: &str,
    pattern: Pattern,
    (few, many, floor): (&[f64], &[f64], &[f64]),
    args: &Args,
    machine: &str,
) -> Row {
    let (ours, peer) = (median_estimate(many), median_estimate(few));
    let (at_most, goal) = goal(pattern);
    let noise = spread(few);
    let ratio = (noise <= TOLERATED_SPREAD).then(|| median_ratio(many, few));
    let told = ratio.map_or("no ratio: too noisy".to_owned(), |ratio| {
        format!("ratio {:.2} ({:.2})", ratio.value, ratio.interval)
    });
    eprintln!(
        "verdict: {called}, {}: {:.0} ns at {ADDRESSES} addresses, {:.0} ns at {FEW}, {told}",
        pattern.told(),
        ours.value,
        peer.value
    );
    Row {
        name: format!("verdict at {ADDRESSES} addresses, {called}, {}", pattern.told()),
        unit: "ns".to_owned(),
        ours: ours.value,
        peer: Some(peer.value),
        peer_name: Some(format!("the same program at {FEW} addresses")),
        ratio: ratio.map(|ratio| ratio.value),
        goal: goal.to_owned(),
        met: ratio.and_then(|ratio| ratio.interval.at_most(at_most)),
        spread: format!(
            "95 % intervals: {:.0} at {ADDRESSES}, {:.0} at {FEW}; {} rounds of {} packets; \
             quartiles at {FEW} {:.1} % apart",
            ours.interval,
            peer.interval,
            args.rounds,
            args.packets,
            noise * 100.0
        ),
        machine: machine.to_owned(),
        note: format!(
            "timed by the kernel under real traffic, the floor of {:.0} ns taken off; {}",
            median(floor),
            pattern.caches()
        ),
        profile: String::new(),
    }
}
