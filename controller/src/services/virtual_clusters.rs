//! Virtual clusters: what was asked for, and what each node makes of it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::conversions::spec;
use bulkhead_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use v1::watch_virtual_clusters_response::Change;

use super::ListPage;
use crate::reason;
use crate::state::{Known, State};
use crate::status::Nodes;
use crate::trust::{Sight, Viewer};

/// Changes that may wait for a slow reader.
const WAITING: usize = 64;

/// How often a watcher's rights are looked at where nothing else changes.
const LOOK: Duration = Duration::from_secs(10);

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct VirtualClustersService {
    pub(crate) state: Arc<State>,
    pub(crate) nodes: Arc<Nodes>,
    /// Becomes true when the controller ends.
    pub(crate) ending: watch::Receiver<bool>,
}

impl VirtualClustersService {
    /// Every virtual cluster, by name.
    fn all(&self) -> BTreeMap<String, v1::VirtualCluster> {
        let mut statuses = self.nodes.by_virtual_cluster();
        let snapshot = self.state.current();
        let clusters = snapshot.virtual_clusters.values().map(|known| {
            let nodes = statuses.remove(known.cluster.name.as_str()).unwrap_or_default();
            (known.cluster.name.to_string(), shown(known, nodes))
        });
        clusters.collect()
    }

    /// Every virtual cluster that somebody may see, by name, and whether that is all of them.
    async fn seen_by(
        &self,
        viewer: &Viewer,
    ) -> Result<(BTreeMap<String, v1::VirtualCluster>, Sight), Status> {
        let mut all = self.all();
        let sight = viewer.sight(all.keys().cloned()).await?;
        all.retain(|name, _| sight.shows(name));
        Ok((all, sight))
    }
}

fn shown(known: &Known, nodes: Vec<v1::VirtualClusterNodeStatus>) -> v1::VirtualCluster {
    v1::VirtualCluster {
        name: known.cluster.name.to_string(),
        number: known.cluster.number.get(),
        spec: Some(spec(&known.cluster, &known.class)),
        nodes,
        source: known.source.clone(),
    }
}

#[tonic::async_trait]
impl v1::virtual_clusters_server::VirtualClusters for VirtualClustersService {
    async fn get_virtual_cluster(
        &self,
        request: Request<v1::GetVirtualClusterRequest>,
    ) -> Result<Response<v1::GetVirtualClusterResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let name = request.into_inner().name;
        viewer.must_see(&name).await?;
        let found = self.all().remove(&name);
        let found = found.ok_or_else(|| reason::unknown_virtual_cluster(&name))?;
        Ok(Response::new(v1::GetVirtualClusterResponse { virtual_cluster: Some(found) }))
    }

    async fn list_virtual_clusters(
        &self,
        request: Request<v1::ListVirtualClustersRequest>,
    ) -> Result<Response<v1::ListVirtualClustersResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let page = ListPage::parse("virtual clusters", request.page_size, &request.page_token)?;
        let (seen, sight) = self.seen_by(&viewer).await?;
        let later = seen.into_iter().filter(|(name, _)| *name > page.after);
        let found = later.map(|(_, cluster)| cluster).take(page.size + 1).collect();
        let (virtual_clusters, next_page_token) = page.cut(found, |cluster| &cluster.name);
        // They may name any object.
        let findings = match sight {
            Sight::All => self.state.findings().borrow().clone(),
            Sight::These(_) => Arc::default(),
        };
        Ok(Response::new(v1::ListVirtualClustersResponse {
            virtual_clusters,
            next_page_token,
            problems: findings.problems.clone(),
            warnings: findings.warnings.clone(),
        }))
    }

    type WatchVirtualClustersStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchVirtualClustersResponse, Status>> + Send>>;

    async fn watch_virtual_clusters(
        &self,
        request: Request<v1::WatchVirtualClustersRequest>,
    ) -> Result<Response<Self::WatchVirtualClustersStream>, Status> {
        let viewer = Viewer::of(&request)?;
        let (changes, receiver) = mpsc::channel(WAITING);
        let watcher = Watcher { service: self.clone(), viewer, changes, shown: BTreeMap::new() };
        tokio::spawn(watcher.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One who watches.
struct Watcher {
    service: VirtualClustersService,
    viewer: Viewer,
    changes: mpsc::Sender<Result<v1::WatchVirtualClustersResponse, Status>>,
    /// What it was shown last.
    shown: BTreeMap<String, v1::VirtualCluster>,
}

/// Why watching ends.
enum End {
    /// The watcher has gone.
    Gone,
    /// It may not go on.
    Refused(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl Watcher {
    /// Runs until the watcher goes or the controller ends.
    async fn run(mut self) {
        if let Err(End::Refused(status)) = self.watch().await {
            // Nobody may be there to hear it.
            let _ = self.changes.send(Err(status)).await;
        }
    }

    async fn watch(&mut self) -> Result<(), End> {
        // Before the first look, so that no change is missed.
        let mut snapshots = self.service.state.subscribe();
        let mut statuses = self.service.nodes.subscribe();
        let mut ending = self.service.ending.clone();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reviewed = Instant::now();
        self.first().await?;
        loop {
            let changed = tokio::select! {
                changed = snapshots.changed() => changed.is_ok(),
                changed = statuses.changed() => changed.is_ok(),
                _ = looks.tick() => true,
                () = self.changes.closed() => false,
                _ = ending.wait_for(|ending| *ending) => false,
            };
            if !changed {
                return Ok(());
            }
            self.viewer.still(&mut reviewed).await?;
            self.next().await?;
        }
    }

    async fn first(&mut self) -> Result<(), End> {
        self.shown = self.service.seen_by(&self.viewer).await?.0;
        for cluster in self.shown.values() {
            self.send(Change::Initial, Some(cluster.clone())).await?;
        }
        self.send(Change::InitialComplete, None).await
    }

    async fn next(&mut self) -> Result<(), End> {
        let now = self.service.seen_by(&self.viewer).await?.0;
        let before = std::mem::replace(&mut self.shown, now);
        for (name, cluster) in &self.shown {
            if before.get(name).is_none_or(|before| !same(before, cluster)) {
                self.send(Change::Upserted, Some(cluster.clone())).await?;
            }
        }
        for (name, cluster) in before {
            if !self.shown.contains_key(&name) {
                self.send(Change::Deleted, Some(cluster)).await?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        change: Change,
        virtual_cluster: Option<v1::VirtualCluster>,
    ) -> Result<(), End> {
        let change = v1::WatchVirtualClustersResponse { change: change.into(), virtual_cluster };
        self.changes.send(Ok(change)).await.map_err(|_| End::Gone)
    }
}

/// Whether nothing has changed but when it was seen.
fn same(before: &v1::VirtualCluster, now: &v1::VirtualCluster) -> bool {
    let timeless = |cluster: &v1::VirtualCluster| {
        let mut cluster = cluster.clone();
        for status in &mut cluster.nodes {
            status.observed_at = None;
        }
        cluster
    };
    timeless(before) == timeless(now)
}
