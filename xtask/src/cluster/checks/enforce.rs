//! Enforce: own traffic flows, other traffic is refused, everything else goes on.

use anyhow::{Result, ensure};

use super::faults::WAIT;
use crate::cluster::install::{Installed, PLAIN, TEAMS};
use crate::cluster::pods::{Answer, places};

/// How many requests nobody may receive a packet of.
const TRIES: usize = 5;

/// Both virtual clusters are set to Enforce, and say that they are enforced.
pub(crate) fn stands(on: &Installed<'_>) -> Result<()> {
    let told = on.ctl_json(&["enforce", TEAMS[0], TEAMS[1], "--yes", "--wait", "2m"])?;
    for team in TEAMS {
        let all = told["virtual_clusters"].as_array();
        let one = all.into_iter().flatten().find(|one| one["name"] == team);
        ensure!(one.is_some_and(|one| one["outcome"] == "Applied"), "{team}: {told}");
    }
    TEAMS.iter().try_for_each(|team| on.wait_condition(team, "Enforced", "True"))
}

/// By pod address, by Service address, by node port and by name, across nodes.
pub(crate) fn own_traffic_flows(on: &Installed<'_>) -> Result<()> {
    for team in TEAMS {
        let pods = on.web(team)?;
        let mut all = places(&pods);
        all.extend(service(on, team)?);
        all.extend(["web".to_owned(), format!("web.{team}.svc.cluster.local")]);
        for from in &pods {
            let pages = from.reaches(on.cluster, &all)?;
            for (to, page) in pods.iter().zip(&pages) {
                ensure!(*page == to.name, "{from} got {page:?} from {to}");
            }
            for (place, page) in all.iter().zip(&pages).skip(pods.len()) {
                ensure!(pods.iter().any(|pod| pod.name == *page), "{page:?} from {place}");
            }
        }
    }
    Ok(())
}

/// By pod address on the same and on another node, by Service address and by node port.
pub(crate) fn other_traffic_is_refused(on: &Installed<'_>) -> Result<()> {
    for (own, other) in [(TEAMS[0], TEAMS[1]), (TEAMS[1], TEAMS[0])] {
        let mut all = places(&on.web(other)?);
        all.extend(service(on, other)?);
        on.web(own)?.iter().try_for_each(|from| from.is_refused(on.cluster, &all))?;
    }
    Ok(())
}

/// Where a team's Service is: its cluster address, and its port on each node.
pub(super) fn service(on: &Installed<'_>, team: &str) -> Result<Vec<String>> {
    let of = |path: &str| on.field(&["service", "web", "-n", team], path);
    let (address, port) = (of("{.spec.clusterIP}")?, of("{.spec.ports[0].nodePort}")?);
    let nodes = on.cluster.nodes().iter().map(|node| format!("{}:{port}", node.address()));
    Ok([address].into_iter().chain(nodes).collect())
}

/// Receivers that nobody may talk with see not one packet more.
pub(crate) fn nothing_arrives(on: &Installed<'_>) -> Result<()> {
    let receivers = on.quiet(TEAMS[1])?;
    let before: Vec<u64> =
        receivers.iter().map(|pod| pod.packets_received(on.cluster)).collect::<Result<_>>()?;
    for from in on.web(TEAMS[0])? {
        for to in &receivers {
            let script = format!(
                "for i in $(seq {TRIES}); do wget -q -T 1 -O - http://{0}:8080/; \
                 echo x | nc -u -w 1 {0} 9; done >/dev/null 2>&1; true",
                to.address
            );
            from.exec(on.cluster, &["sh", "-c", &script])?;
        }
    }
    for (pod, before) in receivers.iter().zip(before) {
        let after = pod.packets_received(on.cluster)?;
        ensure!(after == before, "{} packets arrived at {}", after - before, pod.name);
    }
    Ok(())
}

/// Pods of no virtual cluster reach each other, and members reach them and back.
pub(crate) fn plain_pods_are_untouched(on: &Installed<'_>) -> Result<()> {
    let (plain, member) = (on.web(PLAIN)?, on.web(TEAMS[0])?);
    let all: Vec<_> = plain.iter().chain(&member).cloned().collect();
    for from in &all {
        for (to, page) in all.iter().zip(from.reaches(on.cluster, &places(&all))?) {
            ensure!(page == to.name, "{from} got {page:?} from {to}");
        }
    }
    Ok(())
}

/// Who is closed to pods of no virtual cluster neither reaches them nor is reached, until it is open
/// again; its own traffic goes on.
pub(crate) fn who_is_closed_to_plain_pods_reaches_none(on: &Installed<'_>) -> Result<()> {
    let (plain, own) = (on.web(PLAIN)?, on.web(TEAMS[0])?);
    let say = |unknown: &str| {
        let patch = format!("{{\"spec\": {{\"network\": {{\"unknown\": {unknown}}}}}}}");
        on.cluster.kubectl(&["patch", "virtualcluster", TEAMS[0], "--type=merge", "-p", &patch])
    };
    say("\"Deny\"")?;
    let closed = || {
        own.iter().try_for_each(|from| from.is_refused(on.cluster, &places(&plain)))?;
        Ok(true)
    };
    on.cluster.wait("a virtual cluster to be closed to plain pods", WAIT, closed)?;
    for from in &plain {
        let answers = from.ask(on.cluster, &places(&own))?;
        let none = answers.iter().all(|answer| !matches!(answer, Answer::Page(_)));
        ensure!(none, "{from} reached {}: {answers:?}", TEAMS[0]);
    }
    for from in &own {
        from.reaches(on.cluster, &places(&own))?;
    }
    for from in on.web(TEAMS[1])? {
        from.reaches(on.cluster, &places(&plain))?;
    }
    say("null")?;
    plain_pods_are_untouched(on)
}

/// The kubelet's probes go on, and so do names and the API server.
pub(crate) fn probes_stay_up(on: &Installed<'_>) -> Result<()> {
    let nodes = on.cluster.nodes().len();
    for team in TEAMS {
        on.cluster.wait_pods_ready(team, "app=web", nodes)?;
        for pod in on.web(team)? {
            let script = "nc -w 10 kubernetes.default 443 </dev/null && echo reached";
            let said = pod.exec(on.cluster, &["sh", "-c", script])?;
            ensure!(said == "reached", "{} cannot reach the API server: {said}", pod.name);
            let restarts = on.field(
                &["pod", &pod.name, "-n", team],
                "{.status.containerStatuses[0].restartCount}",
            )?;
            ensure!(restarts == "0", "{} was restarted {restarts} times", pod.name);
        }
    }
    let answer = on.web(TEAMS[0])?[0].get(on.cluster, "kube-dns.kube-system:53")?;
    // It is no web server: what counts is that it is not kept from us.
    ensure!(answer != Answer::Refused, "the resolver is refused");
    Ok(())
}
