//! Pods of the workload, and what they reach.

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

    /// Asks for a page once.
    pub(super) fn get(&self, cluster: &Cluster, place: &str) -> Result<Answer> {
        let script = format!("wget -q -T 5 -O - http://{place}/ 2>&1; echo \" status $?\"");
        let said = self.exec(cluster, &["sh", "-c", &script])?;
        let (text, status) = said.rsplit_once(" status ").context("the client says no status")?;
        let text = text.trim();
        Ok(match status {
            "0" => Answer::Page(text.to_owned()),
            _ if text.contains("not permitted") => Answer::Refused,
            _ => Answer::Failed(text.to_owned()),
        })
    }

    /// Asks until there is a page, which may take as long as a change needs to get around.
    pub(super) fn reaches(&self, cluster: &Cluster, place: &str) -> Result<String> {
        let mut page = String::new();
        let what = format!("{}/{} on {} to reach {place}", self.namespace, self.name, self.node);
        cluster.wait(&what, Duration::from_secs(40), || match self.get(cluster, place)? {
            Answer::Page(text) => {
                page = text;
                Ok(true)
            }
            other => anyhow::bail!("{other:?}"),
        })?;
        Ok(page)
    }

    /// Asks once, and that is refused.
    pub(super) fn is_refused(&self, cluster: &Cluster, place: &str) -> Result<()> {
        let answer = self.get(cluster, place)?;
        ensure!(
            answer == Answer::Refused,
            "{}/{} on {} asked {place}, which should be refused: {answer:?}",
            self.namespace,
            self.name,
            self.node
        );
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
