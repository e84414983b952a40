//! What agents say of their pods.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bulkhead_core::LocalPods;
use bulkhead_proto::bindings::local_pods;
use bulkhead_proto::v1;

use super::Sync;
use crate::outside::Outside;
use crate::reason;
use crate::state::State;
use crate::status::{Nodes, Stream};

/// Most pods of one node.
const MOST: usize = 10_000;

/// How long a node may have no stream until what it said of its pods counts for nothing: an
/// agent's restart and an upgrade take seconds.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// Takes in what an agent says. What is wrong is shown with the node, and nothing else is done:
/// the stream carries usage, too. Gives all pods that the node has now, where that changed.
pub(super) fn take(stream: &Stream, said: &v1::LocalPods) -> Option<Arc<LocalPods>> {
    let problem = match local_pods(&said.pods) {
        Ok(pods) => match stream.has_pods(said.whole, pods, &said.removed, MOST) {
            Ok(all) => return all,
            Err(count) => format!("{count} pods are more than the {MOST} that one node can have"),
        },
        Err(error) => error.to_string(),
    };
    tracing::error!(node = stream.node(), "pods are not taken: {problem}");
    stream.has_wrong_pods(problem);
    None
}

/// Forgets the pods of a node after a while, unless it has a stream again. Holds nothing of the
/// controller meanwhile.
pub(super) fn forget_later(service: &Sync, node: &str) {
    if service.nodes.pods(node).is_empty() {
        return;
    }
    let (nodes, state) = (Arc::downgrade(&service.nodes), Arc::downgrade(&service.state));
    let (outside, node) = (Arc::downgrade(&service.outside), node.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        forget(&nodes, &state, &outside, node);
    });
}

fn forget(nodes: &Weak<Nodes>, state: &Weak<State>, outside: &Weak<dyn Outside>, node: String) {
    let (Some(nodes), Some(state), Some(outside)) =
        (nodes.upgrade(), state.upgrade(), outside.upgrade())
    else {
        return;
    };
    if !nodes.forget_pods(&node) {
        return;
    }
    tracing::info!(node, "the node is away for long: what it said of its pods is forgotten");
    outside.block(Box::new(move || {
        if let Err(error) = state.set_local_pods(&node, &Arc::default()) {
            tracing::error!(node, "{}", reason::chain(&error));
        }
    }));
}
