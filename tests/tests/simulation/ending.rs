//! What must be true in the end, as operators see it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_proto::connect::connect_over;
use bulkhead_proto::time::timestamp;
use bulkhead_proto::v1::nodes_client::NodesClient;
use bulkhead_proto::v1::query_usage_request::GroupBy;
use bulkhead_proto::v1::usage_client::UsageClient;
use bulkhead_proto::{Endpoint, v1};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::controller::OPERATORS;
use crate::network::OPERATOR;
use crate::truth::{Total, meters};
use crate::world::World;

/// Two days, nanoseconds: no clock is off by so much.
const TWO_DAYS: u64 = 2 * 86_400 * 1_000_000_000;

/// Asks the controller, and compares. Gives whether every number could be compared exactly.
pub(crate) async fn check(world: &World) -> Result<bool> {
    let checked = timeout(Duration::from_mins(1), compare(world)).await;
    checked.context("operators get no answer")?
}

async fn compare(world: &World) -> Result<bool> {
    let channel = operator(world).await?;
    nodes(world, channel.clone()).await?;
    let booked = booked(world, channel).await?;
    let mut exact = true;
    let expected = world.truth.totals();
    for ((node, name, meter), bounds) in &expected {
        if !meters().contains(meter) {
            continue;
        }
        let total = booked.get(&(*node, name.clone(), *meter)).copied().unwrap_or(0);
        ensure!(
            (bounds.least..=bounds.most).contains(&total),
            "{name} on node {node}: meter {meter} is {total} in the ledger, and was {bounds:?}"
        );
        exact &= bounds.least == bounds.most;
    }
    for (total, value) in booked {
        ensure!(expected.contains_key(&total) || value == 0, "{total:?} was never counted");
    }
    world.trace.say("world", format!("the ledger is right, exact: {exact}"));
    Ok(exact)
}

async fn operator(world: &World) -> Result<Channel> {
    let endpoint = Endpoint::parse("127.0.0.1:1").context("name an endpoint")?;
    let network = world.network.clone();
    let open = move || network.clone().connect(OPERATOR, OPERATORS);
    connect_over(&endpoint, open).await.context("connect as an operator")
}

/// The controller knows that every node stands where it should.
async fn nodes(world: &World, channel: Channel) -> Result<()> {
    let request = v1::ListNodesRequest::default();
    let listed = NodesClient::new(channel).list_nodes(request).await.context("list nodes")?;
    let listed = listed.into_inner().nodes;
    for node in &world.nodes {
        let name = &node.common.name;
        let known = listed.iter().find(|known| known.name == *name).context("a node is known")?;
        ensure!(known.connection() == v1::node::Connection::Connected, "{name} is not connected");
        let applied = known.status.as_ref().map(|status| status.applied_generation);
        let wanted = known.wanted_generation;
        let held = World::told(node).map(|told| told.generation);
        ensure!(
            Some(wanted) == held && applied == held,
            "{name} is known at {applied:?} of {wanted}, and holds {held:?}"
        );
    }
    Ok(())
}

/// What the ledger says, by node, virtual cluster and meter.
async fn booked(world: &World, channel: Channel) -> Result<BTreeMap<Total, u64>> {
    let request = v1::QueryUsageRequest {
        group_by: vec![GroupBy::VirtualCluster.into(), GroupBy::Node.into()],
        end: Some(timestamp(world.controller.clock.wall() + TWO_DAYS)),
        ..v1::QueryUsageRequest::default()
    };
    let answer = UsageClient::new(channel).query_usage(request).await.context("query usage")?;
    let mut booked = BTreeMap::new();
    for row in answer.into_inner().rows {
        let number = row.node.strip_prefix("node-").context("a node has our name")?;
        let number: usize = number.parse().context("a node has a number")?;
        let cpu = row.cpu.map_or(0, |cpu| cpu.usage_nanoseconds);
        let memory = row.memory.map_or(0, |memory| memory.byte_seconds);
        let network = row.network.unwrap_or_default().classes;
        let sent = network.iter().map(|class| class.passed_bytes).sum();
        for (meter, value) in meters().into_iter().zip([cpu, memory, sent]) {
            booked.insert((number, row.virtual_cluster.clone(), meter), value);
        }
    }
    Ok(booked)
}
