//! Pods that come and go, and what the plugin is told of them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_nri::messages::{ContainerState, PodSandbox};
use bulkhead_nri::{End, Event, State, WhenLate};
use tokio::time::{Instant, sleep};

use crate::Running;
use crate::containerd::{Containerd, IMAGE};
use crate::kubelet::{Kubelet, Pod};
use crate::witness::{REFUSED, SLICE, SLOW, Told, Witness};

const WEB: Pod =
    Pod { namespace: "shop", name: "web", uid: "0c1d2e3f-0000-4000-8000-000000000001", attempt: 0 };
const LATER: Pod = Pod {
    namespace: REFUSED,
    name: "later",
    uid: "0c1d2e3f-0000-4000-8000-000000000002",
    attempt: 0,
};
const TIRED: Pod =
    Pod { namespace: SLOW, name: "tired", uid: "0c1d2e3f-0000-4000-8000-000000000003", attempt: 0 };

/// A pod and its container live and die; another pod is refused, tried again, and runs.
pub(crate) async fn live_and_die(runtime: &Containerd, plugin: &mut Running) -> Result<()> {
    let mut kubelet = Kubelet::connect(&runtime.cri()).await?;
    let witness = Arc::clone(&plugin.witness);

    let sandbox = kubelet.run(&WEB).await.context("run a pod")?;
    let told = witness.told();
    expect(&told, &[Event::RunPodSandbox])?;
    described(&told[0].pod, &sandbox)?;

    let container = kubelet.create(&sandbox, &WEB, "box", IMAGE).await.context("create")?;
    expect(&witness.told(), &[Event::CreateContainer, Event::PostCreateContainer])?;
    kubelet.start(&container).await?;
    let told = witness.told();
    expect(&told, &[Event::StartContainer, Event::PostStartContainer])?;
    let started = told[1].container.as_ref().context("the event has no container")?;
    ensure!(started.id == container && started.name == "box", "{started:?}");
    ensure!(started.pod_sandbox_id == sandbox, "{started:?}");
    ensure!(started.state() == ContainerState::Running, "{:?}", started.state());
    placed(&container)?;

    kubelet.resize(&container, 96 << 20).await?;
    expect(&witness.told(), &[Event::UpdateContainer, Event::PostUpdateContainer])?;

    // A refusal reaches the kubelet; the pod is cleaned up, and runs when it is tried again.
    match kubelet.run(&LATER).await {
        Err(status) if status.message().contains("not the first time") => {}
        other => bail!("a refused pod led to {other:?}"),
    }
    let told = witness.told();
    let refused = [Event::RunPodSandbox, Event::StopPodSandbox, Event::RemovePodSandbox];
    expect(&told, &refused)?;
    ensure!(told.iter().all(|told| told.pod.uid == LATER.uid), "{told:?}");
    let later = kubelet.run(&Pod { attempt: 1, ..LATER }).await.context("try a pod again")?;
    expect(&witness.told(), &[Event::RunPodSandbox])?;
    kubelet.stop_pod(&later).await?;
    kubelet.remove_pod(&later).await?;
    expect(&witness.told(), &[Event::StopPodSandbox, Event::RemovePodSandbox])?;

    kubelet.stop(&container).await?;
    expect(&witness.told(), &[Event::StopContainer])?;
    kubelet.remove(&container).await?;
    expect(&witness.told(), &[Event::RemoveContainer])?;
    kubelet.stop_pod(&sandbox).await?;
    kubelet.remove_pod(&sandbox).await?;
    expect(&witness.told(), &[Event::StopPodSandbox, Event::RemovePodSandbox])?;
    println!("pods come and go as they should");
    Ok(())
}

fn described(pod: &PodSandbox, sandbox: &str) -> Result<()> {
    ensure!((&*pod.id, &*pod.uid) == (sandbox, WEB.uid), "{pod:?}");
    ensure!((&*pod.namespace, &*pod.name) == (WEB.namespace, WEB.name), "{pod:?}");
    ensure!(pod.labels.get("app").is_some_and(|app| app == "web"), "{pod:?}");
    ensure!(!pod.annotations.is_empty(), "{pod:?}");
    let parent = pod.cgroup_parent().context("the pod has no cgroup")?;
    ensure!(parent.ends_with(&WEB.slice()), "{parent}");
    let network = pod.network_namespace().context("the pod has no network namespace")?;
    ensure!(Path::new(network).exists(), "{network} does not exist while the plugin is asked");
    Ok(())
}

/// The container is where the plugin wanted it.
fn placed(container: &str) -> Result<()> {
    let mut path = Path::new("/sys/fs/cgroup").to_owned();
    let name = SLICE.strip_suffix(".slice").context("a slice")?;
    // systemd nests a slice below those that its name begins with.
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push(format!("{}.slice", &name[..end]));
    }
    path.push(format!("cri-containerd-{container}.scope"));
    let procs = path.join("cgroup.procs");
    let pids = fs::read_to_string(&procs).with_context(|| format!("read {}", procs.display()))?;
    ensure!(!pids.trim().is_empty(), "nobody is in {}", path.display());
    Ok(())
}

/// A plugin that is too slow: answered for, or dropped, as it asked; the pod runs all the same.
pub(crate) async fn late(runtime: &Containerd, witness: &Arc<Witness>) -> Result<()> {
    let mut kubelet = Kubelet::connect(&runtime.cri()).await?;
    for (attempt, when_late) in (0..).zip([WhenLate::Accept, WhenLate::Refuse, WhenLate::Wait]) {
        let mut plugin = Running::start(witness, &runtime.nri(), when_late)?;
        plugin.connected().await?;
        let (began, pod) = (Instant::now(), Pod { attempt, ..TIRED });
        let ran = kubelet.run(&pod).await;
        match (when_late, &ran) {
            (WhenLate::Refuse, Err(status)) => {
                ensure!(status.message().contains("did not answer in time"), "{status}");
            }
            (WhenLate::Accept | WhenLate::Wait, Ok(_)) => {}
            _ => bail!("{when_late:?}: {ran:?}"),
        }
        if when_late == WhenLate::Wait {
            let state = plugin.until(|it| matches!(it, State::Disconnected { .. })).await?;
            let State::Disconnected { reason, .. } = &state else { bail!("{state}") };
            let late = matches!(**reason, End::ClosedByRuntime { late: Some("RunPodSandbox") });
            ensure!(late, "{reason}");
        } else {
            let state = plugin.connected().await?;
            println!("{when_late:?}: still {state} after {:?}", began.elapsed());
        }
        if let Ok(sandbox) = ran {
            kubelet.stop_pod(&sandbox).await?;
            kubelet.remove_pod(&sandbox).await?;
        }
        sleep(Duration::from_secs(3)).await;
        plugin.connected().await?;
        plugin.stop().await?;
    }
    println!("a late plugin is treated as it asked");
    Ok(())
}

fn expect(told: &[Told], want: &[Event]) -> Result<()> {
    let events: Vec<Event> = told.iter().map(|told| told.event).collect();
    ensure!(events == want, "the plugin was told {events:?}, not {want:?}");
    Ok(())
}
