//! The crate against a real containerd with real pods, where this program plays the kubelet.
//! Ends with an error when anything is not as it should be.
//!
//! Needs root, systemd, cgroup v2 and runc in the path; makes slices below kubepods.slice and
//! network devices, so run it on a machine that is thrown away afterwards. With `--idle`, it makes
//! no pods and can run anywhere. See `--help`.

mod containerd;
mod kubelet;
mod pods;
mod raw;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_nri::testing::record;
use bulkhead_nri::{EventMask, Options, PluginName, State, WhenLate, run_with_reconnect};
use clap::Parser;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use containerd::{Containerd, Programs};
use raw::Got;
use witness::Witness;

/// Tries the NRI client against a containerd of its own.
#[derive(Parser)]
struct Args {
    /// The containerd to try against.
    #[arg(long, default_value = "containerd")]
    containerd: PathBuf,
    /// containerd's tool.
    #[arg(long, default_value = "ctr")]
    ctr: PathBuf,
    /// A static busybox, to make an image of.
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// Where the CNI plugins `ptp` and `host-local` are.
    #[arg(long, default_value = "/usr/lib/cni")]
    cni: PathBuf,
    /// A directory for all files; must not exist.
    #[arg(long)]
    work: PathBuf,
    /// Make no pods.
    #[arg(long)]
    idle: bool,
    /// Write what plugin and runtime say on the first connection to this file.
    #[arg(long)]
    record: Option<PathBuf>,
}

/// A plugin that serves in a task.
pub(crate) struct Running {
    pub(crate) witness: Arc<Witness>,
    state: watch::Receiver<State>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Connects the witness.
    fn start(witness: &Arc<Witness>, socket: &Path, when_late: WhenLate) -> Result<Self> {
        let plugin = PluginName::new("witness", 10).context("name the plugin")?;
        let options = Options { socket: socket.into(), when_late, ..Options::new(plugin) };
        let (sender, state) = watch::channel(State::Connecting);
        let (stop, stopped) = oneshot::channel::<()>();
        let (plugin, witness) = (Arc::clone(witness), Arc::clone(witness));
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            run_with_reconnect(&plugin, &options, &sender, stop).await;
        });
        Ok(Self { witness, state, stop, task })
    }

    pub(crate) async fn until(&mut self, what: impl FnMut(&State) -> bool) -> Result<State> {
        let reached = tokio::time::timeout(Duration::from_mins(1), self.state.wait_for(what)).await;
        Ok(reached.context("the connection's state does not come about")??.clone())
    }

    pub(crate) async fn connected(&mut self) -> Result<State> {
        self.until(|state| matches!(state, State::Connected { .. })).await
    }

    async fn stop(self) -> Result<Arc<Witness>> {
        let _ = self.stop.send(());
        self.task.await.context("stop the plugin")?;
        Ok(self.witness)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let args = Args::parse();
    let Args { containerd, ctr, busybox, cni, work, idle, record } = args;
    ensure!(!work.exists(), "{} exists already", work.display());
    let mut runtime = Containerd::start(&work, Programs { containerd, ctr, busybox, cni }).await?;
    let tried = try_all(&mut runtime, &work, idle, record.as_deref()).await;
    if tried.is_err() {
        eprintln!("containerd's log ends with:\n{}", runtime.log());
    }
    runtime.end().await?;
    tried?;
    println!("all is as it should be");
    Ok(())
}

async fn try_all(
    runtime: &mut Containerd,
    work: &Path,
    idle: bool,
    record_to: Option<&Path>,
) -> Result<()> {
    let witness = Arc::new(Witness::default());
    let proxy = work.join("proxy.sock");
    let recorder = record_to.map(|_| recorder(&proxy, &runtime.nri())).transpose()?;
    let socket = if recorder.is_some() { &proxy } else { &runtime.nri() };
    let mut plugin = Running::start(&witness, socket, WhenLate::Accept)?;
    let connected = plugin.connected().await?;
    println!("{connected}");
    if !idle {
        runtime.import_image().await?;
        pods::live_and_die(runtime, &mut plugin).await?;
    }
    let witness = plugin.stop().await?;
    if let (Some(recorder), Some(path)) = (recorder, record_to) {
        let recording = recorder.await.context("record")??;
        std::fs::write(path, recording.to_string()).context("write the recording")?;
    }
    refusals(runtime, &connected).await?;
    if !idle {
        pods::late(runtime, &witness).await?;
    }
    restart(runtime, &witness).await
}

/// What the crate assumes of runtimes when it chooses events and cuts frames.
async fn refusals(runtime: &Containerd, connected: &State) -> Result<()> {
    let State::Connected { runtime: info, .. } = connected else { unreachable!("it is connected") };
    let (known, socket) = (info.known_events(), runtime.nri());
    for (events, want) in [
        (known.to_wire(), Got::Synchronized),
        (0, Got::Synchronized),
        (known.to_wire() + 1, Got::Configured),
        (EventMask::ALL.to_wire() << 1, Got::Configured),
    ] {
        let got = raw::registration(&socket, 5, true, events).await?;
        ensure!(got == want, "with the events {events:#x}: {got:?}, not {want:?}");
    }
    for (one_frame, want) in [(false, Got::Synchronized), (true, Got::Nothing)] {
        let got = raw::registration(&socket, 10_000, one_frame, 1).await?;
        ensure!(got == want, "10,000 bytes in one frame ({one_frame}): {got:?}, not {want:?}");
    }
    println!("events and frames are refused as the crate assumes");
    Ok(())
}

/// A runtime that is killed and comes back is found again, and tells what exists.
async fn restart(runtime: &mut Containerd, witness: &Arc<Witness>) -> Result<()> {
    let mut plugin = Running::start(witness, &runtime.nri(), WhenLate::Accept)?;
    plugin.connected().await?;
    let before = witness.existed().len();
    runtime.restart().await?;
    let until = Instant::now() + Duration::from_mins(1);
    while witness.existed().len() == before {
        ensure!(Instant::now() < until, "the new runtime did not tell what exists");
        sleep(Duration::from_millis(50)).await;
    }
    plugin.connected().await?;
    plugin.stop().await?;
    println!("a restarted runtime is found again");
    Ok(())
}

/// Waits for one plugin, and records what it and the runtime say.
fn recorder(
    proxy: &Path,
    runtime: &Path,
) -> Result<JoinHandle<std::io::Result<bulkhead_nri::testing::Recording>>> {
    let listener = UnixListener::bind(proxy).context("listen for the plugin")?;
    let runtime = runtime.to_owned();
    Ok(tokio::spawn(async move {
        let (plugin, _) = listener.accept().await?;
        record(plugin, UnixStream::connect(runtime).await?).await
    }))
}
