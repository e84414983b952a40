//! What operators ask, over the API server's forwarded port and with a token that it minted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::install::{Installed, TEAMS};
use crate::cluster::pods::places;
use crate::lab::kubernetes::Node;

/// How long windows of usage may take to be journaled, sent and merged.
const WAIT: Duration = Duration::from_mins(4);

/// As vCluster's chart makes one, but for its programs.
const VCLUSTER: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: vcluster-dev}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: dev
  namespace: vcluster-dev
  labels: {app: vcluster, release: dev}
spec:
  serviceName: dev-headless
  replicas: 0
  selector: {matchLabels: {app: vcluster, release: dev}}
  template:
    metadata:
      labels: {app: vcluster, release: dev}
    spec:
      containers:
      - {name: syncer, image: localhost/busybox:1, imagePullPolicy: Never}
";

/// Rights of a team on its own virtual cluster, as docs/trust.md gives them.
const VIEWER: &str = "\
apiVersion: v1
kind: ServiceAccount
metadata: {name: viewer, namespace: team-a}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: team-a-viewer}
rules:
- apiGroups: [bulkhead.dev]
  resources: [virtualclusters]
  resourceNames: [team-a]
  verbs: [get]
- apiGroups: [bulkhead.dev]
  resources: [virtualclusters/usage]
  resourceNames: [team-a]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: team-a-viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: team-a-viewer}
subjects:
- {kind: ServiceAccount, name: viewer, namespace: team-a}
";

/// Every node is there, and nothing about it keeps the agent from running.
pub(crate) fn preflight_knows_the_nodes(on: &Installed<'_>) -> Result<()> {
    let told = on.preflight()?;
    let names: Vec<&str> = list(&told, "nodes").filter_map(|node| node["name"].as_str()).collect();
    let wanted: Vec<String> = on.cluster.nodes().iter().map(Node::name).collect();
    ensure!(names == wanted, "told are {names:?}");
    for node in list(&told, "nodes") {
        ensure!(node["level"] != "CannotInstall", "{node}");
        ensure!(node["from_agent"] == true, "no agent speaks for {node}");
    }
    Ok(())
}

/// What it prints can be applied as it is.
pub(crate) fn discover_finds_a_vcluster(on: &Installed<'_>) -> Result<()> {
    on.cluster.apply(VCLUSTER)?;
    let found = on.ctl(&["discover"])?;
    ensure!(found.contains("vcluster-dev"), "{found}");
    on.cluster.apply(&found)?;
    let names = on.cluster.kubectl(&["get", "virtualclusters", "-o", "name"])?;
    let made = names.lines().find(|name| !TEAMS.iter().any(|team| name.ends_with(team)));
    let made = made.with_context(|| format!("no VirtualCluster was made of {found}"))?;
    on.cluster.kubectl(&["delete", made])?;
    on.cluster.kubectl(&["delete", "namespace", "vcluster-dev", "--wait=false"]).map(drop)
}

/// Team-a asks team-b's pods while it is observed: `enforce` shows that before it asks.
pub(crate) fn what_would_be_refused_is_told(on: &Installed<'_>) -> Result<()> {
    let (from, others) = (on.web(TEAMS[0])?.remove(0), places(&on.web(TEAMS[1])?));
    on.cluster.wait("what would be refused to be told", WAIT, || {
        from.ask(on.cluster, &others)?;
        let told = on.ctl_json(&["enforce", TEAMS[0], "--dry-run"])?;
        let one = list(&told, "virtual_clusters").next().context("nothing is told")?;
        ensure!(one["outcome"] == "DryRun", "{one}");
        let is_other = |flow: &&Value| flow["direction"] == "Egress" && flow["class"] == "Other";
        let flow = list(&one["would_deny"], "flows").find(is_other);
        ensure!(
            flow.is_some_and(|flow| flow["would_deny_packets"].as_u64() > Some(0)),
            "no packet to another's pods in {one}"
        );
        Ok(true)
    })
}

