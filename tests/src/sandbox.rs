//! A corner of this machine for one test: a cgroup hierarchy, a BPF file system, and network
//! namespaces on one bridge. All of it has names of its own, and is gone when the value is
//! dropped, also when a test panics.

mod cgroups;
mod command;
mod network;
mod sweep;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::geteuid;

pub use cgroups::{Cgroups, cgroup2_mount};
pub use network::{Host, Network};
pub use traffic::{Running, Traffic};

/// Once in a process what killed ones have left is removed.
static SWEPT: Once = Once::new();

/// A corner of this machine.
#[derive(Debug)]
pub struct Sandbox {
    // In the order in which they are dropped: processes have ended when cgroups and namespaces go.
    /// The hierarchy, with a root of its own directly below the cgroup2 mount.
    pub cgroups: Cgroups,
    /// Hosts that reach each other.
    pub network: Network,
    /// A BPF file system.
    pub bpffs: BpfFs,
}

impl Sandbox {
    /// Makes a sandbox with that many hosts.
    pub fn new(hosts: u8) -> Result<Self> {
        ensure!(geteuid().is_root(), "this test changes cgroups and namespaces: run it as root");
        SWEPT.call_once(sweep::sweep);
        let name = unique();
        Ok(Self {
            cgroups: Cgroups::new(&name)?,
            network: Network::new(&name, hosts)?,
            bpffs: BpfFs::mount(&name)?,
        })
    }

    /// A way to send and receive as `host`, in a cgroup of `virtual_cluster`.
    pub fn traffic(&self, virtual_cluster: &str, host: &Host) -> Result<Traffic> {
        let leaf = self.cgroups.leaf(virtual_cluster)?;
        Ok(Traffic::new(Some(leaf), host))
    }

    /// A way to send and receive as `host`, in no cgroup of ours.
    pub fn outsider(&self, host: &Host) -> Traffic {
        Traffic::new(None, host)
    }
}

/// A name that nothing else on this machine has, short enough for an interface.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bh{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A mounted BPF file system.
#[derive(Debug)]
pub struct BpfFs {
    path: PathBuf,
}

impl BpfFs {
    fn mount(name: &str) -> Result<Self> {
        let path = Path::new("/run").join(format!("{name}-bpf"));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let mounted = mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>);
        // From here on the directory is removed again.
        let made = Self { path };
        mounted.with_context(|| format!("mount a BPF file system at {}", made.path.display()))?;
        Ok(made)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}
