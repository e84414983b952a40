//! CPU time.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::{input_closed, milliseconds, say};

#[derive(clap::Args)]
pub(crate) struct Burn {
    /// On this many CPUs at once.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Until this much time has passed.
    #[arg(long, required_unless_present_any = ["cpu_ms", "percent"], conflicts_with = "cpu_ms")]
    wall_ms: Option<u64>,
    /// Until the process has used this much CPU time.
    #[arg(long)]
    cpu_ms: Option<u64>,
    /// Until the input is closed, this share of the time.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100), conflicts_with_all = ["cpu_ms", "wall_ms"])]
    percent: Option<u64>,
}

/// Of this much time, a share is burnt.
const SLICE: Duration = Duration::from_millis(20);

/// What the kernel says that this process used, from its first instruction on.
#[derive(Clone, Copy)]
struct Used {
    user: Duration,
    system: Duration,
}

impl Used {
    fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
        Ok(Self { user: duration(usage.user_time()), system: duration(usage.system_time()) })
    }

    fn total(self) -> Duration {
        self.user + self.system
    }
}

pub(crate) fn burn(args: &Burn) -> Result<Value> {
    let (began, before) = (Instant::now(), Used::now()?);
    if let Some(percent) = args.percent {
        return burn_share(percent);
    }
    let over = || match (args.wall_ms, args.cpu_ms) {
        (Some(wall), _) => began.elapsed() >= Duration::from_millis(wall),
        (_, Some(cpu)) => {
            Used::now().map_or(true, |used| used.total() >= Duration::from_millis(cpu))
        }
        _ => true,
    };
    thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                let mut value = 1_u64;
                while !over() {
                    for _ in 0..10_000 {
                        value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
                    }
                }
            });
        }
    });
    let after = Used::now()?;
    Ok(json!({
        "wall_ms": milliseconds(began),
        "burnt_us": micros(after.total().saturating_sub(before.total())),
        "user_us": micros(after.user), "system_us": micros(after.system),
        "cpu_us": micros(after.total()),
    }))
}

/// Burns a share of the time until the input is closed.
fn burn_share(percent: u64) -> Result<Value> {
    let closed = input_closed();
    say(&json!({ "ready": percent }));
    let busy = SLICE * u32::try_from(percent)? / 100;
    let mut value = 1_u64;
    while !closed.load(Ordering::Relaxed) {
        let began = Instant::now();
        while began.elapsed() < busy {
            for _ in 0..1_000 {
                value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        thread::sleep(SLICE.saturating_sub(busy));
    }
    Ok(json!({ "cpu_us": micros(Used::now()?.total()) }))
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
