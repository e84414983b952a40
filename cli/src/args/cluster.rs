//! Commands that ask the API server itself: the first hour, and the way back.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::when;

/// What to do with a cluster's API server.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Say what each node will and will not enforce, before anything is installed
    Preflight,
    /// Print a VirtualCluster for each virtual cluster of another project that runs; write nothing
    Discover,
    /// Show what would be refused, ask, and refuse it from then on
    Enforce(ModeArgs),
    /// Let everything pass again, and go on counting what would be refused
    Observe(ModeArgs),
    /// Judge nothing any more, at once and without asking; needs nothing but the API server
    Off(OffArgs),
}

/// Arguments of `enforce` and `observe`.
#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    /// These virtual clusters
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Have the API server check the change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait until the nodes have it
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) wait: Duration,
}

/// Arguments of `off`.
#[derive(Debug, Args)]
pub(crate) struct OffArgs {
    /// These virtual clusters
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) names: Vec<String>,
    /// All of them, and what the BulkheadConfig refuses besides
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// How long to wait until the nodes have it
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) wait: Duration,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::{Cli, Command};

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<ClusterCommand, i32> {
        let all = ["bulkheadctl"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.exit_code())?.command {
            Command::Cluster(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn off_wants_names_or_all_and_not_both() {
        assert_eq!(parsed(&["off"]).expect_err("whom?"), 2);
        assert_eq!(parsed(&["off", "--all", "team-a"]).expect_err("both"), 2);
        let all = parsed(&["off", "--all"]).expect("all");
        assert!(matches!(all, ClusterCommand::Off(OffArgs { all: true, .. })));
    }

    #[test]
    fn a_change_of_mode_wants_names_and_asks() {
        assert_eq!(parsed(&["enforce", "--yes"]).expect_err("whom?"), 2);
        assert_eq!(parsed(&["observe"]).expect_err("whom?"), 2);
        let command = parsed(&["enforce", "a", "b"]).expect("names");
        let ClusterCommand::Enforce(args) = command else { panic!("{command:?}") };
        assert_eq!(args.names, ["a", "b"]);
        assert!(!args.yes && !args.dry_run);
        assert_eq!(args.wait, Duration::from_mins(1));
    }

    #[test]
    fn the_kubeconfig_is_named_after_the_command_too() {
        let first_hour = ["preflight", "discover"];
        for command in first_hour {
            parsed(&[command, "--kubeconfig", "admin.conf", "--context", "lab"]).expect(command);
        }
    }
}
