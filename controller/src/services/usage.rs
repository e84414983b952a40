//! What virtual clusters used.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_proto::v1;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::ledger::{Ledger, LedgerError, Names, Selection, Unknown};
use crate::outside::{Outside, blocking};
use crate::query::{self, PairKey, Question};
use crate::reason;
use crate::trust::{Sight, Viewer};

/// Questions that are worked on at one time; others wait.
const AT_ONCE: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct UsageService {
    ledger: Arc<Ledger>,
    outside: Arc<dyn Outside>,
    at_once: Arc<Semaphore>,
}

impl UsageService {
    pub(crate) fn new(ledger: Arc<Ledger>, outside: Arc<dyn Outside>) -> Self {
        Self { ledger, outside, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Makes a question one about what the viewer may see: what is named must be seen, and without
    /// a name all means all that is seen. Nothing that comes later can widen it again.
    async fn narrow(&self, viewer: &Viewer, selection: &mut Selection) -> Result<(), Status> {
        let named = selection.virtual_clusters.named();
        for name in named {
            viewer.must_see(name).await?;
        }
        let candidates = match &selection.virtual_clusters {
            Names::All => self.seen(Selection::default(), |pair| pair.virtual_cluster).await?,
            Names::These(these) => these.iter().cloned().collect(),
        };
        let Sight::These(seen) = viewer.sight(candidates).await? else {
            return Ok(());
        };
        let virtual_clusters = Names::These(seen.into_iter().collect());
        // A node is known to who may see it, and to whose virtual cluster was on it. Of others it
        // must not be told whether they are there.
        if let Names::These(nodes) = &selection.nodes {
            let own = Selection { virtual_clusters: virtual_clusters.clone(), nodes: Names::All };
            let own = self.seen(own, |pair| pair.node).await?;
            for node in nodes.iter().filter(|node| !own.contains(*node)) {
                viewer.must_see_node(node).await?;
            }
        }
        selection.virtual_clusters = virtual_clusters;
        Ok(())
    }

    /// One name of each pair of a selection.
    async fn seen(
        &self,
        selection: Selection,
        name: fn(PairKey) -> String,
    ) -> Result<BTreeSet<String>, Status> {
        let ledger = Arc::clone(&self.ledger);
        let read = blocking(&self.outside, move || {
            let pairs = ledger.pairs(&selection)?;
            Ok(pairs.into_iter().map(|pair| name(pair.key)).collect())
        });
        let read = read.await.map_err(|_| Status::internal("the question's task ended"))?;
        read.map_err(|error: LedgerError| reason::ledger(&error))
    }
}

#[tonic::async_trait]
impl v1::usage_server::Usage for UsageService {
    async fn query_usage(
        &self,
        request: Request<v1::QueryUsageRequest>,
    ) -> Result<Response<v1::QueryUsageResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let mut question =
            Question::parse(request.get_ref()).map_err(|error| reason::question(&error))?;
        self.narrow(&viewer, &mut question.selection).await?;
        let ledger = Arc::clone(&self.ledger);
        let permit = Arc::clone(&self.at_once).acquire_owned().await;
        let permit = permit.map_err(|_| Status::internal("no question is worked on any more"))?;
        let now = self.outside.now();
        let answered = blocking(&self.outside, move || {
            let _permit = permit;
            answer(&ledger, &question, now)
        });
        let answer = answered.await.map_err(|_| Status::internal("the question's task ended"))?;
        answer.map(Response::new)
    }
}

impl Ledger {
    /// One page of the answer to an operator's question. Blocks. `now`: nanoseconds since the Unix
    /// epoch.
    pub fn answer(
        &self,
        request: &v1::QueryUsageRequest,
        now: u64,
    ) -> Result<v1::QueryUsageResponse, Status> {
        let question = Question::parse(request).map_err(|error| reason::question(&error))?;
        answer(self, &question, now)
    }
}

/// One page of the answer. Blocks.
fn answer(
    ledger: &Ledger,
    question: &Question,
    now: u64,
) -> Result<v1::QueryUsageResponse, Status> {
    let failed = |error| reason::ledger(&error);
    match ledger.unknown(&question.selection).map_err(failed)? {
        Some(Unknown::VirtualCluster(name)) => return Err(reason::unknown_virtual_cluster(&name)),
        Some(Unknown::Node(name)) => return Err(reason::unknown_node(&name)),
        None => {}
    }
    let pairs = ledger.pairs(&question.selection).map_err(failed)?;
    let oldest = pairs.iter().map(|pair| pair.first_start).min();
    let range = question.range(oldest, now).map_err(|error| reason::question(&error))?;
    let Some(range) = range else {
        return Ok(v1::QueryUsageResponse::default());
    };
    let position = question.position.as_ref();
    let (first, spans) =
        query::plan(range, question.step, question.grouping, &pairs, position, question.page_size);
    let facts = ledger.facts(&question.selection, &spans).map_err(failed)?;
    let rows =
        query::rows(&spans, question.grouping, &facts).map_err(|error| reason::query(&error))?;
    let page = query::cut(range, (first, &spans), position, question.page_size, rows);
    let next_page_token = page.end.map(|end| question.token(&end)).unwrap_or_default();
    Ok(v1::QueryUsageResponse { rows: page.rows, next_page_token })
}

#[cfg(test)]
mod tests;
