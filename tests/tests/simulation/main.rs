//! The agent↔controller protocol in a deterministic simulation.
//!
//! The real agent (reporting, journal, owner, cycle) and the real controller (stream, ledger,
//! sources, query) run in one thread, over a simulated network, in simulated time; files are
//! real. A seed decides everything: what virtual clusters use, and every fault. After each
//! history the ledger must be what was really counted, and each node must hold what the controller
//! would tell it; on the way, whatever a node is told, whole or as what changed, on one stream or on
//! the next, is what was so at one time, whole. Time is that of tokio's paused clock, which
//! jumps to the next timer when nothing is left to do, so a quiet minute costs nothing.
//!
//! `BULKHEAD_SIM_SEED=N` replays one history and prints it; `BULKHEAD_SIM_SEEDS=N` runs so many
//! in place of 1,000.

#![expect(clippy::expect_used, reason = "a simulation ends with a panic")]

mod clock;
mod cluster;
mod controller;
mod dialer;
mod driver;
mod ending;
mod kernel;
mod network;
mod node;
mod random;
mod run;
mod trace;
mod truth;
mod watcher;
mod world;

use run::{Outcome, history, replayed, seeds};

/// Runs one part of all histories, and says how it went.
fn part(part: u64) {
    if replayed().is_some() {
        return;
    }
    let mut exact = 0_u64;
    let seeds = seeds(part);
    for seed in seeds.clone() {
        let Outcome { is_exact, .. } = history(seed);
        exact += u64::from(is_exact);
    }
    let count = u64::try_from(seeds.count()).unwrap_or(0);
    println!("{count} histories, {exact} of them compared to the last digit");
    assert!(exact * 2 >= count, "too few histories were compared to the last digit: {exact}");
}

#[test]
fn the_ledger_is_the_truth_after_any_history_1() {
    part(0);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_2() {
    part(1);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_3() {
    part(2);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_4() {
    part(3);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_5() {
    part(4);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_6() {
    part(5);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_7() {
    part(6);
}

#[test]
fn the_ledger_is_the_truth_after_any_history_8() {
    part(7);
}

/// Also replays the one that is asked for.
#[test]
fn a_seed_gives_the_same_history_each_time() {
    let asked = replayed();
    let seeds = asked.map_or(0..12, |seed| seed..seed + 1);
    for seed in seeds {
        let (first, second) = (history(seed), history(seed));
        let lines = first.lines.iter().zip(&second.lines);
        if let Some(place) = lines.into_iter().position(|(a, b)| a != b) {
            let shown = |lines: &[String]| lines[place.saturating_sub(9)..=place].join("\n");
            let (a, b) = (shown(&first.lines), shown(&second.lines));
            panic!("seed {seed} is not the same twice:\n{a}\nand\n{b}");
        }
        assert_eq!(first.hash, second.hash, "seed {seed}");
        if asked.is_some() {
            println!("{}\nseed {seed}: trace {:016x}", first.lines.join("\n"), first.hash);
        }
    }
}
