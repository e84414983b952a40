//! Burns, hoards, forks and beats, and says in JSON what it really did: the ground truth of the
//! demo. Everything is bounded, so that it does no harm where no limit holds it.
//!
//! Commands that go on for a while print `{"ready": …}` when they are set up, and end when
//! their standard input is closed. The last line is the result.

mod beat;
mod cpu;
mod memory;
mod tasks;

use std::fs;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Burns, hoards, forks and beats, and says in JSON what it really did.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says in which cgroup it finds itself, and which sockets it was given.
    Where,
    /// Uses CPU time.
    Burn(cpu::Burn),
    /// Takes memory until it has all or is killed.
    Hog(memory::Amount),
    /// Takes memory and holds it until the input is closed.
    Hold(memory::Amount),
    /// Forks until it has all its children or is refused, then tries again and again.
    Bomb(tasks::Bomb),
    /// Goes on, forks now and then, and notes how long it was ever held up, until the input is
    /// closed.
    Beat(beat::Beat),
    /// Waits until its input is closed.
    Sit,
    /// Does nothing, well.
    Nothing,
}

fn main() -> Result<()> {
    let result = match Cli::parse().command {
        Command::Where => whereabouts(),
        Command::Burn(args) => cpu::burn(&args),
        Command::Hog(amount) => Ok(memory::hog(&amount)),
        Command::Hold(amount) => Ok(memory::hold(&amount)),
        Command::Bomb(args) => tasks::bomb(&args),
        Command::Beat(args) => beat::beat(&args),
        Command::Sit => {
            wait_for_end_of_input();
            return Ok(());
        }
        Command::Nothing => return Ok(()),
    }?;
    say(&result);
    Ok(())
}

fn whereabouts() -> Result<Value> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").context("read own cgroups")?;
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    let mut sockets = 0;
    for entry in fs::read_dir("/proc/self/fd").context("list own file descriptors")? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(json!({ "cgroup": cgroup, "sockets": sockets }))
}

/// One line of JSON.
fn say(value: &Value) {
    println!("{value}");
}

/// Returns when the standard input is closed.
fn wait_for_end_of_input() {
    let mut buffer = [0; 64];
    while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
}

/// Becomes true when the standard input is closed.
fn input_closed() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&closed);
    thread::spawn(move || {
        wait_for_end_of_input();
        seen.store(true, Ordering::Relaxed);
    });
    closed
}

/// Whole milliseconds since then.
fn milliseconds(since: Instant) -> u64 {
    whole_milliseconds(since.elapsed())
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
