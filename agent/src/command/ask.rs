//! Asking the agent that runs on this node.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bulkhead_proto::connect::connect;
use bulkhead_proto::v1;
use bulkhead_proto::v1::node_agent_client::NodeAgentClient;
use bulkhead_proto::v1::virtual_cluster_node_status::State;
use tonic::transport::Channel;

use super::print;
use crate::admin;
use crate::args::{Expected, Places, StatusArgs};
use crate::health;

/// Prints what the running agent would do now.
pub fn plan(places: &Places) -> Result<ExitCode> {
    let answer = ask(places, async |mut agent: NodeAgentClient<Channel>| {
        agent.get_plan(v1::GetPlanRequest {}).await
    })?;
    let text = if answer.steps.is_empty() {
        "nothing to do: the node is as wanted\n".to_owned()
    } else {
        answer.steps.join("\n") + "\n"
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what the running agent has done.
pub fn status(places: &Places, args: StatusArgs) -> Result<ExitCode> {
    let answer = ask(places, async |mut agent: NodeAgentClient<Channel>| {
        agent.get_status(v1::GetStatusRequest {}).await
    })?;
    if let Some(expected) = args.is {
        return Ok(if is(expected, &answer) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let text = if args.output.json { status_json(&answer)? } else { status_text(&answer) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the node is as a probe expects.
fn is(expected: Expected, answer: &v1::GetStatusResponse) -> bool {
    match expected {
        Expected::Running => true,
        Expected::Enforcing => answer.status.as_ref().is_some_and(health::is_enforcing),
    }
}

fn ask<T>(
    places: &Places,
    question: impl AsyncFnOnce(NodeAgentClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T> {
    let endpoint = admin::endpoint(&places.run_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let channel = connect(&endpoint)
            .await
            .with_context(|| format!("ask the agent at {endpoint}; is it running?"))?;
        let answer = question(NodeAgentClient::new(channel)).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| anyhow::anyhow!("the agent at {endpoint} says: {}", status.message()))
    })
}

fn state_name(state: i32) -> &'static str {
    match State::try_from(state) {
        Ok(State::Applied) => "Applied",
        Ok(State::Degraded) => "Degraded",
        Ok(State::Refused) => "Refused",
        Ok(State::Pending) => "Pending",
        Ok(State::Unspecified) | Err(_) => "Unknown",
    }
}

fn status_text(answer: &v1::GetStatusResponse) -> String {
    let status = answer.status.clone().unwrap_or_default();
    let controller = if answer.controller_connected { "connected" } else { "away" };
    let mut lines = vec![
        format!("node {}", answer.node),
        format!("controller {controller}"),
        format!("generation {}", status.applied_generation),
        format!("journal backlog {} records", status.journal_backlog_records),
    ];
    lines.extend(answer.pods.iter().flat_map(pods_lines));
    let line =
        |mark: &str, reason: &v1::Reason| format!("{mark} {}: {}", reason.subject, reason.message);
    lines.extend(status.reasons.iter().map(|reason| line("!", reason)));
    for one in &status.virtual_clusters {
        let (name, state) = (&one.name, state_name(one.state));
        lines.push(format!("\n{name} {state} (mended {})", one.mended));
        lines.extend(one.reasons.iter().map(|reason| line(" ", reason)));
    }
    let controls = answer.facts.clone().unwrap_or_default().controls;
    let missing: Vec<_> = controls.iter().filter(|control| !control.supported).collect();
    if !missing.is_empty() {
        lines.push("\nnot enforceable on this node:".to_owned());
    }
    lines
        .extend(missing.iter().map(|control| format!("  {}: {}", control.control, control.reason)));
    lines.join("\n") + "\n"
}

fn pods_lines(pods: &v1::NodePods) -> Vec<String> {
    let runtime = if pods.runtime.is_empty() {
        format!("runtime away ({})", pods.runtime_away)
    } else {
        format!("runtime {}", pods.runtime)
    };
    let registered = pods.registered.iter().map(|one| {
        let uncounted = match one.ended_uncounted {
            0 => String::new(),
            count => format!(", {count} went without a last count"),
        };
        format!("pods of {}: {}{uncounted}", one.virtual_cluster, one.pods)
    });
    let others = format!(
        "other pods: {} of nobody, {} never cut off, {} not known",
        pods.of_nobody, pods.exempt, pods.unknown
    );
    let late = pods.late.as_ref().map(late_line);
    [runtime].into_iter().chain(late).chain(registered).chain([others]).collect()
}

fn late_line(late: &v1::LatePods) -> String {
    let milliseconds = |nanoseconds: u64| nanoseconds.div_ceil(1_000_000);
    format!(
        "pods are registered when the controller tells: {} waited, the last {} ms, the longest {} ms; \
         {} wait now",
        late.registered,
        milliseconds(late.last_nanoseconds),
        milliseconds(late.longest_nanoseconds),
        late.waiting
    )
}

fn late_json(late: &v1::LatePods) -> serde_json::Value {
    serde_json::json!({
        "registered": late.registered,
        "last_nanoseconds": late.last_nanoseconds,
        "longest_nanoseconds": late.longest_nanoseconds,
        "waiting": late.waiting,
    })
}

fn pods_json(pods: &v1::NodePods) -> serde_json::Value {
    let registered = pods.registered.iter().map(|one| {
        serde_json::json!({
            "virtual_cluster": one.virtual_cluster,
            "pods": one.pods,
            "ended_uncounted": one.ended_uncounted,
        })
    });
    serde_json::json!({
        "runtime": pods.runtime,
        "runtime_away": pods.runtime_away,
        "registered": registered.collect::<Vec<_>>(),
        "exempt": pods.exempt,
        "of_nobody": pods.of_nobody,
        "unknown": pods.unknown,
        "late": pods.late.as_ref().map(late_json),
    })
}

fn status_json(answer: &v1::GetStatusResponse) -> Result<String> {
    let status = answer.status.clone().unwrap_or_default();
    let reasons = |reasons: &[v1::Reason]| {
        let one = |reason: &v1::Reason| serde_json::json!({ "subject": reason.subject, "message": reason.message });
        reasons.iter().map(one).collect::<Vec<_>>()
    };
    let one = |one: &v1::VirtualClusterNodeStatus| {
        serde_json::json!({
            "name": one.name,
            "state": state_name(one.state),
            "mended": one.mended,
            "reasons": reasons(&one.reasons),
        })
    };
    let controls = answer.facts.clone().unwrap_or_default().controls;
    let control = |control: &v1::ControlSupport| {
        serde_json::json!({
            "control": control.control,
            "supported": control.supported,
            "reason": control.reason,
        })
    };
    let value = serde_json::json!({
        "node": answer.node,
        "controller_connected": answer.controller_connected,
        "applied_generation": status.applied_generation,
        "journal_backlog_records": status.journal_backlog_records,
        "reasons": reasons(&status.reasons),
        "virtual_clusters": status.virtual_clusters.iter().map(one).collect::<Vec<_>>(),
        "controls": controls.iter().map(control).collect::<Vec<_>>(),
        "pods": answer.pods.as_ref().map(pods_json),
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(generation: u64, states: &[State]) -> v1::GetStatusResponse {
        let one = |state: &State| v1::VirtualClusterNodeStatus {
            state: i32::from(*state),
            ..v1::VirtualClusterNodeStatus::default()
        };
        let node = v1::NodeStatus {
            applied_generation: generation,
            virtual_clusters: states.iter().map(one).collect(),
            ..v1::NodeStatus::default()
        };
        v1::GetStatusResponse { status: Some(node), ..v1::GetStatusResponse::default() }
    }

    #[test]
    fn a_node_enforces_when_nothing_is_refused_or_still_to_come() {
        for (generation, states, expected) in [
            (0, &[][..], false),
            (1, &[][..], true),
            (1, &[State::Applied, State::Degraded][..], true),
            (1, &[State::Applied, State::Pending][..], false),
            (1, &[State::Refused][..], false),
        ] {
            let answer = answer(generation, states);
            assert_eq!(is(Expected::Enforcing, &answer), expected, "{generation} {states:?}");
            assert!(is(Expected::Running, &answer));
        }
    }
}
