//! What `run` needs besides, where pods stay in the kubelet's cgroups.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::run::{open_bpf, report_sampler};
use crate::args::{Places, RunArgs};
use crate::kernel::bpf::usage::{Field, Level, UsageIterator};
use crate::kernel::cgroup::{PodTree, Sampler};
use crate::kernel::overlay::OverlayKernel;
use crate::kernel::probe::Probe;

/// Name of the file in the run directory that the one agent of the node has locked.
const LOCK: &str = "agent.lock";
/// How long the agent before may take to end: its last counts go into the journal first.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// The kubelet's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kubepods {
    pub(super) path: PathBuf,
    /// Below the mount of cgroup v2.
    pub(super) relative: String,
}

/// Waits until no other agent of this node runs: only one has the runtime's events and the pins.
/// The lock goes with the process, however that ends.
pub(super) fn be_the_only_one(run_dir: &Path) -> Result<File> {
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("make the run directory {}", run_dir.display()))?;
    let path = run_dir.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let (begun, mut waits) = (Instant::now(), false);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                if !waits {
                    tracing::info!(lock = %path.display(), "waiting for the agent before to end");
                }
                waits = true;
                std::thread::sleep(POLL);
            }
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another agent of this node still holds {} after {} s; stop it first",
                path.display(),
                PATIENCE.as_secs()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
}

/// Finds the kubelet's root.
pub(super) fn find(probe: &Probe, args: &RunArgs) -> Result<Kubepods> {
    let mount = probe.cgroup2.as_ref().context("this node has no cgroup v2 mounted")?;
    let mount = &mount.mount_point;
    let path = match &args.kubepods_root {
        Some(path) => path.clone(),
        None => PodTree::find(mount).with_context(|| {
            format!(
                "there is neither {} below {}: does a kubelet run here, with cgroup v2? If it has \
                 another root, give it with --kubepods-root",
                PodTree::NAMES.join(" nor "),
                mount.display()
            )
        })?,
    };
    let relative = path.strip_prefix(mount).ok().and_then(Path::to_str);
    let relative = relative.with_context(|| {
        format!("the kubelet's root {} is not below {}", path.display(), mount.display())
    })?;
    Ok(Kubepods { relative: relative.to_owned(), path })
}

/// The kernel with the kubelet's root open and the programs loaded.
pub(super) fn open_kernel(
    places: &Places,
    args: &RunArgs,
    probe: &Probe,
    kubepods: &Kubepods,
) -> Result<OverlayKernel> {
    let tree = PodTree::open(&kubepods.path).context("open the kubelet's root")?;
    let [upper, lower] = tree.pod_levels();
    let bpf = open_bpf(places, args, &kubepods.path, (upper, lower))?;
    let level = Level::Either([upper, lower]);
    let iterator = UsageIterator::open(&args.bpf_object, tree.as_fd(), level, &Field::ALL);
    let sampler = Sampler::new(iterator);
    report_sampler(&sampler);
    Ok(OverlayKernel::new(tree, bpf, probe.clone(), sampler))
}
