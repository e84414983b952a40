//! The first minutes: everything is there, every pod is known, nothing is broken.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::install::{Installed, OURS, PLAIN, TEAMS};
use crate::cluster::pods::{Answer, places};

/// Our pods are ready on every node, and the columns of `kubectl get bvc` are true.
pub(crate) fn is_installed(on: &Installed<'_>) -> Result<()> {
    let nodes = on.cluster.nodes().len();
    on.cluster.wait_pods_ready(OURS, "app.kubernetes.io/name=bulkhead-controller", 1)?;
    on.cluster.wait_pods_ready(OURS, "app.kubernetes.io/name=bulkhead-agent", nodes)?;
    for team in TEAMS {
        on.wait_condition(team, "Ready", "True")?;
        on.wait_condition(team, "Enforced", "False")?;
    }
    Ok(())
}

/// Pods that ran before Bulkhead did are members: the controller counts them, and the agents have
/// registered each on its node.
pub(crate) fn every_pod_is_registered(on: &Installed<'_>) -> Result<()> {
    for team in TEAMS {
        let pods = on.web(team)?.len() + on.quiet(team)?.len();
        on.cluster.wait("the pods of a virtual cluster to be counted", WAIT, || {
            let counted = on.field(&["virtualcluster", team], "{.status.pods}")?;
            ensure!(counted == pods.to_string(), "{team} has {pods} pods, told are {counted:?}");
            let registered = on.registered()?;
            let known: usize = registered.iter().filter_map(|node| node.get(team)).sum();
            ensure!(known == pods, "{team} has {pods} pods, registered are {registered:?}");
            Ok(true)
        })?;
    }
    Ok(())
}

/// How long what is known may take to get around.
const WAIT: Duration = Duration::from_mins(1);

/// A new virtual cluster observes: everybody reaches everybody.
pub(crate) fn observe_breaks_nothing(on: &Installed<'_>) -> Result<()> {
    let mut all = Vec::new();
    for namespace in [TEAMS[0], TEAMS[1], PLAIN] {
        all.extend(on.web(namespace)?);
    }
    for from in on.web(TEAMS[0])? {
        for (to, answer) in all.iter().zip(from.ask(on.cluster, &places(&all))?) {
            ensure!(answer == Answer::Page(to.name.clone()), "{from} asked {to}: {answer:?}");
        }
    }
    Ok(())
}
