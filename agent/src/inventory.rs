//! The node's pods, in Kubernetes: who tells of them, and how soon.
//!
//! The runtime tells through NRI, before any container of a pod runs, and waits until the pod
//! stands in the kernel's tables. Where there is no NRI, the kubelet's cgroups are watched, and
//! whose they are is what the controller knows.

mod addresses;
mod plugin;
mod sandbox;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use bulkhead_core::{Degradation, Snapshot, Unknown};
use bulkhead_nri::{Options, PluginName, State};
use tokio::sync::watch as channel;

use crate::cycle::{Late, PodsReport};
use crate::owner::Event;

pub use plugin::PodPlugin;
pub use sandbox::{Sandboxes, pod_of};
pub use watch::watch_cgroups;

/// The plugin's name, and its place: late, so that what others refuse is never registered.
const PLUGIN: (&str, u8) = ("bulkhead", 90);

/// What the threads that tell of pods work with.
#[derive(Debug)]
pub struct Inventory {
    /// The kubelet's root.
    pub kubepods: PathBuf,
    /// The same below the mount of cgroup v2.
    pub kubepods_relative: String,
    /// The runtime's socket.
    pub nri_socket: PathBuf,
    /// To the thread that owns the kernel.
    pub owner: Sender<Event>,
    /// What the controller said.
    pub told: channel::Receiver<Option<Arc<Snapshot>>>,
    /// Where it is said how it is with the runtime.
    pub state: channel::Sender<State>,
}

/// The thread that talks with the runtime, to be ended.
#[derive(Debug)]
pub struct Running {
    stop: channel::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends the connection, so that another agent can have it.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that talks with the runtime panicked");
        }
    }
}

/// Starts the threads that tell of pods. The runtime has one of its own: it must have its answers
/// within milliseconds, whatever else the agent does.
pub fn start(inventory: Inventory) -> io::Result<Running> {
    let Inventory { kubepods, kubepods_relative, nri_socket, owner, told, state } = inventory;
    watch_cgroups(&kubepods, owner.clone(), state.subscribe())?;
    let to_owner = owner.clone();
    let plugin = PodPlugin::new(kubepods, kubepods_relative, owner, told);
    let plugin = Arc::new(plugin);
    let name = PluginName::new(PLUGIN.0, PLUGIN.1).map_err(io::Error::other)?;
    let options = Options { socket: nri_socket, ..Options::new(name) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, mut stopped) = channel::channel(false);
    let talk = move || {
        runtime.block_on(async {
            tokio::spawn(watch::tell_when_away(state.subscribe(), to_owner));
            let stop = async {
                // An error means that the sender is gone, which is an end, too.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            bulkhead_nri::run_with_reconnect(&plugin, &options, &state, stop).await;
        });
    };
    let thread = std::thread::Builder::new().name("nri".to_owned()).spawn(talk)?;
    Ok(Running { stop, thread })
}

/// What an operator must know of the node's pods.
pub fn conditions(runtime: &State, pods: &PodsReport) -> Vec<Degradation> {
    let mut conditions = Vec::new();
    let mut tell = |subject: &str, message: String| {
        conditions.push(Degradation { subject: subject.to_owned(), message });
    };
    if !matches!(runtime, State::Connected { .. }) {
        let message = format!(
            "{runtime}; pods are registered when the controller tells whose they are: {}; until then \
             a pod that starts is {}, and what a pod uses after its last sample is not counted; \
             enable NRI in the runtime (containerd: disable = false in \
             [plugins.\"io.containerd.nri.v1.nri\"])",
            waited(&pods.late),
            fate(pods.policy)
        );
        tell("nri", message);
    }
    if !pods.is_complete {
        let message = "nobody has told yet which pods run here: those that are registered stay so";
        tell("pods", message.to_owned());
    } else if pods.unknown_count > 0 {
        let shown: Vec<_> = pods.unknown.iter().map(ToString::to_string).collect();
        let message = format!(
            "{} pods have cgroups here and nobody has told whose they are; they are {}: {}",
            pods.unknown_count,
            fate(pods.policy),
            shown.join(", ")
        );
        tell("pods", message);
    }
    for (name, count) in &pods.ended_unseen {
        let message = format!(
            "{count} pods of virtual cluster \"{name}\" went without a last count since the agent \
             started: what each of them used after its last sample is in no report"
        );
        tell("usage", message);
    }
    conditions
}

/// How long pods waited, as people read it.
fn waited(late: &Late) -> String {
    if late.registered == 0 {
        return "none waited yet".to_owned();
    }
    let [last, longest] =
        [late.last_nanoseconds, late.longest_nanoseconds].map(|it| it.div_ceil(1_000_000));
    format!("{} waited, the last for {last} ms, the longest for {longest} ms", late.registered)
}

const fn fate(policy: Unknown) -> &'static str {
    match policy {
        Unknown::Allow => "left alone, neither judged nor counted",
        Unknown::Deny => "cut off",
    }
}

#[cfg(test)]
mod tests;
