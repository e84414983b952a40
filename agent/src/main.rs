//! The node agent's program: see the library for what it does.

use std::process::ExitCode;

use bulkhead_agent::args::{Cli, Command};
use bulkhead_agent::command;
use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "fault-points")]
    let _armed = bulkhead_agent::faults::arm();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => command::run(&cli.places, &args),
        Command::Exec(args) => command::exec(&cli.places, args),
        Command::Probe(args) => command::probe(&cli.places, args),
        Command::Plan => command::plan(&cli.places),
        Command::Status(output) => command::status(&cli.places, output),
        Command::Detach(args) => command::detach(&cli.places, args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bulkhead-agent: {error:#}");
        ExitCode::FAILURE
    })
}
