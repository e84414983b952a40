//! The addresses of a pod, from its network namespace, where the runtime does not tell them.
//!
//! Only of a pod that begins: no container of it has run, so what is there is what the network
//! plugin gave it. Later, the pod's owner could have put any address there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use tokio::sync::{Semaphore, oneshot};

use super::sandbox::is_of_the_cluster;

/// Threads that may be in namespaces of pods at a time.
const THREADS: usize = 8;

/// Reads addresses in threads of its own: a thread that was in another namespace is not used
/// again.
#[derive(Clone, Debug)]
pub(super) struct AddressReader {
    room: Arc<Semaphore>,
}

impl Default for AddressReader {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl AddressReader {
    /// The addresses in the first of these namespaces that is there; `None`: it is the host's, or
    /// none is there.
    pub(super) async fn read(&self, namespaces: Vec<PathBuf>) -> Option<BTreeSet<IpAddr>> {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let (reply, answer) = oneshot::channel();
        let enter = move || {
            let _permit = permit;
            // Whoever asked may have given up.
            drop(reply.send(first(&namespaces)));
        };
        let thread = std::thread::Builder::new().name("pod-addresses".to_owned()).spawn(enter);
        thread
            .inspect_err(|error| tracing::warn!(%error, "no thread for a pod's addresses"))
            .ok()?;
        answer.await.ok().flatten()
    }
}

fn first(namespaces: &[PathBuf]) -> Option<BTreeSet<IpAddr>> {
    for path in namespaces {
        match enter_and_read(path) {
            Ok(addresses) => return addresses,
            Err(error) => {
                tracing::debug!(namespace = %path.display(), %error, "not to be entered");
            }
        }
    }
    None
}

/// Leaves the calling thread in the namespace.
fn enter_and_read(path: &Path) -> io::Result<Option<BTreeSet<IpAddr>>> {
    let namespace = File::open(path)?;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    if identity(namespace.metadata()?) == identity(fs::metadata("/proc/self/ns/net")?) {
        return Ok(None);
    }
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(Some(addresses.filter(is_of_the_cluster).collect()))
}

/// Where a pod's network namespace may be found: where the runtime says, by the process that the
/// runtime names, and by any process in the pod's cgroup.
pub(super) fn places(told: Option<&str>, pid: u32, cgroup: Option<&Path>) -> Vec<PathBuf> {
    let of_process = |pid: &str| PathBuf::from(format!("/proc/{pid}/ns/net"));
    let mut places: Vec<PathBuf> = told.map(PathBuf::from).into_iter().collect();
    if pid != 0 {
        places.push(of_process(&pid.to_string()));
    }
    places.extend(cgroup.and_then(any_process).map(|pid| of_process(&pid)));
    places
}

/// The first process directly below a pod's cgroup; before its containers, that is its sandbox's.
fn any_process(cgroup: &Path) -> Option<String> {
    let below = fs::read_dir(cgroup).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut lists = below.filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    lists.find_map(|list| list.lines().next().map(str::to_owned))
}
