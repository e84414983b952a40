//! The agent itself: opens what it needs, starts the owner thread and the async edge, and ends
//! leaving everything in place.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bulkhead_core::{Degradation, Fact, Integrals};
use bulkhead_proto::v1;
use tokio::sync::watch;

use crate::args::{Places, RunArgs};
use crate::cycle::{Cycle, Settings};
use crate::edge::{self, Edge};
use crate::journal::{Journal, Limits, Recovered};
use crate::kernel::bpf::{Bpf, BpfOptions, Capacities};
use crate::kernel::delegate::Root;
use crate::kernel::linux::LinuxKernel;
use crate::kernel::probe::{Files, Probe};
use crate::kernel::seam::Kernel;
use crate::owner::{self, Event, Reports};
use crate::{checkpoint, snapshot_cache, status};

/// Name of the journal's directory in the state directory.
const JOURNAL: &str = "journal";
/// Name of the file with what the controller said last.
const SNAPSHOT: &str = "snapshot";
/// A level is not integrated over a gap of more samples than this.
const LONGEST_GAP_SAMPLES: u64 = 3;
const SEGMENT_BYTES: u64 = 4 << 20;

/// Runs until SIGTERM or SIGINT.
pub fn run(places: &Places, args: &RunArgs) -> Result<ExitCode> {
    start_logging();
    raise_descriptor_limit();
    let probe = Probe::read(&Files::host()).context("find out what this node is")?;
    let node = node_name(args)?;
    let boot_id = probe.boot_id.clone();
    let (journal, recovered) = open_journal(args, &boot_id)?;
    let mut kernel = open_kernel(places, args, &probe)?;
    let found = kernel.node(&BTreeSet::new())?;
    let found = status::node_facts(&found, &boot_id, &probe.kernel_release);
    let reader = journal.reader();
    let settings = Settings {
        boot_id: boot_id.clone(),
        window_nanoseconds: nanoseconds(args.window),
        longest_gap_nanoseconds: nanoseconds(args.sample_interval)
            .get()
            .saturating_mul(LONGEST_GAP_SAMPLES),
    };
    let integrals = integrals(&boot_id, &recovered);
    let mut cycle = Cycle::new(kernel, journal, settings, integrals);
    cycle.note(conditions(&recovered));
    let snapshot_file = args.state_dir.join(SNAPSHOT);
    match snapshot_cache::load(&snapshot_file) {
        Ok(Some(snapshot)) => cycle.learn(Fact::Snapshot(snapshot)),
        Ok(None) => {
            tracing::info!("nothing is known of virtual clusters until the controller says");
        }
        Err(error) => tracing::error!(%error, "what the controller said last cannot be read"),
    }

    let (events, inbox) = mpsc::channel();
    let (to_status, status) = watch::channel(v1::NodeStatus::default());
    let (to_facts, facts) = watch::channel(found);
    let reports = Reports {
        node: node.clone(),
        boot_id,
        kernel_release: probe.kernel_release,
        snapshot_file,
        status: to_status,
        facts: to_facts,
    };
    let interval = args.sample_interval;
    let owner = std::thread::Builder::new()
        .name("kernel".to_owned())
        .spawn(move || owner::run(cycle, &inbox, &reports, interval))
        .context("start the thread that owns the kernel")?;
    let edge = Edge {
        node,
        facts,
        status,
        journal: reader,
        owner: events.clone(),
        started_unix_nanoseconds: started(),
    };
    let served = edge::run(edge, places, args);
    // Also after an error: the last counts go into the journal.
    drop(events.send(Event::Shutdown));
    owner.join().map_err(|_| anyhow::anyhow!("the thread that owns the kernel panicked"))?;
    served?;
    Ok(ExitCode::SUCCESS)
}

fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Sampling keeps a dozen files of each virtual cluster open.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "few virtual clusters can be sampled: RLIMIT_NOFILE stays low");
    }
}

fn node_name(args: &RunArgs) -> Result<String> {
    if let Some(name) = &args.node {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().context("read the host name; or give --node NAME")?;
    host.into_string().map_err(|name| {
        anyhow::anyhow!("the host name {} is not UTF-8; give --node NAME", name.display())
    })
}

fn open_journal(args: &RunArgs, boot_id: &str) -> Result<(Journal, Recovered)> {
    let directory = args.state_dir.join(JOURNAL);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("make the state directory {}", directory.display()))?;
    let limits = Limits {
        max_bytes: args.journal_mib.get().saturating_mul(1 << 20),
        segment_bytes: SEGMENT_BYTES.min(args.journal_mib.get().saturating_mul(1 << 18)),
    };
    Journal::open(&directory, limits, boot_id).context("open the journal")
}

fn open_kernel(places: &Places, args: &RunArgs, probe: &Probe) -> Result<LinuxKernel> {
    let root = Root::choose(probe, places.cgroup_root.as_deref())?;
    let tree = root.make().context("open the root of the virtual clusters' cgroups")?;
    let options = BpfOptions {
        object: args.bpf_object.clone(),
        pin_dir: places.bpffs.join(format!("v{}", bulkhead_abi::ABI_VERSION)),
        cgroup_root: root.path().to_owned(),
        ancestor_level: tree.virtual_cluster_level(),
        capacities: Capacities { addresses: args.max_addresses, ..Capacities::default() },
        epoch_if_new: started(),
    };
    let (bpf, opened) = Bpf::open(&options).context("load the kernel programs")?;
    tracing::info!(
        taken_over = ?opened.taken_over,
        created = ?opened.created,
        "tables are open"
    );
    Ok(LinuxKernel::new(tree, bpf, probe.clone()))
}

/// Nanoseconds since the Unix epoch.
fn started() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> NonZeroU64 {
    let nanoseconds = u64::try_from(time.as_nanos()).ok().and_then(NonZeroU64::new);
    nanoseconds.unwrap_or(NonZeroU64::MIN)
}

/// What accounting carries over, where there is something to carry.
fn integrals(boot_id: &str, recovered: &Recovered) -> Integrals {
    let Some(bytes) = &recovered.checkpoint else {
        return Integrals::default();
    };
    checkpoint::decode(boot_id, bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "time integrals begin again");
        Integrals::default()
    })
}

/// What opening the journal found and an operator must know.
fn conditions(recovered: &Recovered) -> Vec<Degradation> {
    if let Some(tail) = &recovered.truncated {
        tracing::warn!(%tail, "a crash had cut the journal");
    }
    let degradation = |message| Degradation { subject: "journal".to_owned(), message };
    recovered.conditions().into_iter().map(degradation).collect()
}
