//! What the cycle reports, as messages.

use std::net::IpAddr;

use bulkhead_core::{Control, Degradation, NodeFacts, State, Support, UnixNanos};
use bulkhead_proto::time::timestamp;
use bulkhead_proto::v1;
use bulkhead_proto::v1::virtual_cluster_node_status::State as WireState;

use crate::cycle::{PodsReport, Report};

/// The report of one turn as a message; `node` is this node's name.
pub fn node_status(report: &Report, node: &str, at: UnixNanos, backlog: u64) -> v1::NodeStatus {
    let of_nobody = report.mended.get(&None).copied().unwrap_or(0);
    let virtual_clusters = report.states.iter().map(|(name, state)| {
        let own = report.mended.get(&Some(name.clone())).copied().unwrap_or(0);
        let (state, reasons) = wire_state(state);
        v1::VirtualClusterNodeStatus {
            node: node.to_owned(),
            name: name.to_string(),
            state: state.into(),
            reasons: reasons.iter().map(reason).collect(),
            // Tables and programs are everybody's.
            mended: own + of_nobody,
            observed_at: Some(timestamp(at.0)),
        }
    });
    v1::NodeStatus {
        applied_generation: report.applied_generation,
        virtual_clusters: virtual_clusters.collect(),
        reasons: report.reasons.iter().map(reason).collect(),
        journal_backlog_records: backlog,
        late_pods: None,
    }
}

/// How late pods are known; `None`: the runtime tells of each in time.
pub fn late_pods(runtime: &bulkhead_nri::State, pods: &PodsReport) -> Option<v1::LatePods> {
    let is_told = matches!(runtime, bulkhead_nri::State::Connected { .. });
    (!is_told).then(|| v1::LatePods {
        registered: pods.late.registered,
        last_nanoseconds: pods.late.last_nanoseconds,
        longest_nanoseconds: pods.late.longest_nanoseconds,
        waiting: u32::try_from(pods.unknown_count).unwrap_or(u32::MAX),
    })
}

fn wire_state(state: &State) -> (WireState, &[Degradation]) {
    match state {
        State::Applied => (WireState::Applied, &[]),
        State::Degraded(reasons) => (WireState::Degraded, reasons),
        State::Refused(reasons) => (WireState::Refused, reasons),
        State::Pending => (WireState::Pending, &[]),
    }
}

/// A reason as a message.
pub fn reason(degradation: &Degradation) -> v1::Reason {
    v1::Reason { subject: degradation.subject.clone(), message: degradation.message.clone() }
}

/// What the node is, as a message.
pub fn node_facts(node: &NodeFacts, boot_id: &str, kernel_release: &str) -> v1::NodeFacts {
    v1::NodeFacts {
        boot_id: boot_id.to_owned(),
        kernel_release: kernel_release.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        abi_version: bulkhead_abi::ABI_VERSION,
        capacity_nanocores: node.cpu.0,
        capacity_memory_bytes: node.memory.0,
        capacity_pids: node.pids.0,
        addresses: node
            .addresses
            .iter()
            .filter(|address| is_of_the_cluster(address))
            .map(ToString::to_string)
            .collect(),
        controls: control_support(&node.support),
    }
}

/// Whether an address means anything to other nodes: link-local ones come and go with each
/// interface and mean something else on every link.
fn is_of_the_cluster(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

/// Every control and whether the node can enforce it.
pub fn control_support(support: &Support) -> Vec<v1::ControlSupport> {
    let control = |control: Control| {
        let reason = support.missing.get(&control);
        v1::ControlSupport {
            control: control.file().to_owned(),
            supported: reason.is_none(),
            reason: reason.cloned().unwrap_or_default(),
        }
    };
    Control::ALL.into_iter().map(control).collect()
}
