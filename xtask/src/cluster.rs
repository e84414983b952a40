//! Tests on a real Kubernetes: the lab's, with everything installed as a new user would.
//!
//! `cargo xtask cluster` runs them, on a cluster that it starts and ends, or on the one that
//! `cargo xtask lab up` left running.

mod checks;
mod install;
mod pods;
mod probes;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::build_ebpf;
use crate::demo::artifacts::{self, Artifacts};
use crate::lab::kubernetes::{Cluster, Options};
use crate::paths;
use crate::setup::{self, Group};
use install::Installed;

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the cluster that `cargo xtask lab up` left running, and leave it so.
    #[arg(long)]
    running: bool,
    /// Take programs that are built already from this directory.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn verb(args: &Args) -> Result<()> {
    setup::ensure(&[Group::Bpf, Group::Lab, Group::Kubernetes], args.yes)?;
    build_ebpf::run(&build_ebpf::Args::OURS)?;
    let dir = paths::target().join("cluster");
    std::fs::create_dir_all(&dir)?;
    let artifacts = match &args.programs {
        Some(programs) => built(programs),
        None => build(&dir.join("build.log"))?,
    };
    let shown = if args.running {
        on(&Cluster::running(&Options::default_dir())?, &artifacts, &dir)?
    } else {
        run(&artifacts, &dir)?
    };
    println!("{} checks ok, {} failed", shown.passed, shown.failed.len());
    if !shown.failed.is_empty() {
        bail!("not all is well ({}); logs are in {}", shown.failed.join(", "), dir.display());
    }
    Ok(())
}

/// Names of packages, each of which has a program of that name.
const PROGRAMS: [&str; 3] = ["bulkhead-agent", "bulkhead-controller", "bulkheadctl"];

fn build(log: &Path) -> Result<Artifacts> {
    let mut arguments = vec!["--bins"];
    arguments.extend(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    artifacts::build("Building the programs", &arguments, log)
}

fn built(dir: &Path) -> Artifacts {
    let programs = PROGRAMS.map(|name| (name.to_owned(), dir.join(name)));
    Artifacts { programs: programs.into(), ..Artifacts::default() }
}

/// One check: what it shows, and how.
type Check = (&'static str, fn(&Installed<'_>) -> Result<()>);

/// In this order, each on what the one before has left.
const CHECKS: &[Check] = &[
    ("install-as-a-new-user", checks::first::is_installed),
    ("every-pod-is-registered", checks::first::every_pod_is_registered),
    ("observe-breaks-nothing", checks::first::observe_breaks_nothing),
    ("preflight-knows-the-nodes", checks::operator::preflight_knows_the_nodes),
    ("discover-finds-a-vcluster", checks::operator::discover_finds_a_vcluster),
    ("what-would-be-refused-is-told", checks::operator::what_would_be_refused_is_told),
    ("enforce-stands", checks::enforce::stands),
    ("columns-are-true", checks::operator::columns_are_true),
    ("own-traffic-flows", checks::enforce::own_traffic_flows),
    ("other-traffic-is-refused", checks::enforce::other_traffic_is_refused),
    ("nothing-arrives", checks::enforce::nothing_arrives),
    ("plain-pods-are-untouched", checks::enforce::plain_pods_are_untouched),
    ("probes-stay-up", checks::enforce::probes_stay_up),
    ("forged-labels-change-nothing", checks::identity::forged_labels_change_nothing),
    ("host-network-pods-are-refused", checks::identity::host_network_pods_are_refused),
    ("an-address-moves", checks::identity::an_address_moves),
    ("an-invalid-object-changes-nothing", checks::identity::an_invalid_object_changes_nothing),
    ("a-new-pod-is-a-member-at-once", checks::identity::a_new_pod_is_a_member_at_once),
    ("usage-is-told", checks::operator::usage_is_told),
    ("a-team-sees-its-own", checks::operator::a_team_sees_its_own),
    ("agent-death-opens-nothing", checks::faults::agent_death_opens_nothing),
    ("rollout-opens-nothing", checks::faults::a_rollout_opens_nothing),
    ("containerd-restarts", checks::faults::containerd_restarts),
    ("api-server-away", checks::faults::api_server_away),
    ("controller-away", checks::faults::controller_away),
    ("pods-come-and-go", checks::faults::pods_come_and_go),
    ("off-and-back", checks::operator::off_and_back),
    ("uninstall-leaves-nothing", checks::last::uninstall_leaves_nothing),
];

/// How many checks went well, and which did not.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) passed: usize,
    /// Names of checks.
    pub(crate) failed: Vec<&'static str>,
}

/// Starts a cluster below `dir`, installs, and runs every check; those after one that failed run
/// all the same.
pub(crate) fn run(artifacts: &Artifacts, dir: &Path) -> Result<Shown> {
    let cluster = Cluster::up(&Options {
        dir: std::path::absolute(dir.join("kubernetes"))?,
        nodes: 2,
        memory_mib: Options::MEMORY_MIB,
        outlive: false,
    })?;
    on(&cluster, artifacts, dir)
}

/// The same on a cluster that runs.
pub(crate) fn on(cluster: &Cluster, artifacts: &Artifacts, dir: &Path) -> Result<Shown> {
    let installed = Installed::on(cluster, artifacts, dir)?;
    let mut shown = Shown::default();
    for (name, check) in CHECKS {
        let began = Instant::now();
        let result = check(&installed);
        let took = began.elapsed();
        match &result {
            Ok(()) => {
                eprintln!("  ok      {name} ({:.1} s)", took.as_secs_f64());
                shown.passed += 1;
            }
            Err(error) => {
                eprintln!("  FAILED  {name} ({:.1} s): {error:#}", took.as_secs_f64());
                shown.failed.push(name);
            }
        }
    }
    if !shown.failed.is_empty() {
        installed.keep_logs(dir);
    }
    Ok(shown)
}
