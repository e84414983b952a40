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
use crate::test::faults::Extent::{self, Full, Short};
use install::Installed;

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the cluster that `cargo xtask lab up` left running, and leave it so.
    #[arg(long)]
    running: bool,
    /// Also what takes long, and with as many pods as it is meant for.
    #[arg(long)]
    full: bool,
    /// Only the checks of these names; each takes what the ones before it leave for granted.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
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
    let unknown = args.only.iter().find(|name| CHECKS.iter().all(|(known, ..)| known != name));
    if let Some(name) = unknown {
        bail!("no check is called {name:?}");
    }
    let extent = if args.full { Full } else { Short };
    let wanted = |name: &str, of: Extent| {
        if args.only.is_empty() {
            of == Short || args.full
        } else {
            args.only.iter().any(|it| it == name)
        }
    };
    let shown = if args.running {
        on(&Cluster::running(&Options::default_dir())?, &artifacts, &dir, extent, wanted)?
    } else {
        on(&start(&dir)?, &artifacts, &dir, extent, wanted)?
    };
    let Shown { passed, ref failed, left_out } = shown;
    println!("{passed} checks ok, {} failed, {left_out} left out", failed.len());
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

/// One check: what it shows, how, and whether only a full run has time for it.
type Check = (&'static str, fn(&Installed<'_>) -> Result<()>, Extent);

/// In this order, each on what the one before has left.
const CHECKS: &[Check] = &[
    ("install-as-a-new-user", checks::first::is_installed, Short),
    ("every-pod-is-registered", checks::first::every_pod_is_registered, Short),
    ("observe-breaks-nothing", checks::first::observe_breaks_nothing, Short),
    ("preflight-knows-the-nodes", checks::operator::preflight_knows_the_nodes, Short),
    ("discover-finds-a-vcluster", checks::operator::discover_finds_a_vcluster, Short),
    ("what-would-be-refused-is-told", checks::operator::what_would_be_refused_is_told, Short),
    ("enforce-stands", checks::enforce::stands, Short),
    ("columns-are-true", checks::operator::columns_are_true, Short),
    ("own-traffic-flows", checks::enforce::own_traffic_flows, Short),
    ("other-traffic-is-refused", checks::enforce::other_traffic_is_refused, Short),
    ("nothing-arrives", checks::enforce::nothing_arrives, Short),
    ("plain-pods-are-untouched", checks::enforce::plain_pods_are_untouched, Short),
    (
        "who-is-closed-to-plain-pods-reaches-none",
        checks::enforce::who_is_closed_to_plain_pods_reaches_none,
        Full,
    ),
    ("probes-stay-up", checks::enforce::probes_stay_up, Short),
    ("forged-labels-change-nothing", checks::identity::forged_labels_change_nothing, Short),
    ("host-network-pods-are-refused", checks::identity::host_network_pods_are_refused, Full),
    ("an-address-moves", checks::identity::an_address_moves, Full),
    ("an-invalid-object-changes-nothing", checks::identity::an_invalid_object, Full),
    ("a-new-pod-is-a-member-at-once", checks::identity::a_new_pod_is_a_member_at_once, Short),
    ("usage-is-told", checks::operator::usage_is_told, Short),
    ("a-team-sees-its-own", checks::operator::a_team_sees_its_own, Short),
    ("agent-death-opens-nothing", checks::faults::agent_death_opens_nothing, Short),
    ("rollout-opens-nothing", checks::faults::a_rollout_opens_nothing, Full),
    ("containerd-restarts", checks::faults::containerd_restarts, Full),
    ("api-server-away", checks::faults::api_server_away, Full),
    ("controller-away", checks::faults::controller_away, Full),
    ("pods-come-and-go", checks::faults::pods_come_and_go, Full),
    ("off-and-back", checks::operator::off_and_back, Short),
    ("uninstall-leaves-nothing", checks::last::uninstall_leaves_nothing, Short),
];

/// How many checks went well, and which did not.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) passed: usize,
    /// Names of checks.
    pub(crate) failed: Vec<&'static str>,
    /// How many only a full run has.
    pub(crate) left_out: usize,
}

/// Starts a cluster below `dir`, installs, and runs the checks of `extent`; those after one that
/// failed run all the same.
pub(crate) fn run(artifacts: &Artifacts, dir: &Path, extent: Extent) -> Result<Shown> {
    let wanted = |_: &str, of: Extent| of == Short || extent == Full;
    on(&start(dir)?, artifacts, dir, extent, wanted)
}

fn start(dir: &Path) -> Result<Cluster> {
    Cluster::up(&Options {
        dir: std::path::absolute(dir.join("kubernetes"))?,
        nodes: 2,
        memory_mib: Options::MEMORY_MIB,
        outlive: false,
    })
}

/// On a cluster that runs.
fn on(
    cluster: &Cluster,
    artifacts: &Artifacts,
    dir: &Path,
    extent: Extent,
    wanted: impl Fn(&str, Extent) -> bool,
) -> Result<Shown> {
    let installed = Installed::on(cluster, artifacts, dir, extent)?;
    let mut shown = Shown::default();
    for (name, check, of) in CHECKS {
        if !wanted(name, *of) {
            shown.left_out += 1;
            continue;
        }
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
