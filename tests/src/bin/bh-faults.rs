//! Runs fault histories: the real programs, killed, starved and lied to, under real traffic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bulkhead_tests::demo::{self, Options};
use bulkhead_tests::faults::{self, Extent, Sabotage, Wanted};
use clap::Parser;

/// Runs fault histories: the real programs, killed, starved and lied to, under real traffic.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Cli {
    /// The directory of bulkhead-agent, bulkhead-controller (both with the feature fault-points),
    /// bulkheadctl, bh-traffic, bh-load and bulkhead.bpf.o. Default: that of this program.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// How much.
    #[arg(default_value = "short")]
    extent: Extent,
    /// From which chance is made; the same seed repeats a history. Default: another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these histories; `list` shows them.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    history: Vec<String>,
    /// Break one thing on purpose: a check must turn red.
    #[arg(long, conflicts_with = "all_sabotages")]
    sabotage: Option<Sabotage>,
    /// Break one thing after the other, and see that each time the right check turns red.
    #[arg(long)]
    all_sabotages: bool,
    /// Where to write the report, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What kind of machine this is, for the report.
    #[arg(long, default_value = "host")]
    on: String,
    /// How long to wait for what should come, in seconds.
    #[arg(long, default_value_t = 30)]
    patience: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.history.iter().any(|name| name == "list") {
        for name in faults::names() {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    demo::supervise(|| work(&cli)).unwrap_or_else(|error| {
        eprintln!("bh-faults: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs what was asked for; whether all is well.
fn work(cli: &Cli) -> Result<bool> {
    let options = Options {
        programs: cli.programs.clone().map_or_else(beside, Ok)?,
        on: cli.on.clone(),
        only: None,
        patience: Duration::from_secs(cli.patience),
    };
    let wanted = Wanted {
        extent: cli.extent,
        seed: cli.seed.unwrap_or_else(any_seed),
        histories: cli.history.clone(),
        sabotage: cli.sabotage,
    };
    let report = if cli.all_sabotages {
        faults::sabotages(&options, wanted.seed)?
    } else {
        faults::faults(&options, &wanted)?
    };
    write(cli.report.as_deref(), &report)?;
    Ok(report.ok)
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos())
}

/// The directory of this program, where cargo puts the others too.
fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find own program")?;
    Ok(own.parent().context("own program is in no directory")?.to_owned())
}

fn write(path: Option<&Path>, report: &faults::FaultReport) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).context("write the report as JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}
