//! The command line.

#[cfg(feature = "kubernetes")]
mod cluster;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

#[cfg(feature = "kubernetes")]
pub(crate) use self::cluster::{ClusterCommand, ModeArgs, OffArgs};
use crate::connection::ServerArgs;
use crate::when;

/// Ask a Bulkhead controller about virtual clusters, nodes and what they used.
#[derive(Debug, Parser)]
#[command(name = "bulkheadctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Whom to ask and how to answer.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// How the controller is reached.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// How to write the answer
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// How long to wait for each answer
    #[arg(long, global = true, default_value = "30s", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) timeout: Duration,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people, in human units
    Table,
    /// The same with more columns and whole reasons
    Wide,
    /// One document; one document per line where the answer goes on (--watch, top)
    Json,
    /// One document; several where the answer goes on
    Yaml,
    /// A header and one record per line; raw integers
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show virtual clusters or nodes and how they stand
    Get {
        /// Which kind.
        #[command(subcommand)]
        object: Object,
    },
    /// Show what virtual clusters used in a range of time
    Usage(UsageArgs),
    /// Show what virtual clusters use now, again and again
    Top(TopArgs),
    /// What asks the API server itself.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Kinds of objects.
#[derive(Debug, Subcommand)]
pub(crate) enum Object {
    /// What was asked for, and what each node makes of it
    #[command(name = "virtualclusters", visible_aliases = ["virtualcluster", "bvc"])]
    VirtualClusters {
        /// Only these; with names, every reason is written in full
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Go on and write each change as it comes
        #[arg(short, long)]
        watch: bool,
    },
    /// What each node is, can enforce and stands at
    #[command(name = "nodes", visible_alias = "node")]
    Nodes {
        /// Only these; with names, everything is written in full
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Arguments of `usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Only these virtual clusters
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// From this long ago (90s, 1h30m, 7d), or from a time, until now [default: 1h]
    #[arg(long, value_name = "DURATION|TIME", conflicts_with_all = ["start", "end"])]
    pub(crate) since: Option<String>,
    /// First instant: RFC 3339, local time or date, today, yesterday
    /// [default, with --end: the oldest record]
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// First instant after the range, in the same forms [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<String>,
    /// One row for each of this length [default: one for the whole range]
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    pub(crate) step: Option<Duration>,
    /// One row for each of these
    #[arg(long, value_enum, value_delimiter = ',', default_value = "virtual-cluster")]
    pub(crate) by: Vec<GroupBy>,
    /// Only on this node; can be given again
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// What usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    /// By virtual cluster
    VirtualCluster,
    /// By node
    Node,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Only these virtual clusters
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// How often to ask again
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) interval: Duration,
    /// Length of the window over which a rate is the mean: a multiple of the agents' --window
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) window: Duration,
    /// Only on this node; can be given again
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Write one frame and end
    #[arg(long)]
    pub(crate) once: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_port_that_others_could_reach_is_refused() {
        let refused = Cli::try_parse_from(["bulkheadctl", "--server", "http://10.0.0.1:80", "top"]);
        let error = refused.expect_err("not loopback");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("not on loopback"), "{error}");
    }

    #[test]
    fn since_excludes_start_and_end() {
        let both = ["bulkheadctl", "usage", "--since", "1h", "--end", "now"];
        assert_eq!(Cli::try_parse_from(both).expect_err("a conflict").exit_code(), 2);
    }
}
