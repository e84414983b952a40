//! The command line.

use std::path::PathBuf;

use bulkhead_proto::Endpoint;
use clap::{Parser, ValueEnum};

use crate::controller::Config;

/// The tenancy controller: tells each node which virtual clusters there are, and keeps the ledger
/// of what they used.
#[derive(Parser, Clone, Debug)]
#[command(version, max_term_width = 100)]
pub struct Args {
    /// Directory of the objects: VirtualCluster, VirtualClusterClass and BulkheadConfig of
    /// bulkhead.dev/v1alpha1 in *.yaml, *.yml and *.json. Read again after each change; while a
    /// file is wrong, what was valid last stands.
    #[arg(long, value_name = "DIR", env = "BULKHEAD_CONFIG")]
    pub config: PathBuf,

    /// Directory of the ledger.
    #[arg(
        long,
        value_name = "DIR",
        env = "BULKHEAD_DATA_DIR",
        default_value = "/var/lib/bulkhead-controller"
    )]
    pub data_dir: PathBuf,

    /// Where agents connect: unix:PATH or a loopback ADDRESS:PORT.
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "BULKHEAD_AGENTS_LISTEN",
        default_value = "unix:/run/bulkhead-controller/agents.sock"
    )]
    pub agents_listen: Endpoint,

    /// Where operators connect: unix:PATH or a loopback ADDRESS:PORT.
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "BULKHEAD_OPERATORS_LISTEN",
        default_value = "unix:/run/bulkhead-controller/operators.sock"
    )]
    pub operators_listen: Endpoint,

    /// How the log is written to standard error. What is logged: `RUST_LOG` (default: info).
    #[arg(long, value_enum, default_value_t, env = "BULKHEAD_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

impl Args {
    /// What the controller needs of it.
    pub fn config(&self) -> Config {
        Config {
            objects: self.config.clone(),
            data: self.data_dir.clone(),
            agents: self.agents_listen.clone(),
            operators: self.operators_listen.clone(),
            ledger_page_limit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_port_that_others_could_reach_is_refused() {
        let line = ["bulkhead-controller", "--config", "/c", "--agents-listen", "0.0.0.0:1"];
        let refused = Args::try_parse_from(line).unwrap_err().to_string();
        assert!(refused.contains("0.0.0.0:1") && refused.contains("loopback"), "{refused}");
    }
}
