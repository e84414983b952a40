//! Questions to the controller; lists are followed to their end.

use std::future::Future;
use std::time::Duration;

use bulkhead_proto::v1::nodes_client::NodesClient;
use bulkhead_proto::v1::usage_client::UsageClient;
use bulkhead_proto::v1::virtual_clusters_client::VirtualClustersClient;
use bulkhead_proto::{Endpoint, v1};
use tonic::{Response, Status, Streaming};

use crate::connection::{Asking, Reached, ServerArgs};
use crate::error::{CliError, Kind};
use crate::help::CalledAs;

/// A controller that answered.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Asking,
    server: Endpoint,
    timeout: Duration,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(
        server: &ServerArgs,
        called_as: CalledAs,
        timeout: Duration,
    ) -> Result<Self, CliError> {
        let reached = tokio::time::timeout(timeout, server.reach(called_as)).await;
        let Reached { channel, bearing, server } = reached.map_err(|_| {
            CliError::new(Kind::Away, "connect to the controller", "nobody answered in time")
                .mended_by("give it longer with --timeout")
        })??;
        Ok(Self { channel: Asking::new(channel, bearing), server, timeout })
    }

    /// One virtual cluster.
    pub(crate) async fn virtual_cluster(&self, name: &str) -> Result<v1::VirtualCluster, CliError> {
        let operation = format!("get virtual cluster \"{name}\"");
        let request = v1::GetVirtualClusterRequest { name: name.to_owned() };
        let mut client = VirtualClustersClient::new(self.channel.clone());
        let response = self
            .answer(&operation, client.get_virtual_cluster(request))
            .await
            .map_err(|error| error.listed_by("get virtualclusters"))?;
        response.virtual_cluster.ok_or_else(|| empty_answer(&operation))
    }

    /// All virtual clusters, and what is wrong with their objects: as one page.
    pub(crate) async fn virtual_clusters(
        &self,
    ) -> Result<v1::ListVirtualClustersResponse, CliError> {
        let mut client = VirtualClustersClient::new(self.channel.clone());
        let mut pages = Pages::new("list virtual clusters");
        loop {
            let request =
                v1::ListVirtualClustersRequest { page_size: 0, page_token: pages.token.clone() };
            let mut page =
                self.answer(pages.operation, client.list_virtual_clusters(request)).await?;
            let clusters = std::mem::take(&mut page.virtual_clusters);
            if !pages.take(clusters, std::mem::take(&mut page.next_page_token))? {
                // Every page says what is wrong; the last one says it newest.
                page.virtual_clusters = pages.rows;
                return Ok(page);
            }
        }
    }

    /// All virtual clusters, then each change.
    pub(crate) async fn watch_virtual_clusters(
        &self,
    ) -> Result<Streaming<v1::WatchVirtualClustersResponse>, CliError> {
        let mut client = VirtualClustersClient::new(self.channel.clone());
        let request = v1::WatchVirtualClustersRequest {};
        self.answer("watch virtual clusters", client.watch_virtual_clusters(request)).await
    }

    /// One node.
    pub(crate) async fn node(&self, name: &str) -> Result<v1::Node, CliError> {
        let operation = format!("get node \"{name}\"");
        let request = v1::GetNodeRequest { name: name.to_owned() };
        let mut client = NodesClient::new(self.channel.clone());
        let response = self.answer(&operation, client.get_node(request)).await;
        let response = response.map_err(|error| error.listed_by("get nodes"))?;
        response.node.ok_or_else(|| empty_answer(&operation))
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<v1::Node>, CliError> {
        let mut client = NodesClient::new(self.channel.clone());
        let mut pages = Pages::new("list nodes");
        loop {
            let request = v1::ListNodesRequest { page_size: 0, page_token: pages.token.clone() };
            let page = self.answer(pages.operation, client.list_nodes(request)).await?;
            if !pages.take(page.nodes, page.next_page_token)? {
                return Ok(pages.rows);
            }
        }
    }

    /// Every row of the answer; the question must name its end, or each page would have its own.
    pub(crate) async fn usage(
        &self,
        question: &v1::QueryUsageRequest,
    ) -> Result<Vec<v1::UsageRow>, CliError> {
        let mut client = UsageClient::new(self.channel.clone());
        let mut pages = Pages::new("query usage");
        loop {
            let request =
                v1::QueryUsageRequest { page_token: pages.token.clone(), ..question.clone() };
            let page = self.answer(pages.operation, client.query_usage(request)).await?;
            if !pages.take(page.rows, page.next_page_token)? {
                return Ok(pages.rows);
            }
        }
    }

    async fn answer<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CliError::from_status(operation, &status)),
            Err(_) => Err(CliError::timeout(operation, &self.server)),
        }
    }
}

fn empty_answer(operation: &str) -> CliError {
    CliError::new(Kind::Server, operation, "the server's answer is empty")
        .mended_by("use a controller of this command's version")
}

/// What was read of an answer that comes in pages.
struct Pages<T> {
    operation: &'static str,
    rows: Vec<T>,
    /// Of the next page; empty: the first.
    token: String,
}

impl<T> Pages<T> {
    fn new(operation: &'static str) -> Self {
        Self { operation, rows: Vec::new(), token: String::new() }
    }

    /// Takes a page; whether there is another. The same page again would never end.
    fn take(&mut self, rows: Vec<T>, next: String) -> Result<bool, CliError> {
        self.rows.extend(rows);
        if !next.is_empty() && next == self.token {
            let problem = "the server names the same page as the next again and again";
            return Err(CliError::new(Kind::Server, self.operation, problem)
                .mended_by("this is a fault of the controller; please report it"));
        }
        self.token = next;
        Ok(!self.token.is_empty())
    }
}
