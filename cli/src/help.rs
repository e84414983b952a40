//! What `--help` says beyond the arguments.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::args::Cli;

/// The name under which kubectl finds its plugin.
const PLUGIN: &str = "kubectl-bulkhead";

/// Under which name the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CalledAs {
    /// `bulkheadctl`.
    Itself,
    /// `kubectl bulkhead`.
    KubectlPlugin,
}

impl CalledAs {
    /// From the first argument: the path of the program.
    pub(crate) fn from_program(program: Option<&OsStr>) -> Self {
        let file = program.map(Path::new).and_then(Path::file_stem);
        if file == Some(OsStr::new(PLUGIN)) { Self::KubectlPlugin } else { Self::Itself }
    }

    /// As people type it.
    fn typed(self) -> &'static str {
        match self {
            Self::Itself => "bulkheadctl",
            Self::KubectlPlugin => "kubectl bulkhead",
        }
    }

    /// The file that a shell runs, for completion.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Itself => "bulkheadctl",
            Self::KubectlPlugin => PLUGIN,
        }
    }
}

const TOP_LEVEL: &str = "\
Examples:
  {bin} get virtualclusters                      how everything stands
  {bin} get virtualcluster team-a                one, with every reason
  {bin} usage --since 24h --step 1h team-a       what team-a used, hour by hour
  {bin} usage --start 2025-03-01 --end 2025-04-01 -o csv > march.csv
  {bin} top                                      what everyone uses now
  {bin} preflight                                what a cluster's nodes will and will not enforce
  {bin} discover > found.yaml                    virtual clusters that run, as objects to apply
  {bin} enforce team-a                           what that would refuse; asks; does it
  {bin} off --all                                refuse nothing any more

Exit codes:
  0  done
  1  the server answered with an error, or the answer could not be written
  2  the command line makes no sense
  3  a named object does not exist
  4  nobody answers at --server, or no longer
preflight: 1 something will not be enforced, 2 it cannot be installed; enforce, observe, off: 1 it
is not known to stand on every node";

const GET: &str = "\
Examples:
  {bin} get virtualclusters --watch -o json      one line of JSON for each change
  {bin} get bvc team-a team-b -o yaml
  {bin} get nodes -o wide                        kernels, agents, what they cannot enforce
  {bin} get node worker-1                        everything about one

STATE is the worst of the nodes: Refused, Degraded, Pending, NotReported, Applied. NODES are
those on which everything stands, of those that reported.";

const USAGE: &str = "\
Examples:
  {bin} usage --since today --by virtual-cluster,node
  {bin} usage --start 2025-03-01T10:00Z --end 2025-03-01T11:00Z --step 1m team-a -o csv
  {bin} usage --since 7d --node worker-1 --by node

A range is half-open: its start is part of it, its end is not, so ranges side by side count
nothing twice. Every number has its coverage: the part of the time for which there are records.
A row with * was not seen whole; json, yaml and csv have covered_nanoseconds and
wanted_nanoseconds for each meter. Agents report after each window, so a range that ends now is
never quite complete; what was used in a window counts, whole, where the window begins.

CORES and MEMORY-MEAN are means over the row. NET-IN and NET-OUT are bytes of IP packets that
went through. DENIED are packets dropped, REFUSED are calls of connect and sendmsg refused.";

const TOP: &str = "\
Examples:
  {bin} top                                      live, until ctrl-C
  {bin} top --once -o json                       one frame, for scripts
  {bin} top --interval 10s team-a team-b         without a terminal: frame after frame

A rate is the mean over the newest window that was seen best, of each virtual cluster and node;
AGE says how long ago the oldest of them ended. THROTTLED is the part of the time in which tasks
wanted a processor that cpu.max held them back. DENIED (packets) and REFUSED (calls) are counts
of that window.";

/// The whole command line, with help that names the program as it was called.
pub(crate) fn command(called_as: CalledAs) -> Command {
    let bin = called_as.typed();
    let text = |template: &str| template.replace("{bin}", bin);
    Cli::command()
        .bin_name(bin)
        .after_help(text(TOP_LEVEL))
        .mut_subcommand("get", |get| {
            get.after_help(text(GET)).mut_subcommands(|object| object.after_help(text(GET)))
        })
        .mut_subcommand("usage", |usage| usage.after_help(text(USAGE)))
        .mut_subcommand("top", |top| top.after_help(text(TOP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_calls_by_file_name() {
        let called = |path: &str| CalledAs::from_program(Some(OsStr::new(path)));
        assert_eq!(called("/usr/local/bin/kubectl-bulkhead"), CalledAs::KubectlPlugin);
        assert_eq!(called("kubectl-bulkhead"), CalledAs::KubectlPlugin);
        assert_eq!(called("/opt/kubectl-bulkhead/bulkheadctl"), CalledAs::Itself);
        assert_eq!(CalledAs::from_program(None), CalledAs::Itself);
    }

    #[test]
    fn examples_name_the_program_as_it_was_called() {
        let mut command = command(CalledAs::KubectlPlugin);
        let help = command.render_long_help().to_string();
        assert!(help.contains("kubectl bulkhead usage --since"), "{help}");
        assert!(!help.contains("{bin}"), "{help}");
    }
}
