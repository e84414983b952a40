//! A `VirtualCluster` as far as a change of its mode goes. It is read leniently: an object that
//! this version does not understand can be switched off all the same.

use bulkhead_api::object::Mode;
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// What is known of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// What its spec asks for; none: the class's or the default.
    pub(crate) asked: Option<String>,
    /// What was in effect when the controller last looked.
    pub(crate) in_effect: Option<String>,
    pub(crate) generation: i64,
    pub(crate) observed: i64,
    pub(crate) conditions: Vec<Said>,
}

/// One condition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// How far a change is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It is in effect on every node that has pods of it.
    Done(String),
    /// Not yet.
    Waiting(String),
    /// It will not be until somebody does something.
    Refused(String),
}

impl Described {
    /// As the API server has it.
    pub(crate) fn of(object: &DynamicObject) -> Self {
        let text =
            |path: &str| object.data.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
        let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            asked: text("/spec/network/mode"),
            in_effect: text("/status/mode"),
            generation: object.metadata.generation.unwrap_or(0),
            observed: object
                .data
                .pointer("/status/observedGeneration")
                .and_then(Value::as_i64)
                .unwrap_or(0),
            conditions: conditions.into_iter().flatten().map(Said::of).collect(),
        }
    }

    fn said(&self, kind: &str) -> Option<&Said> {
        self.conditions.iter().find(|said| said.kind == kind)
    }

    /// Whether its nodes have `wanted`.
    pub(crate) fn progress(&self, wanted: Mode) -> Progress {
        if self.observed < self.generation {
            let message = "the controller has not looked at it yet; see its pods \
                           (app.kubernetes.io/name=bulkhead-controller)";
            return Progress::Waiting(message.to_owned());
        }
        let (Some(ready), Some(enforced)) = (self.said("Ready"), self.said("Enforced")) else {
            return Progress::Waiting("its status says nothing yet".to_owned());
        };
        if ready.status == "False" && matches!(ready.reason.as_str(), "Invalid" | "Refused") {
            return Progress::Refused(ready.told());
        }
        match wanted {
            Mode::Enforce => match (enforced.status.as_str(), enforced.reason.as_str()) {
                ("True", _) | ("Unknown", "NoPods") => Progress::Done(enforced.message.clone()),
                _ => Progress::Waiting(enforced.told()),
            },
            Mode::Observe | Mode::Off => {
                let reason = if wanted == Mode::Off { "Off" } else { "Observing" };
                match (enforced.reason == reason, ready.status.as_str()) {
                    (false, _) => Progress::Waiting(enforced.told()),
                    (true, "True") => Progress::Done(ready.message.clone()),
                    (true, _) => Progress::Waiting(ready.told()),
                }
            }
        }
    }
}

impl Said {
    fn of(condition: &Value) -> Self {
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Self {
            kind: text("type"),
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        }
    }

    fn told(&self) -> String {
        format!("{}: {}", self.reason, self.message)
    }
}

/// As objects have it.
pub(crate) fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "Enforce",
        Mode::Observe => "Observe",
        Mode::Off => "Off",
    }
}

/// What sets the mode of an object; none: takes it out, so that the class's or the default holds.
pub(crate) fn mode_change(mode: Option<&str>) -> Value {
    json!({ "spec": { "network": { "mode": mode } } })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object of generation 2 of which this is said.
    pub(crate) fn object(observed: i64, said: &[(&str, &str, &str)]) -> DynamicObject {
        let condition = |(kind, status, reason): &(&str, &str, &str)| {
            let message = format!("about {kind}");
            json!({ "type": kind, "status": status, "reason": reason, "message": message })
        };
        let conditions: Vec<Value> = said.iter().map(condition).collect();
        serde_json::from_value(json!({
            "metadata": { "name": "team-a", "generation": 2 },
            "spec": { "network": { "mode": "Observe" }, "field-of-a-later-version": 1 },
            "status": { "observedGeneration": observed, "mode": "Observe", "conditions": conditions },
        }))
        .expect("an object")
    }

    fn progress(observed: i64, said: &[(&str, &str, &str)], wanted: Mode) -> Progress {
        Described::of(&object(observed, said)).progress(wanted)
    }

    #[test]
    fn an_object_of_another_version_is_read_too() {
        let described = Described::of(&object(2, &[]));
        assert_eq!(described.name, "team-a");
        assert_eq!(described.asked.as_deref(), Some("Observe"));
        assert_eq!(described.in_effect.as_deref(), Some("Observe"));
        let empty: DynamicObject =
            serde_json::from_value(json!({ "metadata": { "name": "x" } })).expect("an object");
        assert_eq!(Described::of(&empty).asked, None);
    }

    #[test]
    fn what_was_said_of_an_older_form_is_not_believed() {
        let old = [("Ready", "True", "Applied"), ("Enforced", "True", "Enforced")];
        assert!(matches!(progress(1, &old, Mode::Enforce), Progress::Waiting(_)));
        assert!(matches!(progress(2, &old, Mode::Enforce), Progress::Done(_)));
        assert!(matches!(progress(2, &[], Mode::Enforce), Progress::Waiting(_)));
    }

    #[test]
    fn enforcing_is_done_when_the_condition_says_so() {
        let with = |status, reason| {
            let said = [("Ready", "False", "Progressing"), ("Enforced", status, reason)];
            progress(2, &said, Mode::Enforce)
        };
        assert_eq!(with("True", "Enforced"), Progress::Done("about Enforced".to_owned()));
        assert!(matches!(with("Unknown", "NoPods"), Progress::Done(_)));
        assert!(matches!(with("Unknown", "AgentAway"), Progress::Waiting(_)));
        let degraded = Progress::Waiting("Degraded: about Enforced".to_owned());
        assert_eq!(with("False", "Degraded"), degraded);
    }

    #[test]
    fn off_is_done_when_every_node_has_it() {
        let with = |ready: (&'static str, &'static str), reason| {
            let said = [("Ready", ready.0, ready.1), ("Enforced", "False", reason)];
            progress(2, &said, Mode::Off)
        };
        assert!(matches!(with(("True", "Applied"), "Off"), Progress::Done(_)));
        assert!(matches!(with(("True", "Applied"), "Observing"), Progress::Waiting(_)));
        assert!(matches!(with(("False", "Progressing"), "Off"), Progress::Waiting(_)));
        // It hides whether the nodes have it.
        assert!(matches!(with(("False", "Conflict"), "Off"), Progress::Waiting(_)));
        assert!(matches!(with(("False", "Invalid"), "Off"), Progress::Refused(_)));
    }

    #[test]
    fn a_mode_that_was_not_there_is_taken_out_again() {
        assert_eq!(mode_change(Some("Off")).to_string(), r#"{"spec":{"network":{"mode":"Off"}}}"#);
        assert_eq!(mode_change(None).to_string(), r#"{"spec":{"network":{"mode":null}}}"#);
    }
}
