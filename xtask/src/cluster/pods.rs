//! Pods of the workload, and what they reach.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::kubernetes::Cluster;

/// A pod that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) node: String,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The page.
    Page(String),
    /// The kernel refused the call at once (EPERM).
    Refused,
    /// Something else; what the client said.
    Failed(String),
}

impl Answer {
    fn of(text: &str, status: &str) -> Self {
        match status.trim() {
            "0" => Self::Page(text.to_owned()),
            _ if text.contains("not permitted") => Self::Refused,
            _ => Self::Failed(text.to_owned()),
        }
    }
}

/// "team-a/web-x on node-1"
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.namespace, self.name, self.node)
    }
}

/// Where each of them answers.
pub(super) fn places(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(|pod| format!("{}:8080", pod.address)).collect()
}

/// Every running pod with these labels, by node.
pub(super) fn find(cluster: &Cluster, namespace: &str, labels: &str) -> Result<Vec<Pod>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName}\
                {\"\\n\"}{end}";
    let said = cluster.kubectl(&["get", "pods", "-n", namespace, "-l", labels, "-o", path])?;
    let mut pods = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, address, node] = words[..] else { continue };
        pods.push(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            node: node.to_owned(),
        });
    }
    pods.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(pods)
}

impl Pod {
    /// Runs a command in it.
    pub(super) fn exec(&self, cluster: &Cluster, words: &[&str]) -> Result<String> {
        let kubectl = ["exec", "-n", &self.namespace, &self.name, "--"];
        Ok(cluster.kubectl(&[&kubectl[..], words].concat())?.trim().to_owned())
    }

    /// Asks each place for its page, once and one after the other.
    pub(super) fn ask(&self, cluster: &Cluster, places: &[String]) -> Result<Vec<Answer>> {
        let ask =
            |place: &String| format!("wget -q -T 5 -O - http://{place}/ 2>&1; echo \" status $?\"");
        // One command for all: starting one in a pod of an emulated node takes seconds.
        let script = places.iter().map(ask).collect::<Vec<_>>().join("; ");
        let said = self.exec(cluster, &["sh", "-c", &script])?;
        let mut rest = said.as_str();
        let mut answers = Vec::new();
        while let Some((text, after)) = rest.split_once(" status ") {
            let (status, after) = after.split_once('\n').unwrap_or((after, ""));
            answers.push(Answer::of(text.trim(), status));
            rest = after;
        }
        ensure!(answers.len() == places.len(), "{} answers to {places:?}: {said}", answers.len());
        Ok(answers)
    }

    /// Asks one place once.
    pub(super) fn get(&self, cluster: &Cluster, place: &str) -> Result<Answer> {
        let mut answers = self.ask(cluster, &[place.to_owned()])?;
        answers.pop().context("no answer")
    }

    /// Asks until each place has given a page, which may take as long as a change needs to get
    /// around.
    pub(super) fn reaches(&self, cluster: &Cluster, places: &[String]) -> Result<Vec<String>> {
        let mut pages = Vec::new();
        let what = format!("{self} to reach {places:?}");
        cluster.wait(&what, Duration::from_secs(40), || {
            pages.clear();
            for (place, answer) in places.iter().zip(self.ask(cluster, places)?) {
                match answer {
                    Answer::Page(text) => pages.push(text),
                    other => anyhow::bail!("{place}: {other:?}"),
                }
            }
            Ok(true)
        })?;
        Ok(pages)
    }

    /// Asks once, and each is refused.
    pub(super) fn is_refused(&self, cluster: &Cluster, places: &[String]) -> Result<()> {
        for (place, answer) in places.iter().zip(self.ask(cluster, places)?) {
            let refused = answer == Answer::Refused;
            ensure!(refused, "{self} asked {place}, which should be refused: {answer:?}");
        }
        Ok(())
    }

    /// How many IP packets have come into its network namespace since it is there.
    pub(super) fn packets_received(&self, cluster: &Cluster) -> Result<u64> {
        let said = self.exec(cluster, &["cat", "/proc/net/snmp"])?;
        let mut lines = said.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next(), lines.next());
        let names = names.context("no names of IP counters")?.split(' ');
        let values = values.context("no values of IP counters")?.split(' ');
        let (_, value) = names
            .zip(values)
            .find(|(name, _)| *name == "InReceives")
            .context("no counter InReceives")?;
        value.parse().with_context(|| format!("InReceives {value:?}"))
    }
}
