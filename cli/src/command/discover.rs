//! `discover`: virtual clusters of other projects, as objects to be created.

use std::process::ExitCode;

use bulkhead_api::VirtualCluster;
use bulkhead_api::discover::{Proposal, Seen, Workload, discover, to_yaml};
use bulkhead_api::membership::Namespace;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PartialObjectMeta};
use serde_json::{Value, json};

use crate::args::{Global, Output};
use crate::cluster::Cluster;
use crate::error::{CliError, Kind};
use crate::{out, units};

const OPERATION: &str = "discover";

/// Asks and writes; nothing in the cluster is changed.
pub(crate) async fn run(global: &Global) -> Result<ExitCode, CliError> {
    let cluster = Cluster::open(global).await?;
    let client = || cluster.client();
    let namespaces: Vec<core::Namespace> = cluster
        .list_metadata("namespaces", &Api::<core::Namespace>::all(client()))
        .await?
        .into_iter()
        .map(|it| core::Namespace { metadata: it.metadata, ..Default::default() })
        .collect();
    let namespaces: Vec<Namespace> = namespaces.iter().map(Namespace::of).collect();
    let pods = cluster.list_metadata("pods", &Api::<core::Pod>::all(client())).await?;
    let sets = cluster.list_metadata("statefulsets", &Api::<StatefulSet>::all(client())).await?;
    let deployments =
        cluster.list_metadata("deployments", &Api::<Deployment>::all(client())).await?;
    // What makes pods first: it is there when its pods are not.
    let workloads: Vec<Workload> = (sets.into_iter().map(|it| workload("StatefulSet", it)))
        .chain(deployments.into_iter().map(|it| workload("Deployment", it)))
        .chain(pods.into_iter().map(|it| workload("Pod", it)))
        .collect();
    let described = described(&cluster).await?;
    let seen = Seen { namespaces: &namespaces, workloads: &workloads, described: &described };
    let proposals = discover(&seen);
    if proposals.is_empty() {
        out::note(&format!(
            "nothing found that is not described yet, in {} namespaces; docs/api.md has how to \
             describe one by its namespaces",
            namespaces.len()
        ));
    }
    out::write(&text(&proposals, global.output)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Virtual clusters that are there already.
async fn described(cluster: &Cluster) -> Result<Vec<VirtualCluster>, CliError> {
    let mut understood = Vec::new();
    for object in cluster.list("virtualclusters", &cluster.virtual_clusters()).await? {
        let name = object.metadata.name.clone().unwrap_or_default();
        let value = serde_json::to_value(object);
        match value.and_then(serde_json::from_value) {
            Ok(object) => understood.push(object),
            Err(error) => out::note(&format!(
                "VirtualCluster \"{name}\" is of another version, and what it describes may be \
                 proposed again: {error}"
            )),
        }
    }
    Ok(understood)
}

fn workload<K>(kind: &'static str, object: PartialObjectMeta<K>) -> Workload {
    let metadata = object.metadata;
    Workload {
        kind,
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
    }
}

/// YAML with comments, unless another format is asked for.
fn text(proposals: &[Proposal], output: Output) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::new(Kind::Output, OPERATION, error);
    match output {
        Output::Table | Output::Yaml => to_yaml(proposals).map_err(|error| failed(&error)),
        Output::Json => {
            let objects: Result<Vec<Value>, _> =
                proposals.iter().map(|it| serde_json::to_value(&it.object)).collect();
            let items = objects.map_err(|error| failed(&error))?;
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            let list = serde_json::to_string_pretty(&list).map_err(|error| failed(&error))?;
            Ok(list + "\n")
        }
        Output::Csv => {
            let problem = "an object is no record";
            Err(CliError::new(Kind::Usage, OPERATION, problem).mended_by("write -o wide or yaml"))
        }
        Output::Wide => {
            let line = |it: &Proposal| {
                let name = it.object.metadata.name.clone().unwrap_or_default();
                format!("{name}: {}\n", units::plain(&it.found))
            };
            Ok(proposals.iter().map(line).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::marker::PhantomData;

    use super::*;

    fn proposals() -> Vec<Proposal> {
        let labels = BTreeMap::from(
            [("app", "vcluster"), ("release", "dev")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let metadata = kube::api::ObjectMeta {
            name: Some("dev".to_owned()),
            namespace: Some("team-a".to_owned()),
            labels: Some(labels),
            ..Default::default()
        };
        let set = PartialObjectMeta::<StatefulSet> { metadata, types: None, _phantom: PhantomData };
        let workloads = [workload("StatefulSet", set)];
        let namespaces = [Namespace::named("team-a")];
        discover(&Seen { namespaces: &namespaces, workloads: &workloads, described: &[] })
    }

    #[test]
    fn objects_are_yaml_with_how_each_was_found() {
        insta::assert_snapshot!(text(&proposals(), Output::Table).expect("YAML"));
    }

    #[test]
    fn json_is_one_list_that_kubectl_takes() {
        let text = text(&proposals(), Output::Json).expect("JSON");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"][0]["spec"]["network"]["mode"], "Observe");
        assert_eq!(list["items"][0]["metadata"]["name"], "dev");
    }

    #[test]
    fn wide_is_one_line_for_each() {
        let text = text(&proposals(), Output::Wide).expect("lines");
        assert!(text.starts_with("dev: VCluster team-a/dev, found by StatefulSet"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
