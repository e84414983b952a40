//! The way back: what is switched off, what that leaves, and how to undo it.

use std::fmt::Write as _;

use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::CONFIG;
use crate::cluster::described::{Described, Progress, mode_change};
use crate::units;

/// What `off` did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Off {
    /// Each virtual cluster that it was about.
    pub(crate) virtual_clusters: Vec<Switched>,
    /// The `BulkheadConfig`, where it refuses anything; none: left as it is.
    pub(crate) config: Option<Switched>,
    /// Nodes that are not known to have it.
    pub(crate) silent_nodes: Vec<Silent>,
    /// What takes everything off those nodes.
    pub(crate) commands: Vec<String>,
    /// What makes everything as it was.
    pub(crate) undo: Vec<String>,
}

/// An object that was switched off.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Switched {
    /// Its name.
    pub(crate) name: String,
    /// The mode that it asked for; none: the class's or the default.
    pub(crate) before: Option<String>,
    /// How far it is.
    pub(crate) outcome: Outcome,
    /// In words.
    pub(crate) message: String,
}

/// How far a switch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) enum Outcome {
    /// On every node that has pods of it.
    Applied,
    /// The object says so; not every node is known to have it.
    #[default]
    Pending,
    /// The object could not be changed.
    Failed,
}

/// A node that is not known to have it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Silent {
    /// Its name.
    pub(crate) name: String,
    /// Why not.
    pub(crate) why: String,
}

/// A merge patch of the `BulkheadConfig` that refuses nothing, and one that undoes it; none where
/// it refuses nothing.
///
/// Every virtual cluster gets a mode of its own, so `defaultMode` matters to new ones only; pods
/// of no virtual cluster are cut off by `unknown`, whatever the modes are.
pub(crate) fn config_change(config: &DynamicObject) -> Option<(Value, Value)> {
    let (mut change, mut undo) = (Map::new(), Map::new());
    for (field, refuses, lets) in [("defaultMode", "Enforce", "Off"), ("unknown", "Deny", "Allow")]
    {
        if config.data["spec"][field] == refuses {
            change.insert(field.to_owned(), lets.into());
            undo.insert(field.to_owned(), refuses.into());
        }
    }
    let spec = |fields: Map<String, Value>| json!({ "spec": fields });
    (!change.is_empty()).then(|| (spec(change), spec(undo)))
}

/// What a shell undoes the change of an object with.
pub(crate) fn undo_virtual_cluster(name: &str, before: Option<&str>) -> String {
    undo("virtualcluster.bulkhead.dev", name, &mode_change(before))
}

/// The same for the `BulkheadConfig`.
pub(crate) fn undo_config(change: &Value) -> String {
    undo("bulkheadconfig.bulkhead.dev", CONFIG, change)
}

fn undo(kind: &str, name: &str, change: &Value) -> String {
    format!("kubectl patch {kind} {name} --type=merge --patch='{change}'")
}

impl Switched {
    /// What is known of an object that was changed.
    pub(crate) fn standing(&mut self, progress: &Progress) {
        (self.outcome, self.message) = match progress {
            Progress::Done(message) => (Outcome::Applied, message.clone()),
            Progress::Waiting(message) | Progress::Refused(message) => {
                (Outcome::Pending, message.clone())
            }
        };
    }

    /// The object was switched off; nothing is known of the nodes yet.
    pub(crate) fn of(before: &Described) -> Self {
        let (name, before) = (before.name.clone(), before.asked.clone());
        Self { name, before, ..Self::default() }
    }

    /// It could not be.
    pub(crate) fn failed(before: &Described, why: &impl ToString) -> Self {
        Self { outcome: Outcome::Failed, message: why.to_string(), ..Self::of(before) }
    }
}

impl Off {
    /// Whether all of it is known to be off.
    pub(crate) fn is_done(&self) -> bool {
        self.all().all(|switched| switched.outcome == Outcome::Applied)
    }

    /// Whether nodes may still have to take it.
    pub(crate) fn is_pending(&self) -> bool {
        self.all().any(|switched| switched.outcome == Outcome::Pending)
    }

    fn all(&self) -> impl Iterator<Item = &Switched> {
        self.virtual_clusters.iter().chain(&self.config)
    }

    /// Names the nodes that are not known to have it, and what helps them.
    pub(crate) fn leave(&mut self, silent: Vec<Silent>, namespace: &str) {
        if !silent.is_empty() {
            self.commands = vec![
                format!("kubectl --namespace {namespace} delete daemonset bulkhead-agent"),
                "kubectl apply --kustomize deploy/uninstall".to_owned(),
                "bulkhead-agent detach".to_owned(),
            ];
        }
        self.silent_nodes = silent;
    }

