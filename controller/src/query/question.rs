//! What is asked, checked once.

use std::collections::BTreeSet;

use bulkhead_proto::time::{nanoseconds, unix_nanoseconds};
use bulkhead_proto::v1;
use prost::Message;
use v1::query_usage_request::GroupBy;

use super::{PairKey, Span};
use crate::ledger::{Names, Selection};
use crate::page;

/// Rows on a page where the question does not say.
const DEFAULT_PAGE: u32 = 1_000;
/// Rows on a page at most.
const MAX_PAGE: u32 = 10_000;
/// Longest name of a virtual cluster or node.
const MAX_NAME: usize = 253;

/// What rows are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grouping {
    /// Each virtual cluster has rows of its own.
    pub virtual_cluster: bool,
    /// Each node has rows of its own.
    pub node: bool,
}

impl Grouping {
    /// The group of a virtual cluster on a node: a key with only the parts that count.
    pub(crate) fn of(self, key: &PairKey) -> PairKey {
        let part = |counts: bool, name: &String| if counts { name.clone() } else { String::new() };
        PairKey {
            virtual_cluster: part(self.virtual_cluster, &key.virtual_cluster),
            node: part(self.node, &key.node),
        }
    }
}

/// Where a page ended; with the range as it was then, so that later pages are of the same.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Position {
    /// Start of the range.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// End of the range.
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// Which span of the range the last row was of.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// Of which virtual cluster.
    #[prost(string, tag = "4")]
    pub virtual_cluster: String,
    /// Of which node.
    #[prost(string, tag = "5")]
    pub node: String,
}

/// A question that has an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    start: Option<u64>,
    end: Option<u64>,
    /// Length of a row; `None`: the whole range.
    pub step: Option<u64>,
    /// What rows are about.
    pub grouping: Grouping,
    /// Of whom.
    pub selection: Selection,
    /// Rows on a page at most.
    pub page_size: usize,
    /// Where the page before ended.
    pub position: Option<Position>,
    hash: u64,
}

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    /// No such range.
    #[error("{field}: {problem}")]
    Range {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No such grouping.
    #[error("group_by: {number} is not known to this version; group by virtual cluster or node")]
    GroupBy {
        /// What was asked for.
        number: i32,
    },
    /// No such name.
    #[error("{field}: \"{name}\" is no name")]
    Name {
        /// The field.
        field: &'static str,
        /// What was given.
        name: String,
    },
    /// No such token.
    #[error(
        "page_token is of no page of this question; ask again from the first page, with an empty \
         one"
    )]
    PageToken,
}

fn range<T>(field: &'static str, problem: &'static str) -> Result<T, QuestionError> {
    Err(QuestionError::Range { field, problem })
}

impl Question {
    /// Checks a request.
    pub(crate) fn parse(request: &v1::QueryUsageRequest) -> Result<Self, QuestionError> {
        let moment = |field, timestamp: &Option<prost_types::Timestamp>| match timestamp {
            None => Ok(None),
            Some(timestamp) => match unix_nanoseconds(timestamp) {
                Some(at) if at <= LATEST => Ok(Some(at)),
                _ => range(field, "is no moment between 1970 and 2262"),
            },
        };
        let start = moment("start", &request.start)?;
        let end = moment("end", &request.end)?;
        if let (Some(start), Some(end)) = (start, end)
            && start >= end
        {
            return range("end", "is not after start; a range is half-open: [start, end)");
        }
        let step = match &request.step {
            None => None,
            Some(step) => match nanoseconds(step) {
                None => return range("step", "is negative or too long"),
                Some(step) => (step != 0).then_some(step),
            },
        };
        let selection = Selection {
            virtual_clusters: Names::asked(names("virtual_clusters", &request.virtual_clusters)?),
            nodes: Names::asked(names("nodes", &request.nodes)?),
        };
        let grouping = grouping(&request.group_by)?;
        let hash = hash(request, &selection, grouping);
        let position = match request.page_token.as_str() {
            "" => None,
            token => {
                let position: Position =
                    page::decode(hash, token).map_err(|_| QuestionError::PageToken)?;
                if position.start >= position.end || position.end > LATEST {
                    return Err(QuestionError::PageToken);
                }
                Some(position)
            }
        };
        let page_size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let page_size = usize::try_from(page_size).unwrap_or(usize::MAX);
        Ok(Self { start, end, step, grouping, selection, page_size, position, hash })
    }

    /// The range; `None`: nothing is in it. `oldest`: the start of the oldest record.
    pub(crate) fn range(
        &self,
        oldest: Option<u64>,
        now: u64,
    ) -> Result<Option<Span>, QuestionError> {
        if let Some(position) = &self.position {
            return Ok(Some(Span { start: position.start, end: position.end }));
        }
        let end = self.end.unwrap_or(now);
        match self.start {
            Some(start) if start >= end => {
                range("start", "is not before now, where the range ends without an end")
            }
            Some(start) => Ok(Some(Span { start, end })),
            None => Ok(oldest.filter(|start| *start < end).map(|start| Span { start, end })),
        }
    }

    /// The token of the page after one that ended here.
    pub(crate) fn token(&self, position: &Position) -> String {
        page::encode(self.hash, position)
    }
}

const LATEST: u64 = bulkhead_proto::usage::LATEST_UNIX_NANOSECONDS;

/// Names in order, each once.
fn names(field: &'static str, names: &[String]) -> Result<Vec<String>, QuestionError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let sorted: BTreeSet<&String> = names.iter().collect();
    for name in &sorted {
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            let name = name.chars().take(MAX_NAME).collect();
            return Err(QuestionError::Name { field, name });
        }
    }
    Ok(sorted.into_iter().cloned().collect())
}

fn grouping(numbers: &[i32]) -> Result<Grouping, QuestionError> {
    let mut grouping = Grouping { virtual_cluster: numbers.is_empty(), node: false };
    for &number in numbers {
        match GroupBy::try_from(number) {
            Ok(GroupBy::VirtualCluster) => grouping.virtual_cluster = true,
            Ok(GroupBy::Node) => grouping.node = true,
            Ok(GroupBy::Unspecified) | Err(_) => return Err(QuestionError::GroupBy { number }),
        }
    }
    Ok(grouping)
}

/// What makes two questions the same, however they were written; the page is no part of it.
fn hash(request: &v1::QueryUsageRequest, selection: &Selection, grouping: Grouping) -> u64 {
    let mut group_by = Vec::new();
    if grouping.virtual_cluster {
        group_by.push(GroupBy::VirtualCluster.into());
    }
    if grouping.node {
        group_by.push(GroupBy::Node.into());
    }
    let same = v1::QueryUsageRequest {
        start: request.start,
        end: request.end,
        step: request.step,
        group_by,
        virtual_clusters: selection.virtual_clusters.named().to_vec(),
        nodes: selection.nodes.named().to_vec(),
        page_size: 0,
        page_token: String::new(),
    };
    page::checksum(0, &same.encode_to_vec())
}
