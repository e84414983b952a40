//! The node agent's program: see the library for what it does.

use std::process::ExitCode;

use bulkhead_agent::args::{Cli, Command};
use bulkhead_agent::command;
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => command::run(&cli.places, &args),
        Command::Exec(args) => command::exec(&cli.places, args),
        Command::Probe(output) => command::probe(&cli.places, output),
        Command::Plan => command::plan(&cli.places),
        Command::Status(output) => command::status(&cli.places, output),
        Command::Detach(args) => command::detach(&cli.places, args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bulkhead-agent: {error:#}");
        ExitCode::FAILURE
    })
}