    /// In lines for people.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        for Switched { name, before, outcome, message } in &self.virtual_clusters {
            let before = before.as_deref().unwrap_or("its class's or the default");
            let (name, message) = (units::plain(name), units::plain(message));
            let _ = writeln!(text, "{name}: was {before}, Off {}: {message}", outcome.told());
        }
        if let Some(Switched { outcome, message, .. }) = &self.config {
            let message = units::plain(message);
            let _ = writeln!(text, "BulkheadConfig: Off {}: {message}", outcome.told());
        }
        if !self.silent_nodes.is_empty() {
            text.push_str("\nNot known to have it, so what they enforced last may go on:\n");
            for Silent { name, why } in &self.silent_nodes {
                let _ = writeln!(text, "  {}: {}", units::plain(name), units::plain(why));
            }
        }
        if let [delete, apply, detach] = self.commands.as_slice() {
            text.push_str("\nTo take everything off every node, with our files at hand:\n");
            let _ = writeln!(text, "  {delete}\n  {apply}");
            text.push_str("or, as root on each of these nodes, its agent stopped:\n");
            let _ = writeln!(text, "  {detach}");
            text.push_str("or without any program of ours: docs/operate.md, Off.\n");
        }
        if !self.undo.is_empty() {
            text.push_str("\nTo undo it:\n");
            for command in &self.undo {
                let _ = writeln!(text, "  {}", units::plain(command));
            }
        }
        text
    }
}

impl Outcome {
    fn told(self) -> &'static str {
        match self {
            Self::Applied => "on every node that has its pods",
            Self::Pending => "is asked for, but not known to be everywhere",
            Self::Failed => "could not be asked for",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(spec: &Value) -> DynamicObject {
        let object = json!({ "metadata": { "name": "default" }, "spec": spec });
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn only_what_refuses_something_is_changed() {
        let change = |spec| config_change(&config(&spec));
        assert_eq!(change(json!({})), None);
        assert_eq!(change(json!({ "defaultMode": "Observe", "unknown": "Allow" })), None);
        let (change, undo) =
            change(json!({ "defaultMode": "Enforce", "unknown": "Deny", "onStale": "Deny" }))
                .expect("a change");
        assert_eq!(change, json!({ "spec": { "defaultMode": "Off", "unknown": "Allow" } }));
        assert_eq!(undo, json!({ "spec": { "defaultMode": "Enforce", "unknown": "Deny" } }));
    }

    #[test]
    fn undoing_is_a_line_for_a_shell() {
        assert_eq!(
            undo_virtual_cluster("team-a", None),
            "kubectl patch virtualcluster.bulkhead.dev team-a --type=merge \
             --patch='{\"spec\":{\"network\":{\"mode\":null}}}'"
        );
    }

    fn switched(name: &str, before: Option<&str>, progress: &Progress) -> Switched {
        let described = Described {
            name: name.to_owned(),
            asked: before.map(ToOwned::to_owned),
            ..Described::default()
        };
        let mut switched = Switched::of(&described);
        switched.standing(progress);
        switched
    }

    #[test]
    fn a_failure_is_no_reason_to_wait() {
        let failed = Switched::failed(&Described::default(), &"no right");
        let off = Off { virtual_clusters: vec![failed], ..Off::default() };
        assert!(!off.is_done() && !off.is_pending());
        let done = Off {
            virtual_clusters: vec![switched("a", None, &Progress::Done(String::new()))],
            ..Off::default()
        };
        assert!(done.is_done() && !done.is_pending());
        assert!(Off::default().is_done());
    }

    #[test]
    fn nodes_that_were_not_heard_of_come_with_what_helps() {
        let waiting = Progress::Waiting("Progressing: not on 1 of 2 nodes".to_owned());
        let mut off = Off {
            virtual_clusters: vec![
                switched("team-a", Some("Enforce"), &Progress::Done("on all".to_owned())),
                switched("team-b", None, &waiting),
            ],
            undo: vec![undo_virtual_cluster("team-a", Some("Enforce"))],
            ..Off::default()
        };
        assert!(!off.is_done() && off.is_pending());
        off.leave(Vec::new(), "bulkhead-system");
        assert_eq!(off.commands, Vec::<String>::new());
        let silent = Silent { name: "worker-2".to_owned(), why: "its agent is away".to_owned() };
        off.leave(vec![silent], "bulkhead-system");
        insta::assert_snapshot!(off.told());
    }
}
