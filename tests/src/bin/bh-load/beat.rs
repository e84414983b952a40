//! A neighbour that goes about its work.

use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{input_closed, say, whole_milliseconds};

#[derive(clap::Args)]
pub(crate) struct Beat {
    /// Time between two beats.
    #[arg(long, default_value_t = 20)]
    every_ms: u64,
    /// Starts a process at one beat of so many; the first one too.
    #[arg(long, default_value_t = 10)]
    fork_every: u64,
}

pub(crate) fn beat(args: &Beat) -> Result<Value> {
    let program = env::current_exe().context("find own program")?;
    let mut nothing = Command::new(program);
    nothing.arg("nothing").stdin(Stdio::null());
    let (mut beats, mut forks, mut failed_forks) = (0_u64, 0_u64, 0_u64);
    let mut longest = Duration::ZERO;
    let closed = input_closed();
    say(&json!({ "ready": true }));
    let mut last = Instant::now();
    while !closed.load(Ordering::Relaxed) {
        if beats.is_multiple_of(args.fork_every) {
            match nothing.status() {
                Ok(status) if status.success() => forks += 1,
                _ => failed_forks += 1,
            }
        }
        beats += 1;
        thread::sleep(Duration::from_millis(args.every_ms));
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    Ok(json!({
        "beats": beats, "forks": forks, "failed_forks": failed_forks,
        "longest_gap_ms": whole_milliseconds(longest),
    }))
}
