//! `get`: objects and how they stand.

use super::{Missing, Session};
use crate::args::Output;
use crate::error::CliError;
use crate::out;
use crate::view::node::Nodes;
use crate::view::virtual_cluster::VirtualClusters;

/// `get virtualclusters`.
pub(crate) async fn virtual_clusters(session: &Session, names: &[String]) -> Result<(), CliError> {
    if names.is_empty() {
        let all = session.client.virtual_clusters().await?;
        let view = VirtualClusters {
            items: all.virtual_clusters.into_iter().map(Into::into).collect(),
            problems: Some(all.problems),
            warnings: Some(all.warnings),
        };
        if session.output == Output::Csv {
            // Records have no place for them.
            view.notes().iter().for_each(|note| out::note(note));
        }
        return session.write(&view, false);
    }
    let mut missing = Missing::default();
    let mut found = VirtualClusters::default();
    for name in names {
        let answer = session.client.virtual_cluster(name).await;
        found.items.extend(missing.keep_found(answer)?.map(Into::into));
    }
    if !found.items.is_empty() {
        session.write(&found, true)?;
    }
    missing.into_result()
}

/// `get nodes`.
pub(crate) async fn nodes(session: &Session, names: &[String]) -> Result<(), CliError> {
    if names.is_empty() {
        let nodes = session.client.nodes().await?.into_iter().map(Into::into).collect();
        return session.write(&Nodes { nodes }, false);
    }
    let mut missing = Missing::default();
    let mut found = Nodes::default();
    for name in names {
        let answer = session.client.node(name).await;
        found.nodes.extend(missing.keep_found(answer)?.map(Into::into));
    }
    if !found.nodes.is_empty() {
        session.write(&found, true)?;
    }
    missing.into_result()
}
