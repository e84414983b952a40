//! What the controller writes to the API server: status, Events, and that a node's agent is
//! ready. Only the replica that holds the Lease does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::catalogue::Subject;
use bulkhead_api::{BulkheadConfig, GROUP, VERSION, VirtualCluster, VirtualClusterClass};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Resource;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::objects::title;
use super::picture::Picture;
use super::seen::NOT_READY;
use super::standing::{Agents, Wanted, wanted};
use crate::status::Nodes;

/// Who writes status, as server-side apply names it.
const MANAGER: &str = "bulkhead-controller";

/// How often it is looked whether anything is to be written.
const TURN: Duration = Duration::from_secs(1);
/// Most that is written in one turn.
const MOST: usize = 25;
/// How long a status stands at least while nothing but counts changes.
const COUNTS: Duration = Duration::from_secs(10);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Events about objects of no namespace are: all servers take them there, and old ones
/// nowhere else.
const EVENTS: &str = "kube-system";
/// Longest note of an Event in bytes: the API server takes 1,024.
const NOTE: usize = 1_000;

/// Writes to the API server.
pub(crate) struct Speaker {
    client: Client,
    me: String,
    nodes: Arc<Nodes>,
    pictures: watch::Receiver<Arc<Picture>>,
    holds: watch::Receiver<bool>,
    /// When each was written last.
    written: HashMap<Subject, Instant>,
}

impl Speaker {
    pub(crate) fn new(
        client: Client,
        me: String,
        nodes: Arc<Nodes>,
        pictures: watch::Receiver<Arc<Picture>>,
        holds: watch::Receiver<bool>,
    ) -> Self {
        Self { client, me, nodes, pictures, holds, written: HashMap::new() }
    }

    /// Writes until `ending` becomes true.
    pub(crate) async fn run(mut self, mut ending: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TURN) => {}
                _ = ending.wait_for(|ending| *ending) => return,
            }
            if *self.holds.borrow() {
                self.turn().await;
            }
        }
    }

    async fn turn(&mut self) {
        let picture = Arc::clone(&self.pictures.borrow());
        let agents = Agents::new(self.nodes.list("", usize::MAX));
        for (node, _) in picture.waiting.iter().filter(|(node, _)| agents.is_ready(node)).take(MOST)
        {
            if !self.said("remove the taint", node, self.welcome(node)).await {
                return;
            }
        }
        let wanted = wanted(&picture, &agents, &Time(Timestamp::now()));
        let due = wanted.into_iter().filter(|it| self.is_due(it)).take(MOST);
        for wanted in due.collect::<Vec<_>>() {
            let (_, name) = title(&wanted.subject);
            if !self.said("write the status", name, self.write(&wanted)).await {
                return;
            }
            self.written.insert(wanted.subject.clone(), Instant::now());
            for condition in &wanted.news {
                if !self.said("write an Event", name, self.tell(&wanted, condition)).await {
                    return;
                }
            }
        }
        self.written.retain(|_, at| at.elapsed() < COUNTS);
    }

    fn is_due(&self, wanted: &Wanted) -> bool {
        let long_ago = |at: &Instant| at.elapsed() >= if wanted.matters { TURN } else { COUNTS };
        self.written.get(&wanted.subject).is_none_or(long_ago)
    }

    /// Whether the API server answers. What was not done is tried again with what is wanted then.
    async fn said(
        &self,
        operation: &str,
        name: &str,
        done: impl Future<Output = kube::Result<()>>,
    ) -> bool {
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(Ok(())) => true,
            // It went meanwhile, or somebody else changed it.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => true,
            Ok(Err(error @ kube::Error::Api(_))) => {
                tracing::warn!(error = crate::reason::chain(&error), name, "{operation}");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(error = crate::reason::chain(&error), name, "{operation}");
                false
            }
            Err(_) => {
                tracing::warn!(name, "{operation}: the API server took too long");
                false
            }
        }
    }

    async fn write(&self, wanted: &Wanted) -> kube::Result<()> {
        let status = &wanted.status;
        match &wanted.subject {
            Subject::VirtualCluster(name) => self.apply::<VirtualCluster>(name, status).await,
            Subject::VirtualClusterClass(name) => {
                self.apply::<VirtualClusterClass>(name, status).await
            }
            Subject::BulkheadConfig(name) => self.apply::<BulkheadConfig>(name, status).await,
        }
    }

    async fn apply<K>(&self, name: &str, status: &Value) -> kube::Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        api.patch_status(name, &params, &Patch::Apply(&patch)).await.map(drop)
    }

    async fn tell(&self, wanted: &Wanted, condition: &Condition) -> kube::Result<()> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), EVENTS);
        let event = event(wanted, condition, &self.me, Timestamp::now());
        events.create(&PostParams::default(), &event).await.map(drop)
    }

    /// Lets pods come to a node.
    async fn welcome(&self, node: &str) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes.get(node).await?;
        let taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let kept: Vec<_> = taints.into_iter().filter(|taint| taint.key != NOT_READY).collect();
        // The list is replaced as a whole: with the version that was read, nobody else's taint is
        // lost.
        let patch = json!({
            "metadata": { "resourceVersion": found.metadata.resource_version },
            "spec": { "taints": kept },
        });
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await?;
        tracing::info!(node, "its agent enforces: the taint is removed");
        Ok(())
    }
}

/// What a condition became, as an Event. It is told once, when it becomes so, so that there is
/// nothing to be counted.
fn event(wanted: &Wanted, condition: &Condition, me: &str, now: Timestamp) -> Event {
    let (kind, name) = title(&wanted.subject);
    let regarding = ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(wanted.uid.clone()),
        ..ObjectReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(format!("{name}.{:x}", now.as_nanosecond())),
        namespace: Some(EVENTS.to_owned()),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        regarding: Some(regarding),
        type_: Some("Warning".to_owned()),
        action: Some(condition.type_.clone()),
        reason: Some(condition.reason.clone()),
        note: Some(shortened(&condition.message, NOTE)),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(format!("{GROUP}/controller")),
        reporting_instance: Some(me.to_owned()),
        ..Event::default()
    }
}

/// The first bytes of a text, at a character's end.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_ends_at_a_character() {
        assert_eq!(shortened("short", 1_000), "short");
        let long = shortened(&"ä".repeat(600), 1_000);
        assert!(long.len() <= 1_000 && long.ends_with("ä…"), "{} bytes", long.len());
    }
}
