//! `off`: the break-glass. It needs the API server and nothing else; what the nodes made of it is
//! asked of the controller where there is one.

use std::process::ExitCode;

use bulkhead_api::object::Mode;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DynamicObject};
use tokio::time::Instant;

use super::Session;
use super::mode::POLL;
use crate::args::{Global, OffArgs};
use crate::break_glass::{
    Off, Outcome, Silent, Switched, config_change, undo_config, undo_virtual_cluster,
};
use crate::cluster::described::{Described, mode_change, word};
use crate::cluster::{CONFIG, Cluster};
use crate::error::CliError;
use crate::help::CalledAs;
use crate::out;
use crate::render::{self, Look};
use crate::view::node::{Connection, Node};

/// Switches off at once, then looks who has it.
pub(crate) async fn run(global: &Global, args: &OffArgs) -> Result<ExitCode, CliError> {
    let cluster = Cluster::open(global).await?;
    let mut off = Off::default();
    for object in objects(&cluster, args).await? {
        switch(&cluster, &object, &mut off).await;
    }
    if args.all {
        switch_config(&cluster, &mut off).await;
    }
    wait(&cluster, args, &mut off).await;
    if off.is_pending() {
        let silent = silent(global, &cluster).await?;
        off.leave(silent, global.server.cluster().bulkhead_namespace());
    }
    let look = Look { now: jiff::Zoned::now(), wide: false, details: false };
    out::write(&render::document(&off, global.output, &look)?)?;
    Ok(if off.is_done() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn objects(cluster: &Cluster, args: &OffArgs) -> Result<Vec<DynamicObject>, CliError> {
    if args.all {
        return cluster.list("virtualclusters", &cluster.virtual_clusters()).await;
    }
    let mut objects = Vec::new();
    let mut missing = None;
    for name in &args.names {
        match cluster.virtual_cluster(name).await {
            Ok(object) => objects.push(object),
            // The others are switched off all the same.
            Err(error) => {
                out::report(&error);
                missing = Some(error);
            }
        }
    }
    match missing {
        Some(error) if objects.is_empty() => Err(error),
        _ => Ok(objects),
    }
}

async fn switch(cluster: &Cluster, object: &DynamicObject, off: &mut Off) {
    let described = Described::of(object);
    let wanted = word(Mode::Off);
    let change = mode_change(Some(wanted));
    let changed =
        cluster.change(&cluster.virtual_clusters(), &described.name, &change, false).await;
    if let Err(error) = changed {
        off.virtual_clusters.push(Switched::failed(&described, &error));
        return;
    }
    if described.asked.as_deref() != Some(wanted) {
        off.undo.push(undo_virtual_cluster(&described.name, described.asked.as_deref()));
    }
    off.virtual_clusters.push(Switched::of(&described));
}

async fn switch_config(cluster: &Cluster, off: &mut Off) {
    let api = cluster.configs();
    let before = Described { name: CONFIG.to_owned(), ..Described::default() };
    let config = match cluster.answer("get BulkheadConfig \"default\"", api.get(CONFIG)).await {
        Ok(Some(config)) => config,
        Ok(None) => return,
        Err(error) => {
            off.config = Some(Switched::failed(&before, &error));
            return;
        }
    };
    let Some((change, undo)) = config_change(&config) else {
        return;
    };
    let changed = cluster.change(&api, CONFIG, &change, false).await;
    if let Err(error) = changed {
        off.config = Some(Switched::failed(&before, &error));
        return;
    }
    off.undo.push(undo_config(&undo));
    let message = format!("{} asked for; nodes say nothing of it", change["spec"]);
    let outcome = Outcome::Applied;
    off.config = Some(Switched { outcome, message, ..Switched::of(&before) });
}

/// Until every node has it, or the time is over.
async fn wait(cluster: &Cluster, args: &OffArgs, off: &mut Off) {
    let end = Instant::now() + args.wait;
    loop {
        let pending = off.virtual_clusters.iter_mut();
        for switched in pending.filter(|it| it.outcome == Outcome::Pending) {
            match cluster.virtual_cluster(&switched.name).await {
                Ok(object) => switched.standing(&Described::of(&object).progress(Mode::Off)),
                Err(error) => switched.message = error.to_string(),
            }
        }
        if !off.is_pending() || Instant::now() >= end {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Nodes that are not known to have what the controller knows; without a controller, all.
async fn silent(global: &Global, cluster: &Cluster) -> Result<Vec<Silent>, CliError> {
    let asked = async {
        let session = Session::open(global, CalledAs::KubectlPlugin).await?;
        session.client.nodes().await
    };
    match asked.await {
        Ok(nodes) => Ok(nodes.into_iter().map(Node::from).filter_map(behind).collect()),
        Err(error) => {
            let why = format!("the controller cannot say: {error}");
            let nodes = Api::<core::Node>::all(cluster.client());
            let nodes = cluster.list_metadata("nodes", &nodes).await?;
            let nodes = nodes.into_iter().filter_map(|node| node.metadata.name);
            Ok(nodes.map(|name| Silent { name, why: why.clone() }).collect())
        }
    }
}

/// A node that has not applied the newest that it was told.
fn behind(node: Node) -> Option<Silent> {
    let why = if node.connection != Connection::Connected {
        "its agent is away, and what it enforced last goes on".to_owned()
    } else if node.applied_generation < node.wanted_generation {
        let reasons: Vec<String> = node.reasons.iter().map(ToString::to_string).collect();
        format!(
            "it has generation {} of {}{}{}",
            node.applied_generation,
            node.wanted_generation,
            if reasons.is_empty() { "" } else { ": " },
            reasons.join(", ")
        )
    } else {
        return None;
    };
    Some(Silent { name: node.name, why })
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::v1;

    use super::*;

    fn node(connection: v1::node::Connection, applied: u64, wanted: u64) -> Node {
        Node::from(v1::Node {
            name: "worker-1".to_owned(),
            connection: connection.into(),
            wanted_generation: wanted,
            status: Some(v1::NodeStatus { applied_generation: applied, ..Default::default() }),
            ..Default::default()
        })
    }

    #[test]
    fn who_is_away_or_behind_has_not_answered() {
        use v1::node::Connection::{Away, Connected};
        assert_eq!(behind(node(Connected, 7, 7)), None);
        let why = |node| behind(node).expect("not answered").why;
        assert!(why(node(Away, 7, 7)).contains("away"));
        assert_eq!(why(node(Connected, 6, 7)), "it has generation 6 of 7");
    }
}
