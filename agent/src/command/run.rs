//! The agent itself: opens what it needs, starts the owner thread and the async edge, and ends
//! leaving everything in place.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_core::{LocalPods, Placement};
use bulkhead_proto::v1;
use tokio::sync::watch;

use super::kubernetes::{self, Kubepods};

use crate::admin::PodsStatus;
use crate::args::{Places, RunArgs};
use crate::clock::Now;
use crate::cycle::{PodsReport, Settings};
use crate::edge::{self, Edge};
use crate::inventory::{self, Inventory};
use crate::journal::{Journal, Limits, Recovered};
use crate::kernel::bpf::usage::{Field, Level, UsageIterator};
use crate::kernel::bpf::{Bpf, BpfOptions, Capacities};
use crate::kernel::cgroup::{CgroupTree, Sampler};
use crate::kernel::delegate::Root;
use crate::kernel::linux::LinuxKernel;
use crate::kernel::probe::{Files, Probe};
use crate::kernel::seam::Kernel;
use crate::owner::{self, Event, Owner, Reports};
use crate::status;

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
    match args.placement() {
        Placement::Directory => {
            let journal = open_journal(args, &probe.boot_id)?;
            let kernel = open_kernel(places, args, &probe)?;
            run_with(places, args, probe, (kernel, journal), None)
        }
        Placement::Overlay => {
            let kubepods = kubernetes::find(&probe, args)?;
            let _lock = kubernetes::be_the_only_one(&places.run_dir)?;
            let journal = open_journal(args, &probe.boot_id)?;
            let kernel = kubernetes::open_kernel(places, args, &probe, &kubepods)?;
            run_with(places, args, probe, (kernel, journal), Some(kubepods))
        }
    }
}

