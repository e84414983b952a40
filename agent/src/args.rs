//! What people write on the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_core::{Placement, VirtualClusterName};
use bulkhead_proto::Endpoint;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where an installed object is.
const OBJECT: &str = "/usr/lib/bulkhead/bulkhead.bpf.o";

/// The Bulkhead node agent: isolates and measures virtual clusters on this node.
#[derive(Debug, Parser)]
#[command(name = "bulkhead-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Where things are on this node.
    #[command(flatten)]
    pub places: Places,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where things are on this node.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// Our root in the cgroup v2 hierarchy. Default: a delegated systemd unit where systemd is
    /// PID 1, else the directory "bulkhead" below the cgroup v2 mount.
    #[arg(long, global = true, value_name = "DIR", env = "BULKHEAD_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
    /// Directory on a bpffs where programs' links and maps are pinned.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BULKHEAD_BPFFS",
        default_value = "/sys/fs/bpf/bulkhead"
    )]
    pub bpffs: PathBuf,
    /// Directory of the agent's socket.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BULKHEAD_RUN_DIR",
        default_value = "/run/bulkhead"
    )]
    pub run_dir: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Isolate and measure until told to end. Ending it opens nothing: enforcement and counters
    /// stay in the kernel.
    Run(Box<RunArgs>),
    /// Start a process inside a virtual cluster, from its first instruction. Ends with its exit
    /// status, or 128 and the signal's number.
    Exec(ExecArgs),
    /// Say what this node can enforce, and why not the rest.
    Probe(ProbeArgs),
    /// Say what the running agent would do now.
    Plan,
    /// Say what the running agent has done.
    Status(StatusArgs),
    /// Take every program, table and counter off this node; needs neither an agent nor a
    /// controller. Stop the agent first.
    Detach(DetachArgs),
}

/// How to show something.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// As JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// What `status` says, and how.
#[derive(Clone, Copy, Debug, Args)]
pub struct StatusArgs {
    /// How to show it.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Say nothing, and end with 1 unless it is so: for probes.
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "json")]
    pub is: Option<Expected>,
}

/// What a probe asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Expected {
    /// The agent answers.
    Running,
    /// What the controller said stands, as far as this node can, for every virtual cluster.
    Enforcing,
}

/// What `probe` says, and how.
#[derive(Clone, Copy, Debug, Args)]
pub struct ProbeArgs {
    /// How to show it.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Also find out what this kernel can do, by trying it: for a moment there is a cgroup
    /// directly below the mount, and programs that allow everything.
    #[arg(long)]
    pub features: bool,
}

/// What `detach` takes off.
#[derive(Clone, Copy, Debug, Args)]
pub struct DetachArgs {
    /// Also remove the cgroups, if no process is left in them.
    #[arg(long)]
    pub cgroups: bool,
    /// When all is off, stay until told to end: for a `DaemonSet`, which has no jobs that are done.
    #[arg(long)]
    pub hold: bool,
}

