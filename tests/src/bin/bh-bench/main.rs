//! Measures what Bulkhead costs, each time beside a peer in the same run.
//!
//! One subcommand, one file. Rows go to standard output, one JSON object for each line;
//! everything that a person may want to see meanwhile goes to standard error.

mod change;
mod footprint;
mod ledger;
mod network;
mod usage;
mod verdict;

use std::process::ExitCode;

use bulkhead_tests::bench::Row;
use clap::{Parser, Subcommand};

/// Measures what Bulkhead costs, each time beside a peer in the same run.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How long a change in the controller's file takes until a node enforces it.
    Change(change::Args),
    /// The process that tries all the time, started by `change`.
    #[command(hide = true)]
    ChangeProber(change::prober::Args),
    /// How many records the controller merges, and how soon it answers.
    Ledger(ledger::Args),
    /// What a small packet costs more, live over veth.
    Network(network::Args),
    /// One end of the wire, started by `network`.
    #[command(hide = true)]
    NetworkEnd(network::end::Args),
    /// What a verdict costs at many addresses against few.
    Verdict(verdict::Args),
    /// What the agent itself takes.
    Footprint(footprint::Args),
    /// What a pass over the usage of many cgroups costs.
    Usage(usage::Args),
    /// A process that is busy, started by `usage`.
    #[command(hide = true)]
    UsageBurner(usage::burner::Args),
}

fn main() -> ExitCode {
    let measured: anyhow::Result<Vec<Row>> = match Cli::parse().what {
        What::Change(args) => change::run(&args),
        What::ChangeProber(args) => change::prober::run(&args).map(|()| Vec::new()),
        What::Ledger(args) => ledger::run(&args),
        What::Network(args) => network::run(&args),
        What::NetworkEnd(args) => network::end::run(&args).map(|()| Vec::new()),
        What::Verdict(args) => verdict::run(&args),
        What::Footprint(args) => footprint::run(&args),
        What::Usage(args) => usage::run(&args),
        What::UsageBurner(args) => usage::burner::run(&args).map(|()| Vec::new()),
    };
    print(measured)
}

fn print(measured: anyhow::Result<Vec<Row>>) -> ExitCode {
    let printed = measured.and_then(|rows| {
        for row in rows {
            println!("{}", serde_json::to_string(&row)?);
        }
        Ok(())
    });
    printed.map_or_else(
        |error| {
            eprintln!("bh-bench: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
