//! `preflight`: asks the API server, and the controller where there is one.

use std::collections::BTreeSet;
use std::process::ExitCode;

use jiff::Zoned;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::api::{Api, PartialObjectMeta};

use super::Session;
use crate::args::{Global, Output};
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::help::CalledAs;
use crate::out;
use crate::preflight::{Facts, Level, NodeFacts, Server, report};
use crate::render::{self, Look};
use crate::view::node::Node;

/// Where plugins put their pods, if no `DaemonSet` makes them.
const SYSTEM: &str = "kube-system";

/// Asks, decides and writes.
pub(crate) async fn run(global: &Global) -> Result<ExitCode, CliError> {
    let cluster = Cluster::open(global).await?;
    let nodes = cluster.list("nodes", &Api::<core::Node>::all(cluster.client())).await?;
    let facts = Facts {
        server: server(&cluster).await?,
        nodes: nodes.into_iter().map(node).collect(),
        workloads: workloads(&cluster).await?,
        agents: agents(global).await,
    };
    let report = report(&facts);
    let look = Look { now: Zoned::now(), wide: global.output == Output::Wide, details: false };
    out::write(&render::document(&report, global.output, &look)?)?;
    Ok(ExitCode::from(status(report.level)))
}

/// The exit status that scripts look at.
fn status(level: Level) -> u8 {
    match level {
        Level::Good | Level::Note => 0,
        Level::NotEnforced => 1,
        Level::CannotInstall => 2,
    }
}

async fn server(cluster: &Cluster) -> Result<Server, CliError> {
    let client = cluster.client();
    let version =
        cluster.answer("get the API server's version", client.apiserver_version()).await?;
    let groups = cluster.answer("list API groups", client.list_api_groups()).await?;
    let groups = groups.map(|list| list.groups).unwrap_or_default();
    let mut has_policies = false;
    for version in versions(&groups, "admissionregistration.k8s.io") {
        let resources = client.list_api_group_resources(&version);
        let resources = cluster.answer("list admission kinds", resources).await?;
        let resources = resources.into_iter().flat_map(|list| list.resources);
        has_policies |= resources.into_iter().any(|it| it.name == "validatingadmissionpolicies");
    }
    let has = |group: &str| versions(&groups, group).iter().any(|version| version.ends_with("/v1"));
    Ok(Server {
        version: version.map(|info| info.git_version).unwrap_or_default(),
        has_definitions: has("apiextensions.k8s.io"),
        has_slices: has("discovery.k8s.io"),
        has_policies,
    })
}

fn versions(groups: &[APIGroup], name: &str) -> Vec<String> {
    let group = groups.iter().filter(|group| group.name == name);
    group.flat_map(|group| &group.versions).map(|it| it.group_version.clone()).collect()
}

async fn workloads(cluster: &Cluster) -> Result<BTreeSet<String>, CliError> {
    let sets = Api::<DaemonSet>::all(cluster.client());
    let pods = Api::<core::Pod>::namespaced(cluster.client(), SYSTEM);
    let sets = cluster.list_metadata("daemonsets", &sets).await?;
    let pods = cluster.list_metadata("pods of kube-system", &pods).await?;
    let sets = sets.into_iter().filter_map(name);
    Ok(sets.chain(pods.into_iter().filter_map(name)).collect())
}

fn name<K>(object: PartialObjectMeta<K>) -> Option<String> {
    object.metadata.name
}

async fn agents(global: &Global) -> Result<Vec<Node>, String> {
    let nodes = async {
        let session = Session::open(global, CalledAs::KubectlPlugin).await?;
        session.client.nodes().await
    };
    let nodes = nodes.await.map_err(|error: CliError| error.to_string())?;
    Ok(nodes.into_iter().map(Node::from).collect())
}

fn node(node: core::Node) -> NodeFacts {
    let info = node.status.and_then(|status| status.node_info);
    let annotations = node.metadata.annotations.unwrap_or_default();
    let facts = NodeFacts {
        name: node.metadata.name.unwrap_or_default(),
        annotations: annotations.into_keys().collect(),
        ..NodeFacts::default()
    };
    let Some(info) = info else { return facts };
    NodeFacts {
        kernel: info.kernel_version,
        runtime: info.container_runtime_version,
        kubelet: info.kubelet_version,
        os: info.operating_system,
        architecture: info.architecture,
        ..facts
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::GroupVersionForDiscovery;

    use super::*;

    #[test]
    fn what_is_only_worth_knowing_is_no_failure() {
        let levels = [Level::Good, Level::Note, Level::NotEnforced, Level::CannotInstall];
        assert_eq!(levels.map(status), [0, 0, 1, 2]);
    }

    #[test]
    fn versions_of_a_group_are_its_own() {
        let group = |name: &str, version: &str| APIGroup {
            name: name.to_owned(),
            versions: vec![GroupVersionForDiscovery {
                group_version: format!("{name}/{version}"),
                version: version.to_owned(),
            }],
            ..Default::default()
        };
        let groups = [group("discovery.k8s.io", "v1beta1"), group("apps", "v1")];
        assert_eq!(versions(&groups, "discovery.k8s.io"), ["discovery.k8s.io/v1beta1"]);
        assert_eq!(versions(&groups, "policy"), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_said_nothing_yet_has_a_name() {
        let metadata = kube::api::ObjectMeta { name: Some("n".to_owned()), ..Default::default() };
        let facts = node(core::Node { metadata, ..Default::default() });
        assert_eq!(facts, NodeFacts { name: "n".to_owned(), ..Default::default() });
    }
}
