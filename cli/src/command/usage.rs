//! `usage`: what virtual clusters used in a range.

use std::time::Duration;

use bulkhead_proto::v1::query_usage_request::GroupBy as WireGroupBy;
use bulkhead_proto::{time, v1};
use jiff::{Timestamp, Zoned};

use super::Session;
use crate::args::{GroupBy, UsageArgs};
use crate::error::{CliError, Kind};
use crate::view::usage::{Row, Usage};
use crate::when::{self, Range};

/// Asks and writes.
pub(crate) async fn run(session: &Session, args: &UsageArgs) -> Result<(), CliError> {
    let (since, start, end) = (args.since.as_deref(), args.start.as_deref(), args.end.as_deref());
    let range = when::range(since, start, end, &Zoned::now())
        .map_err(|error| CliError::new(Kind::Usage, "usage", error))?;
    let rows = session.client.usage(&question(args, range)).await?;
    let usage = Usage {
        start: range.start,
        end: range.end,
        step_nanoseconds: args.step.map(nanoseconds),
        rows: rows.into_iter().map(Row::from).collect(),
    };
    session.write(&usage, false)?;
    let by_name = args.by.contains(&GroupBy::VirtualCluster);
    let silent = |name: &&String| {
        if by_name {
            usage.rows.iter().all(|row| row.virtual_cluster.as_ref() != Some(*name))
        } else {
            usage.rows.is_empty()
        }
    };
    session.must_exist(args.names.iter().filter(silent)).await
}

fn question(args: &UsageArgs, range: Range) -> v1::QueryUsageRequest {
    let group = |by: &GroupBy| match by {
        GroupBy::VirtualCluster => WireGroupBy::VirtualCluster.into(),
        GroupBy::Node => WireGroupBy::Node.into(),
    };
    v1::QueryUsageRequest {
        start: range.start.map(timestamp),
        end: Some(timestamp(range.end)),
        step: args.step.map(|step| time::duration(nanoseconds(step))),
        group_by: args.by.iter().map(group).collect(),
        virtual_clusters: args.names.clone(),
        nodes: args.nodes.clone(),
        page_size: 0,
        page_token: String::new(),
    }
}

/// A moment as the wire has it; what lies before 1970 is 1970: there are no older records.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    time::timestamp(u64::try_from(at.as_nanosecond()).unwrap_or(0))
}

/// A length in nanoseconds; held at 584 years.
pub(super) fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
