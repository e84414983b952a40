//! Prints the pods and containers of this node as they come and go.
//!
//! `log_pods [SOCKET [INDEX]]`; needs the right to connect to the runtime's socket. With the
//! variable `RUST_LOG=debug`, also what happens to the connection.

use std::sync::Arc;

use anyhow::Context;
use bulkhead_nri::messages::{Container, ContainerUpdate, PodSandbox};
use bulkhead_nri::{Event, EventMask, Options, Plugin, PluginName, Refusal, RuntimeInfo, State};
use tokio::sync::watch;

struct LogPods;

impl Plugin for LogPods {
    fn events(&self, _: &RuntimeInfo) -> EventMask {
        EventMask::of(&[
            Event::RunPodSandbox,
            Event::StopPodSandbox,
            Event::RemovePodSandbox,
            Event::PostStartContainer,
            Event::StopContainer,
        ])
    }

    async fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> Vec<ContainerUpdate> {
        for pod in &pods {
            println!("exists  {}", described(pod));
            let inside = containers.iter().filter(|container| container.pod_sandbox_id == pod.id);
            for container in inside {
                println!("        {} in {}", container.name, place(container));
            }
        }
        Vec::new()
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Refusal> {
        println!("runs    {}", described(&pod));
        Ok(())
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        println!("stops   {}", described(&pod));
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        println!("removed {}", described(&pod));
    }

    async fn post_start_container(&self, pod: PodSandbox, container: Container) {
        println!("starts  {} of {} in {}", container.name, described(&pod), place(&container));
    }

    async fn stop_container(&self, pod: PodSandbox, container: Container) -> Vec<ContainerUpdate> {
        println!("ends    {} of {}", container.name, described(&pod));
        Vec::new()
    }
}

fn described(pod: &PodSandbox) -> String {
    let network = pod.network_namespace().unwrap_or("the host's network");
    format!("{}/{} ({}; {network})", pod.namespace, pod.name, pod.uid)
}

fn place(container: &Container) -> &str {
    container.cgroups_path().unwrap_or("an unknown cgroup")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next();
    let index = arguments.next().map_or(Ok(99), |index| index.parse()).context("read INDEX")?;
    let mut options = Options::new(PluginName::new("log-pods", index)?);
    if let Some(socket) = socket {
        options.socket = socket.into();
    }
    let (state, mut watched) = watch::channel(State::Connecting);
    let stop = async {
        // Without signals there is no other end than being killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let watch = tokio::spawn(async move {
        while watched.changed().await.is_ok() {
            eprintln!("{}", *watched.borrow_and_update());
        }
    });
    bulkhead_nri::run_with_reconnect(&Arc::new(LogPods), &options, &state, stop).await;
    drop(state);
    watch.await.context("watch the connection")
}