/// `kubectl get bvc`: mode, pods and nodes as they are.
pub(crate) fn columns_are_true(on: &Installed<'_>) -> Result<()> {
    // kubectl keeps for ten minutes what kinds there are; this asks anew.
    on.cluster.kubectl(&["api-resources", "--api-group=bulkhead.dev"])?;
    let table = on.cluster.kubectl(&["get", "bvc"])?;
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().context("no header")?.split_whitespace().collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    for team in TEAMS {
        let pods = on.web(team)?.len() + on.quiet(team)?.len();
        let row = rows.iter().find(|row| row[0] == team).with_context(|| table.clone())?;
        let of = |name: &str| header.iter().position(|word| *word == name).map(|at| row[at]);
        ensure!(of("MODE") == Some("Enforce"), "{table}");
        ensure!(of("PODS") == Some(pods.to_string().as_str()), "{table}");
        ensure!(of("READY") == Some("True") && of("ENFORCED") == Some("True"), "{table}");
    }
    Ok(())
}

/// `usage` and `top` know CPU time, memory and packets of both teams.
pub(crate) fn usage_is_told(on: &Installed<'_>) -> Result<()> {
    for team in TEAMS {
        on.cluster.wait("usage to be told", WAIT, || {
            let told = on.ctl_json(&["usage", team, "--since", "30m"])?;
            let row = list(&told, "rows").next().context("no row")?;
            for (meter, value) in [
                ("CPU time", &row["cpu"]["usage_nanoseconds"]),
                ("memory", &row["memory"]["byte_seconds"]),
                ("processes", &row["pids"]["peak"]),
            ] {
                ensure!(value.as_u64() > Some(0), "no {meter} of {team}: {row}");
            }
            let passed = |class: &str| {
                list(&row["network"], "classes")
                    .filter(|one| one["class"] == class)
                    .filter_map(|one| one["passed_packets"].as_u64())
                    .sum::<u64>()
            };
            ensure!(passed("Own") > 0, "no packet of {team} to its own: {row}");
            let refused = list(&row["network"], "classes")
                .filter(|one| one["class"] == "Other")
                .filter_map(|one| one["denied_connects"].as_u64())
                .sum::<u64>();
            ensure!(refused > 0, "no refused call of {team}: {row}");
            Ok(true)
        })?;
    }
    let top = on.ctl_json(&["top", "--once"])?;
    for team in TEAMS {
        let one = list(&top, "virtual_clusters").find(|one| one["virtual_cluster"] == team);
        let one = one.with_context(|| format!("top shows no {team}: {top}"))?;
        ensure!(one["memory_bytes"].as_u64() > Some(0), "{one}");
        ensure!(one["nodes"].as_u64() == u64::try_from(on.cluster.nodes().len()).ok(), "{one}");
    }
    Ok(())
}

/// With the rights of one team, the other one is not there.
pub(crate) fn a_team_sees_its_own(on: &Installed<'_>) -> Result<()> {
    on.cluster.apply(VIEWER)?;
    let as_team = ["--service-account", "team-a/viewer"];
    let told = on.ctl_json(&[&["usage"], &as_team[..]].concat())?;
    let names: Vec<&str> =
        list(&told, "rows").filter_map(|row| row["virtual_cluster"].as_str()).collect();
    ensure!(names == [TEAMS[0]], "a team sees {names:?}");
    for refused in [&["usage", TEAMS[1]][..], &["get", "nodes"]] {
        let answer = on.ctl(&[refused, &as_team[..]].concat());
        let Err(error) = answer else { anyhow::bail!("{refused:?} was answered: {answer:?}") };
        ensure!(format!("{error:#}").contains("_HIDDEN"), "{refused:?}: {error:#}");
    }
    Ok(())
}

/// The way back: everything passes again, and then it is refused again.
pub(crate) fn off_and_back(on: &Installed<'_>) -> Result<()> {
    on.ctl(&["off", "--all", "--wait", "2m"])?;
    let from = on.web(TEAMS[0])?.remove(0);
    from.reaches(on.cluster, &places(&on.web(TEAMS[1])?))?;
    super::enforce::stands(on)?;
    super::enforce::other_traffic_is_refused(on)
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}
