//! How long a change in the controller's file takes until a node enforces it.
//!
//! A real controller and a real agent run on this machine. A process in a virtual cluster sends a
//! datagram to another virtual cluster all the time; one of the two allows it, and does not, in
//! turn. The time runs from before the new file is renamed into place until the first datagram
//! that is judged by it.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

mod floor;
mod place;
pub(crate) mod prober;
mod stages;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::machine;
use bulkhead_tests::bench::statistics::{Random, quantile};

use place::Place;

/// Milliseconds for 99 of 100 changes.
const GOAL: f64 = 50.0;

/// Between two changes there are so many milliseconds, and up to as many again: the agent looks
/// after everything once a second, and changes must meet that at any point.
const PAUSE: usize = 60;

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where `bulkhead-agent`, `bulkhead-controller` and `bulkhead.bpf.o` are.
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// A directory on a disk; what is made in it is removed again.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// How many changes are made with each number of virtual clusters.
    #[arg(long, default_value_t = 300)]
    changes: u32,
}

/// How much the controller and the agent know.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Besides the two.
    others: u32,
    /// Addresses of each of them.
    addresses: u32,
}

impl Size {
    const ALL: [Self; 2] = [Self { others: 0, addresses: 0 }, Self { others: 98, addresses: 102 }];

    fn told(self) -> String {
        let addresses = self.others * self.addresses + place::ADDRESSES_OF_THE_TWO;
        format!("{} virtual clusters with {addresses} addresses", self.others + 2)
    }
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.changes >= 100, "99 of 100 need at least 100 changes");
    let machine = machine::describe()?;
    Size::ALL.iter().map(|size| measure(*size, args, &machine)).collect()
}

fn measure(size: Size, args: &Args, machine: &str) -> Result<Row> {
    let mut place = Place::new(&args.programs, &args.dir, size)?;
    let mut random = Random::new(1);
    let (mut times, mut gaps, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..args.changes {
        let pause = u64::try_from(PAUSE + random.below(PAUSE))?;
        thread::sleep(Duration::from_millis(pause));
        let (took, gap) = place.change().with_context(|| format!("change {change}"))?;
        times.push(milliseconds(took));
        gaps.push(milliseconds(gap));
        floors.push(milliseconds(floor::once(place.home())?));
    }
    let p50 = quantile(&times, 0.5);
    eprintln!("{}: p50 {p50:.2} ms, p99 {:.2} ms", size.told(), quantile(&times, 0.99));
    Ok(Row { profile: place.stages()?, ..row(size, [&times, &gaps, &floors], machine) })
}

fn row(size: Size, [times, gaps, floors]: [&[f64]; 3], machine: &str) -> Row {
    let p99 = quantile(times, 0.99);
    Row {
        name: format!("a change in the controller's file → enforced, p99, {}", size.told()),
        unit: "ms".to_owned(),
        ours: p99,
        peer: Some(quantile(floors, 0.99)),
        peer_name: Some("a floor: rename → inotify event in another thread, p99".to_owned()),
        ratio: None,
        goal: format!("p99 ≤ {GOAL} ms"),
        met: Some(p99 <= GOAL),
        spread: format!(
            "p50 {:.2} ms, p90 {:.2} ms, longest {:.2} ms, {} changes",
            quantile(times, 0.5),
            quantile(times, 0.9),
            quantile(times, 1.0),
            times.len()
        ),
        machine: machine.to_owned(),
        note: format!(
            "a pair of virtual clusters allowed and not allowed in turn; from the rename to the \
             first datagram with the new verdict; between that and the one before {:.0} µs \
             (median), {:.0} µs (p99); the floor is not taken off",
            quantile(gaps, 0.5) * 1e3,
            quantile(gaps, 0.99) * 1e3,
        ),
        profile: String::new(),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
