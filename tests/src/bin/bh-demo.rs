//! Shows the whole system at work on this machine, and checks what it promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::demo::{self, Only, Options, Sabotage};
use clap::Parser;
use serde::Serialize;

/// Shows the whole system at work on this machine, and checks what it promises.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Cli {
    /// The directory of bulkhead-agent, bulkhead-controller, bulkheadctl, bh-traffic, bh-load and
    /// bulkhead.bpf.o.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Where to write the report, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What kind of machine this is, for the report.
    #[arg(long, default_value = "host")]
    on: String,
    /// Only one half of it.
    #[arg(long)]
    only: Option<Only>,
    /// Break one thing on purpose (`list` shows what); the check that it must turn red is then
    /// the only red one.
    #[arg(long, value_name = "WHAT", conflicts_with = "all_sabotages")]
    sabotage: Option<String>,
    /// Break everything, one thing after the other, and see that each time exactly the right
    /// check turns red. With names, only these.
    #[arg(long, value_name = "WHAT", num_args = 0.., value_delimiter = ',')]
    all_sabotages: Option<Vec<String>>,
    /// How long to wait for what should come, in seconds.
    #[arg(long, default_value_t = 30)]
    patience: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.sabotage.as_deref() == Some("list") {
        for sabotage in Sabotage::ALL {
            println!(
                "{:<22} reddens {:<32}{}",
                sabotage.name(),
                sabotage.reddens(),
                sabotage.what()
            );
        }
        return ExitCode::SUCCESS;
    }
    demo::supervise(|| work(&cli)).unwrap_or_else(|error| {
        eprintln!("bh-demo: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs what was asked for; whether all is well.
fn work(cli: &Cli) -> Result<bool> {
    let options = Options {
        programs: cli.programs.clone().map_or_else(beside, Ok)?,
        on: cli.on.clone(),
        only: cli.only,
        patience: Duration::from_secs(cli.patience),
    };
    if let Some(names) = &cli.all_sabotages {
        let chosen = names.iter().map(|name| name.parse()).collect::<Result<Vec<_>>>()?;
        let report = demo::sabotages(&options, &chosen)?;
        write(cli.report.as_deref(), &report)?;
        let good = report.sabotages.iter().filter(|sabotage| sabotage.ok).count();
        println!("\n{good} of {} sabotages turned exactly their check red", report.sabotages.len());
        return Ok(report.ok);
    }
    let sabotage = cli.sabotage.as_deref().map(str::parse::<Sabotage>).transpose()?;
    let report = demo::demo(&options, sabotage)?;
    write(cli.report.as_deref(), &report)?;
    print!("{}", report.table());
    if let Some(sabotage) = sabotage {
        let red: Vec<&str> = report.red().map(|check| check.name.as_str()).collect();
        println!("{sabotage} must turn {} red; red: {}", sabotage.reddens(), red.join(", "));
    }
    Ok(report.ok)
}

/// The directory of this program, where cargo puts the others too.
fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find own program")?;
    let dir = own.parent().context("own program is in no directory")?;
    ensure!(
        dir.join("bulkhead.bpf.o").exists(),
        "give --programs DIR: bulkhead.bpf.o is not beside this program"
    );
    Ok(dir.to_owned())
}

fn write(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).context("write the report as JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}
