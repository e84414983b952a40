//! Connections that are made again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nri::testing::FakeRuntime;
use bulkhead_nri::{Backoff, End, Event, EventMask, Options, State, run_with_reconnect};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::plugin::{Diary, NEW, OLD, options, pod};

struct Running {
    _dir: tempfile::TempDir,
    options: Options,
    state: watch::Receiver<State>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts a plugin whose runtime is not there yet.
fn start(plugin: &Arc<Diary>) -> io::Result<Running> {
    let dir = tempfile::tempdir()?;
    let mut options = options();
    options.socket = dir.path().join("nri.sock");
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(20));
    options.backoff = Backoff { first, longest, ..Backoff::default() };
    let (sender, state) = watch::channel(State::Connecting);
    let (stop, stopped) = oneshot::channel::<()>();
    let (plugin, own) = (Arc::clone(plugin), options.clone());
    let task = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        run_with_reconnect(&plugin, &own, &sender, stop).await;
    });
    Ok(Running { _dir: dir, options, state, stop, task })
}

impl Running {
    fn listen(&self) -> io::Result<UnixListener> {
        // A runtime that starts again removes the socket of the one before.
        let _ = std::fs::remove_file(&self.options.socket);
        UnixListener::bind(&self.options.socket)
    }

    async fn until(&mut self, what: impl FnMut(&State) -> bool) -> io::Result<State> {
        let reached = tokio::time::timeout(Duration::from_secs(20), self.state.wait_for(what));
        Ok(reached.await?.map_err(io::Error::other)?.clone())
    }
}

async fn accept(listener: &UnixListener) -> io::Result<FakeRuntime<UnixStream>> {
    let (stream, _) = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await??;
    Ok(FakeRuntime::new(stream))
}

fn connected(state: &State) -> bool {
    matches!(state, State::Connected { .. })
}

#[tokio::test]
async fn a_runtime_that_comes_goes_and_comes_back_is_found_each_time() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut running = start(&plugin)?;
    let absent = running.until(|state| matches!(state, State::Disconnected { .. })).await?;
    let State::Disconnected { reason, retry_in: Some(_), .. } = &absent else { panic!("{absent}") };
    assert!(matches!(**reason, End::Unreachable { .. }), "{absent}");

    for name in ["first", "second"] {
        let listener = running.listen()?;
        let mut runtime = accept(&listener).await?;
        runtime.handshake(OLD, EventMask::BASE, vec![pod(name)], Vec::new()).await?;
        running.until(connected).await?;
        drop((runtime, listener));
        running.until(|state| !connected(state)).await?;
    }
    assert_eq!(plugin.told(), ["exists first", "exists second"]);
    running.stop.send(()).expect("it runs");
    running.task.await?;
    match &*running.state.borrow() {
        State::Disconnected { reason, retry_in: None, .. } => {
            assert!(matches!(**reason, End::Stopped));
        }
        other => panic!("{other}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_runtime_that_knows_less_than_its_version_says_gets_the_smaller_mask() -> io::Result<()> {
    let wanted = EventMask::of(&[Event::RunPodSandbox, Event::UpdatePodSandbox]);
    let plugin = Diary::new(wanted);
    let mut running = start(&plugin)?;
    let listener = running.listen()?;
    for _ in 0..2 {
        // A real runtime closes the connection here.
        let mut runtime = accept(&listener).await?;
        let refused = runtime.handshake(NEW, EventMask::BASE, Vec::new(), Vec::new()).await;
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidInput), "it asks for what the version has");
        drop(runtime);

        let mut runtime = accept(&listener).await?;
        let asked = runtime.handshake(NEW, EventMask::BASE, Vec::new(), Vec::new()).await?;
        assert_eq!(asked, Event::RunPodSandbox.into());
        let state = running.until(connected).await?;
        let State::Connected { events, .. } = &state else { panic!("{state}") };
        assert_eq!(*events, Event::RunPodSandbox.into());
        // After a connection that worked, the runtime may be a newer one: ask for all again.
        drop(runtime);
        running.until(|state| !connected(state)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_waits_for_a_runtime_stops_at_once() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut running = start(&plugin)?;
    running.until(|state| matches!(state, State::Disconnected { .. })).await?;
    running.stop.send(()).expect("it runs");
    tokio::time::timeout(Duration::from_secs(5), running.task).await??;
    Ok(())
}
