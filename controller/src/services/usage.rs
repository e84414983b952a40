//! What virtual clusters used.

use std::sync::Arc;

use bulkhead_proto::v1;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::ledger::{Ledger, Unknown};
use crate::outside::{Outside, blocking};
use crate::query::{self, Question};
use crate::reason;

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
}

#[tonic::async_trait]
impl v1::usage_server::Usage for UsageService {
    async fn query_usage(
        &self,
        request: Request<v1::QueryUsageRequest>,
    ) -> Result<Response<v1::QueryUsageResponse>, Status> {
        let question =
            Question::parse(request.get_ref()).map_err(|error| reason::question(&error))?;
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
