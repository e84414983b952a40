//! Nodes that run an agent.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_proto::v1;
use tonic::{Request, Response, Status};

use super::ListPage;
use crate::reason;
use crate::status::Nodes;
use crate::trust::{Sight, Viewer};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct NodesService {
    pub(crate) nodes: Arc<Nodes>,
}

#[tonic::async_trait]
impl v1::nodes_server::Nodes for NodesService {
    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let name = request.into_inner().name;
        viewer.must_see_node(&name).await?;
        let node = self.nodes.get(&name).ok_or_else(|| reason::unknown_node(&name))?;
        let mut nodes = vec![node];
        blank(&viewer, &mut nodes).await?;
        let node = nodes.pop();
        Ok(Response::new(v1::GetNodeResponse { node }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        viewer.must_see_nodes().await?;
        let request = request.into_inner();
        let page = ListPage::parse("nodes", request.page_size, &request.page_token)?;
        let found = self.nodes.list(&page.after, page.size + 1);
        let (mut nodes, next_page_token) = page.cut(found, |node| &node.name);
        blank(&viewer, &mut nodes).await?;
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token }))
    }
}

/// Takes out of nodes what is about virtual clusters that the viewer may not see. Reasons of a
/// node may name any: they are for who sees all.
async fn blank(viewer: &Viewer, nodes: &mut [v1::Node]) -> Result<(), Status> {
    let statuses = nodes.iter().filter_map(|node| node.status.as_ref());
    let names = statuses.flat_map(|status| &status.virtual_clusters).map(|one| one.name.clone());
    let names: BTreeSet<String> = names.collect();
    let sight = viewer.sight(names).await?;
    if sight == Sight::All {
        return Ok(());
    }
    for status in nodes.iter_mut().filter_map(|node| node.status.as_mut()) {
        status.virtual_clusters.retain(|one| sight.shows(&one.name));
        status.reasons.clear();
    }
    Ok(())
}