fn run_with<K: Kernel + Send + 'static>(
    places: &Places,
    args: &RunArgs,
    probe: Probe,
    (mut kernel, (journal, recovered)): (K, (Journal, Recovered)),
    kubepods: Option<Kubepods>,
) -> Result<ExitCode> {
    let node = node_name(args)?;
    let boot_id = probe.boot_id.clone();
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
    let (events, inbox) = mpsc::channel();
    let (to_status, status) = watch::channel(v1::NodeStatus::default());
    let (to_facts, facts) = watch::channel(found);
    let (pods, inventory) = Pods::new(kubepods, args, &events);
    let reports = Reports {
        node: node.clone(),
        boot_id,
        kernel_release: probe.kernel_release,
        snapshot_file: args.state_dir.join(SNAPSHOT),
        status: to_status,
        facts: to_facts,
        kubernetes: pods.reported,
    };
    let owner = Owner::resume(kernel, (journal, &recovered), settings, reports);
    let interval = args.sample_interval;
    let owner = std::thread::Builder::new()
        .name("kernel".to_owned())
        .spawn(move || owner::run(owner, &inbox, interval))
        .context("start the thread that owns the kernel")?;
    let inventory = inventory.map(inventory::start).transpose();
    let inventory = inventory.context("start the threads that tell of pods")?;
    let edge = Edge {
        node,
        facts,
        status,
        pods: pods.local,
        pods_status: pods.status,
        journal: reader,
        owner: events.clone(),
        started_unix_nanoseconds: started(),
    };
    let served = edge::run(edge, places, args);
    // The next agent registers when this one's lock is gone, which is after this.
    if let Some(inventory) = inventory {
        inventory.stop();
    }
    // Also after an error: the last counts go into the journal.
    drop(events.send(Event::Shutdown));
    owner.join().map_err(|_| anyhow::anyhow!("the thread that owns the kernel panicked"))?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// The ends of what is said of pods.
struct Pods {
    reported: Option<owner::Kubernetes>,
    local: watch::Receiver<Arc<LocalPods>>,
    status: Option<PodsStatus>,
}

impl Pods {
    /// And what the threads that tell of pods need, where there are any.
    fn new(
        kubepods: Option<Kubepods>,
        args: &RunArgs,
        owner: &mpsc::Sender<Event>,
    ) -> (Self, Option<Inventory>) {
        let (pods, local) = watch::channel(Arc::default());
        let Some(kubepods) = kubepods else {
            return (Self { reported: None, local, status: None }, None);
        };
        let (report, reported) = watch::channel(PodsReport::default());
        let (told, what_was_told) = watch::channel(None);
        let (state, runtime) = watch::channel(bulkhead_nri::State::Connecting);
        let inventory = Inventory {
            kubepods: kubepods.path,
            kubepods_relative: kubepods.relative,
            nri_socket: args.nri_socket.clone(),
            owner: owner.clone(),
            told: what_was_told,
            state,
        };
        let status = PodsStatus { report: reported, runtime: runtime.clone() };
        let reported = owner::Kubernetes { pods, report, told, runtime };
        (Self { reported: Some(reported), local, status: Some(status) }, Some(inventory))
    }
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
    #[cfg(feature = "fault-points")]
    let limits = {
        let max_bytes = crate::faults::number("BULKHEAD_JOURNAL_BYTES", limits.max_bytes);
        Limits { max_bytes, segment_bytes: limits.segment_bytes.min(max_bytes / 4) }
    };
    Journal::open(&directory, limits, boot_id).context("open the journal")
}

/// Usage comes from the cgroup iterator where the kernel has it, and else from files.
fn sampler(tree: &CgroupTree, object: &Path) -> Sampler {
    let level = Level::Only(tree.virtual_cluster_level());
    let sampler = Sampler::new(UsageIterator::open(object, tree.as_fd(), level, &Field::ALL));
    report_sampler(&sampler);
    sampler
}

pub(super) fn report_sampler<K: Ord + Clone>(sampler: &Sampler<K>) {
    match (sampler.why_files(), sampler.missing()) {
        (Some(why), _) => tracing::warn!(why, "usage comes from files"),
        (None, missing) => tracing::info!(?missing, "usage comes from the cgroup iterator"),
    }
}

fn open_kernel(places: &Places, args: &RunArgs, probe: &Probe) -> Result<LinuxKernel> {
    let root = Root::choose(probe, places.cgroup_root.as_deref())?;
    let tree = root.make().context("open the root of the virtual clusters' cgroups")?;
    let bpf = open_bpf(places, args, root.path(), (0, tree.virtual_cluster_level()))?;
    let sampler = sampler(&tree, &args.bpf_object);
    Ok(LinuxKernel::new(tree, bpf, probe.clone()).sampling_with(sampler))
}

pub(super) fn open_bpf(
    places: &Places,
    args: &RunArgs,
    cgroup_root: &Path,
    (upper_level, ancestor_level): (u32, u32),
) -> Result<Bpf> {
    let options = BpfOptions {
        object: args.bpf_object.clone(),
        pin_dir: places.bpffs.join(format!("v{}", bulkhead_abi::ABI_VERSION)),
        cgroup_root: cgroup_root.to_owned(),
        ancestor_level,
        upper_level,
        capacities: Capacities {
            addresses: args.max_addresses,
            counters: args.max_counted_cgroups,
            ..Capacities::default()
        },
        epoch_if_new: started(),
    };
    let (bpf, opened) = Bpf::open(&options).context("load the kernel programs")?;
    tracing::info!(
        taken_over = ?opened.taken_over,
        created = ?opened.created,
        "tables are open"
    );
    Ok(bpf)
}

/// Nanoseconds since the Unix epoch.
fn started() -> u64 {
    Now::read().at.0.max(1)
}

fn nanoseconds(time: Duration) -> NonZeroU64 {
    let nanoseconds = u64::try_from(time.as_nanos()).ok().and_then(NonZeroU64::new);
    nanoseconds.unwrap_or(NonZeroU64::MIN)
}
