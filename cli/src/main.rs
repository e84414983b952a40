//! The operators' hand: asks a Bulkhead controller about virtual clusters, nodes and usage.

mod args;
#[cfg(feature = "kubernetes")]
mod break_glass;
#[cfg(feature = "kubernetes")]
mod breakage;
mod client;
#[cfg(feature = "kubernetes")]
mod cluster;
mod command;
mod connection;
mod error;
mod help;
mod interrupt;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod out;
#[cfg(feature = "kubernetes")]
mod preflight;
mod render;
mod screen;
mod units;
mod view;
mod when;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::args::{Cli, Command, Object};
use crate::command::{Session, get, top, usage, watch};
use crate::error::{CliError, Kind};
use crate::help::CalledAs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let called_as = CalledAs::from_program(std::env::args_os().next().as_deref());
    let matches = help::command(called_as).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(&cli, called_as).await {
        Ok(ended) => ended,
        Err(error) if error.kind == Kind::ReaderGone => ExitCode::SUCCESS,
        Err(error) => {
            out::report(&error);
            error.kind.exit_code()
        }
    }
}

async fn run(cli: &Cli, called_as: CalledAs) -> Result<ExitCode, CliError> {
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        let mut command = help::command(called_as);
        clap_complete::generate(shell, &mut command, called_as.file(), &mut script);
        return out::write(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS);
    }
    #[cfg(feature = "kubernetes")]
    if let Command::Cluster(command) = &cli.command {
        return command::in_cluster(&cli.global, command).await;
    }
    let session = Session::open(&cli.global, called_as).await?;
    match &cli.command {
        Command::Get { object: Object::VirtualClusters { names, watch: true } } => {
            watch::virtual_clusters(&session, names).await
        }
        Command::Get { object: Object::VirtualClusters { names, watch: false } } => {
            get::virtual_clusters(&session, names).await
        }
        Command::Get { object: Object::Nodes { names } } => get::nodes(&session, names).await,
        Command::Usage(args) => usage::run(&session, args).await,
        Command::Top(args) => top::run(&session, args).await,
        #[cfg(feature = "kubernetes")]
        Command::Cluster(_) => Ok(()),
        Command::Completion { .. } => Ok(()),
    }
    .map(|()| ExitCode::SUCCESS)
}
