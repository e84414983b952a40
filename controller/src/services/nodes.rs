//! Nodes that run an agent.

use std::sync::Arc;

use bulkhead_proto::v1;
use tonic::{Request, Response, Status};

use super::ListPage;
use crate::reason;
use crate::status::Nodes;

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
        let name = request.into_inner().name;
        let node = self.nodes.get(&name).ok_or_else(|| reason::unknown_node(&name))?;
        Ok(Response::new(v1::GetNodeResponse { node: Some(node) }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let page = ListPage::parse("nodes", request.page_size, &request.page_token)?;
        let found = self.nodes.list(&page.after, page.size + 1);
        let (nodes, next_page_token) = page.cut(found, |node| &node.name);
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token }))
    }
}
