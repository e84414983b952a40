//! What goes on while our own programs do not.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::install::{Installed, OURS, TEAMS};
use crate::cluster::pods::places;
use crate::cluster::probes::Probes;
use crate::test::faults::Extent;

/// How long something may take to be as it should again.
pub(super) const WAIT: Duration = Duration::from_mins(3);

/// An agent that is killed takes no verdict with it, and comes back.
pub(crate) fn agent_death_opens_nothing(on: &Installed<'_>) -> Result<()> {
    let probes = Probes::start(on)?;
    for node in on.cluster.nodes() {
        let pid = node.run(&["pidof", "bulkhead-agent"])?;
        node.run(&["kill", "-9", pid.trim()])?;
        on.cluster.wait("another agent", WAIT, || {
            let now = node.run(&["pidof", "bulkhead-agent"])?;
            Ok(!now.trim().is_empty() && now != pid)
        })?;
    }
    agents_are_ready(on)?;
    probes.end(5)
}

/// Agents replaced one node after the other, as an upgrade does: no gap in either direction.
pub(crate) fn a_rollout_opens_nothing(on: &Installed<'_>) -> Result<()> {
    let probes = Probes::start(on)?;
    on.cluster.kubectl(&["rollout", "restart", "daemonset", "bulkhead-agent", "-n", OURS])?;
    let status = ["rollout", "status", "daemonset", "bulkhead-agent", "-n", OURS, "--timeout=6m"];
    on.cluster.kubectl(&status)?;
    probes.end(10)
}

/// With no API server and no etcd verdicts stand, and so do connections that were allowed.
pub(crate) fn api_server_away(on: &Installed<'_>) -> Result<()> {
    let probes = Probes::start(on)?;
    on.cluster.stop("kube-apiserver")?;
    thread::sleep(AWAY);
    on.cluster.resume("kube-apiserver")?;
    on.cluster.wait("the API server", WAIT, || {
        Ok(on.cluster.kubectl(&["get", "--raw", "/readyz"])? == "ok")
    })?;
    probes.end(10)?;
    TEAMS.iter().try_for_each(|team| on.wait_condition(team, "Enforced", "True"))
}

/// A runtime that starts again tells its plugins of every pod anew: a later pod is a member, too.
pub(crate) fn containerd_restarts(on: &Installed<'_>) -> Result<()> {
    let probes = Probes::start(on)?;
    let node = on.cluster.nodes().first().context("no node")?;
    node.run(&["systemctl", "restart", "containerd"])?;
    on.cluster.wait_nodes_ready(on.cluster.nodes().len())?;
    on.cluster.wait("the agent to have its runtime again", WAIT, || {
        let agents = on.agents()?;
        let agent = agents.iter().find(|agent| agent.node == node.name()).context("no agent")?;
        let status = agent.exec(on.cluster, &["/usr/bin/bulkhead-agent", "status"])?;
        Ok(status.contains("runtime containerd"))
    })?;
    probes.end(5)?;
    super::identity::starts(on, on.cluster.nodes().len())
}

/// How long the API server is away: longer than any time-out of a watch or a lease that is ours.
const AWAY: Duration = Duration::from_secs(40);

fn agents_are_ready(on: &Installed<'_>) -> Result<()> {
    let nodes = on.cluster.nodes().len();
    on.cluster.wait_pods_ready(OURS, "app.kubernetes.io/name=bulkhead-agent", nodes)
}

/// With no controller, verdicts stand and a new pod becomes a member.
pub(crate) fn controller_away(on: &Installed<'_>) -> Result<()> {
    let scale = |replicas: &str| {
        on.cluster.kubectl(&["scale", "statefulset", "bulkhead-controller", "-n", OURS, replicas])
    };
    scale("--replicas=0")?;
    on.cluster.wait("the controller to be gone", WAIT, || {
        let label = "app.kubernetes.io/name=bulkhead-controller";
        Ok(on.cluster.kubectl(&["get", "pods", "-n", OURS, "-l", label, "-o", "name"])?.is_empty())
    })?;
    let gone = on.web(TEAMS[0])?.remove(0);
    on.cluster.kubectl(&["delete", "pod", "-n", TEAMS[0], &gone.name])?;
    on.cluster.wait("the pod's successor", WAIT, || {
        let pods = on.web(TEAMS[0])?;
        Ok(pods.len() == on.cluster.nodes().len()
            && pods.iter().all(|pod| pod.name != gone.name && !pod.address.is_empty()))
    })?;
    on.cluster.wait_pods_ready(TEAMS[0], "app=web", on.cluster.nodes().len())?;
    let fresh = on.web(TEAMS[0])?;
    let fresh = fresh.iter().find(|pod| pod.node == gone.node).context("no successor")?;
    fresh.is_refused(on.cluster, &places(&on.web(TEAMS[1])?))?;
    scale("--replicas=1")?;
    on.cluster.wait_pods_ready(OURS, "app.kubernetes.io/name=bulkhead-controller", 1)?;
    TEAMS.iter().try_for_each(|team| on.wait_condition(team, "Enforced", "True"))
}

/// Many pods come and go; nodes know no more members than before.
pub(crate) fn pods_come_and_go(on: &Installed<'_>) -> Result<()> {
    let members = || on.registered();
    let before = members()?;
    let count = if on.extent == Extent::Full { 200 } else { 12 };
    on.cluster.apply(&CHURN.replace("COUNT", &count.to_string()))?;
    on.cluster.wait_pods_ready(TEAMS[1], "app=churn", count)?;
    on.cluster.wait("new pods to be members", WAIT, || Ok(members()? != before))?;
    on.cluster.kubectl(&["delete", "deployment", "churn", "-n", TEAMS[1]])?;
    on.cluster.wait("members to be as before", WAIT, || {
        let now = members()?;
        ensure!(now == before, "{now:?} instead of {before:?}");
        Ok(true)
    })
}

/// Pods that do nothing, of the second team.
const CHURN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn, namespace: team-b}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: idle, image: localhost/busybox:1, imagePullPolicy: Never, command: [sleep, \"100000\"]}
";