/// How to run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// This node's name. Default: the host name.
    #[arg(long, env = "BULKHEAD_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// The controller: `unix:PATH`, `https://HOST:PORT` or `http://127.0.0.1:PORT`.
    #[arg(long, env = "BULKHEAD_CONTROLLER", value_name = "ADDRESS",
          default_value = "unix:/run/bulkhead-controller/agents.sock", value_parser = Endpoint::parse)]
    pub controller: Endpoint,
    /// Certificates (PEM) of the CAs that may say who an https controller is. Read for each
    /// connection.
    #[arg(long, env = "BULKHEAD_CONTROLLER_CA", value_name = "FILE")]
    pub controller_ca: Option<PathBuf>,
    /// The token that tells an https controller who we are: a projected service account token.
    /// Read for each stream.
    #[arg(long, env = "BULKHEAD_CONTROLLER_TOKEN", value_name = "FILE")]
    pub controller_token: Option<PathBuf>,
    /// Directory of the journal and of what the controller said last.
    #[arg(
        long,
        env = "BULKHEAD_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/bulkhead"
    )]
    pub state_dir: PathBuf,
    /// The eBPF object.
    #[arg(long, env = "BULKHEAD_BPF_OBJECT", value_name = "FILE", default_value = OBJECT)]
    pub bpf_object: PathBuf,
    /// Time between samples, 1s to 60s.
    #[arg(long, env = "BULKHEAD_SAMPLE_INTERVAL", value_name = "TIME", default_value = "10s",
          value_parser = seconds::<1, 60>)]
    pub sample_interval: Duration,
    /// Span of time to which usage is booked, 1s to 3600s. The ledger cannot be asked for less.
    #[arg(long, env = "BULKHEAD_WINDOW", value_name = "TIME", default_value = "60s",
          value_parser = seconds::<1, 3600>)]
    pub window: Duration,
    /// Most that the journal holds while the controller is away, in MiB; beyond that older
    /// windows are merged, which loses resolution and no totals.
    #[arg(long, env = "BULKHEAD_JOURNAL_MIB", value_name = "MIB", default_value = "256")]
    pub journal_mib: NonZeroU64,
    /// Where the processes of virtual clusters live.
    #[arg(long, env = "BULKHEAD_PLACEMENT", value_enum, default_value = "directory")]
    pub placement: PlacementArg,
    /// On a Kubernetes node: the same as `--placement overlay`.
    #[arg(long)]
    pub kubernetes: bool,
    /// The kubelet's root in the cgroup v2 hierarchy, in overlay. Default: kubepods.slice or
    /// kubepods below the mount.
    #[arg(long, env = "BULKHEAD_KUBEPODS_ROOT", value_name = "DIR")]
    pub kubepods_root: Option<PathBuf>,
    /// The container runtime's NRI socket, in overlay.
    #[arg(long, env = "BULKHEAD_NRI_SOCKET", value_name = "PATH",
          default_value = bulkhead_nri::DEFAULT_SOCKET)]
    pub nri_socket: PathBuf,
    /// Answers probes over HTTP here, on an address of loopback: `/healthz` (it runs), `/readyz`
    /// (it enforces). Not at all when not given.
    #[arg(long, env = "BULKHEAD_HEALTH_LISTEN", value_name = "ADDRESS:PORT",
          value_parser = loopback)]
    pub health_listen: Option<SocketAddr>,
    /// How many addresses the kernel table holds. Fixed once pinned: `detach` to change it.
    #[arg(long, env = "BULKHEAD_MAX_ADDRESSES", value_name = "N", default_value = "131072")]
    pub max_addresses: u32,
    /// How many virtual clusters' cgroups this node counts at once, those that are gone but still
    /// run included. The kernel takes 768 bytes for each and each CPU that the machine can have, at
    /// once. Fixed once pinned: `detach` to change it.
    #[arg(long, env = "BULKHEAD_MAX_COUNTED_CGROUPS", value_name = "N", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_counted_cgroups: u32,
}

/// Where the processes of virtual clusters live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PlacementArg {
    /// In one cgroup of ours for each virtual cluster, with its limits.
    Directory,
    /// In the kubelet's cgroups of pods, which are registered and never written to.
    Overlay,
}

impl RunArgs {
    /// Where the processes of virtual clusters live.
    pub const fn placement(&self) -> Placement {
        match self.placement {
            PlacementArg::Directory if !self.kubernetes => Placement::Directory,
            PlacementArg::Directory | PlacementArg::Overlay => Placement::Overlay,
        }
    }
}

/// What to start, and where.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// The virtual cluster.
    #[arg(long, value_name = "NAME")]
    pub virtual_cluster: VirtualClusterName,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Parses "10s" or "10" (whole seconds) within bounds.
fn seconds<const LEAST: u64, const MOST: u64>(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    let seconds: u64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" is no time in whole seconds; write it like 10s"))?;
    if (LEAST..=MOST).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(format!("{seconds}s is out of range; it must be {LEAST}s to {MOST}s"))
    }
}

/// An address that nobody on another machine can reach: what answers there speaks no TLS.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "is no address and port; write 127.0.0.1:8446".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("can be reached from other machines, and answers without TLS; write 127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_whole_seconds_within_bounds() {
        assert_eq!(seconds::<1, 60>("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds::<1, 60>("59"), Ok(Duration::from_secs(59)));
        for text in ["0s", "61s", "x", "-1s", "1.5s", ""] {
            assert!(seconds::<1, 60>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn probes_are_answered_on_loopback_only() {
        for text in ["127.0.0.1:8446", "127.0.0.9:1", "[::1]:8446"] {
            assert_eq!(loopback(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["0.0.0.0:8446", "10.0.0.1:8446", "[::]:8446", "localhost:1", "127.0.0.1", ""] {
            assert!(loopback(text).is_err(), "{text}");
        }
    }
}
