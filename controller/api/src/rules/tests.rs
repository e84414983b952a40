//! Each rule in CEL, evaluated, beside its check in Rust.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::catalogue::{Objects, Standing};
use crate::object::{
    Allow, BulkheadConfigSpec, LabelOperator, LabelRequirement, LabelSelector, Members, Network,
    Preset, PresetKind, VirtualClusterSpec,
};
use crate::{BulkheadConfig, VirtualCluster, crd};

fn schema(plural: &str) -> Value {
    let definitions = crd::definitions();
    let found = definitions.iter().find(|crd| crd.spec.names.plural == plural).unwrap();
    let schema = found.spec.versions[0].schema.as_ref().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// Messages of the rules that an API server with CEL would refuse an object by.
fn by_cel(plural: &str, object: &Value) -> BTreeSet<String> {
    match kube_cel::validate(&schema(plural), object, None) {
        Ok(()) => BTreeSet::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// Messages of the rules that the controller refuses it by; what else is wrong is left out.
fn by_rust(objects: &Objects) -> BTreeSet<String> {
    let standing = Standing::of(objects, &Objects::default());
    let told = standing.problems.values().flatten();
    let rules = told
        .filter_map(|problem| ALL.iter().find(|rule| problem.message.starts_with(rule.message)));
    rules.map(|rule| rule.message.to_owned()).collect()
}

fn told(object: &VirtualCluster) -> [BTreeSet<String>; 2] {
    let name = object.metadata.name.clone().unwrap();
    let objects =
        Objects { virtual_clusters: [(name, object.clone())].into(), ..Objects::default() };
    let json = serde_json::to_value(object).unwrap();
    [by_cel("virtualclusters", &json), by_rust(&objects)]
}

fn both_say(object: &VirtualCluster, rule: Option<Rule>) {
    let expected: BTreeSet<String> = rule.iter().map(|rule| rule.message.to_owned()).collect();
    let [cel, rust] = told(object);
    assert_eq!(cel, expected, "CEL of {object:?}");
    assert_eq!(rust, expected, "Rust of {object:?}");
}

fn cluster(members: Members) -> VirtualCluster {
    let spec = VirtualClusterSpec { members: Some(members), ..VirtualClusterSpec::default() };
    VirtualCluster::new("team-a", spec)
}

fn named(name: &str) -> VirtualCluster {
    VirtualCluster::new(name, VirtualClusterSpec::default())
}

fn selecting(pairs: &[(&str, &str)]) -> LabelSelector {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LabelSelector { match_labels: pairs.collect(), match_expressions: Vec::new() }
}

fn preset(kind: PresetKind, namespace: Option<&str>) -> VirtualCluster {
    let namespace = namespace.map(str::to_owned);
    let preset = Preset { kind, namespace, name: "x".to_owned() };
    cluster(Members { preset: Some(preset), ..Members::default() })
}

fn requiring(operator: LabelOperator, values: &[&str]) -> VirtualCluster {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let one = LabelRequirement { key: "tier".to_owned(), operator, values };
    let selector = LabelSelector { match_expressions: vec![one], ..LabelSelector::default() };
    cluster(Members { namespace_selector: Some(selector), ..Members::default() })
}

fn allowing(other: &str) -> VirtualCluster {
    let allow = Some(vec![Allow { virtual_cluster: other.to_owned() }]);
    let network = Some(Network { allow, ..Network::default() });
    VirtualCluster::new("team-a", VirtualClusterSpec { network, ..VirtualClusterSpec::default() })
}

#[test]
fn names_are_refused_by_both() {
    for wrong in ["Team", "a.b", "-a", "a-", &"x".repeat(64)] {
        both_say(&named(wrong), Some(NAME_OF_VIRTUAL_CLUSTER));
    }
    for right in ["a", "0", "team-a", &"x".repeat(63)] {
        both_say(&named(right), None);
    }
}

#[test]
fn allowing_oneself_is_refused_by_both() {
    both_say(&allowing("team-a"), Some(ALLOWS_ANOTHER));
    both_say(&allowing("team-b"), None);
}

#[test]
fn a_pod_selector_without_namespaces_is_refused_by_both() {
    let pods = Some(selecting(&[("tier", "web")]));
    let members = Members { pod_selector: pods, ..Members::default() };
    both_say(&cluster(members.clone()), Some(POD_SELECTOR_NARROWS));
    both_say(&cluster(Members { namespaces: vec!["a".to_owned()], ..members.clone() }), None);
    let selector = Some(selecting(&[("team", "a")]));
    both_say(&cluster(Members { namespace_selector: selector, ..members }), None);
}

#[test]
fn a_namespace_selector_for_everything_is_refused_by_both() {
    let of =
        |selector| cluster(Members { namespace_selector: Some(selector), ..Members::default() });
    both_say(&of(LabelSelector::default()), Some(NAMESPACE_SELECTOR_SELECTS));
    both_say(&of(selecting(&[("team", "a")])), None);
}

#[test]
fn presets_are_refused_by_both_where_their_namespace_does_not_fit() {
    for kind in [PresetKind::VCluster, PresetKind::K3k, PresetKind::ClusterApiNested] {
        both_say(&preset(kind, None), Some(PRESET_NEEDS_NAMESPACE));
        both_say(&preset(kind, Some("host")), None);
    }
    for kind in [PresetKind::Capsule, PresetKind::Hnc] {
        both_say(&preset(kind, Some("host")), Some(PRESET_HAS_NO_NAMESPACE));
        both_say(&preset(kind, None), None);
    }
}

#[test]
fn requirements_are_refused_by_both_where_values_do_not_fit() {
    for operator in [LabelOperator::In, LabelOperator::NotIn] {
        both_say(&requiring(operator, &[]), Some(OPERATOR_AND_VALUES));
        both_say(&requiring(operator, &["a", "b"]), None);
    }
    for operator in [LabelOperator::Exists, LabelOperator::DoesNotExist] {
        both_say(&requiring(operator, &["a"]), Some(OPERATOR_AND_VALUES));
        both_say(&requiring(operator, &[]), None);
    }
}

#[test]
fn a_device_without_a_rate_is_refused_by_both() {
    let of = |rate: &str| -> VirtualCluster {
        serde_json::from_value(json!({
            "apiVersion": "bulkhead.dev/v1alpha1",
            "kind": "VirtualCluster",
            "metadata": { "name": "team-a" },
            "spec": { "perNode": { "limit": { "io": [
                serde_json::from_str::<Value>(&format!("{{\"device\": \"/dev/vda\"{rate}}}")).unwrap(),
            ] } } },
        }))
        .unwrap()
    };
    both_say(&of(""), Some(IO_LIMITS_SOMETHING));
    for rate in ["readBytesPerSecond", "writeBytesPerSecond"] {
        both_say(&of(&format!(", \"{rate}\": \"1M\"")), None);
    }
    for rate in ["readOperationsPerSecond", "writeOperationsPerSecond"] {
        both_say(&of(&format!(", \"{rate}\": 100")), None);
    }
}

#[test]
fn a_second_configuration_is_refused_by_both() {
    for (name, rule) in [("default", None), ("other", Some(ONE_CONFIG))] {
        let object = BulkheadConfig::new(name, BulkheadConfigSpec::default());
        let json = serde_json::to_value(&object).unwrap();
        let configs = [(name.to_owned(), object)].into();
        let rust = by_rust(&Objects { configs, ..Objects::default() });
        let expected: BTreeSet<String> =
            rule.iter().map(|rule: &Rule| rule.message.to_owned()).collect();
        assert_eq!(by_cel("bulkheadconfigs", &json), expected);
        assert_eq!(rust, expected);
    }
}

/// Every rule in a schema, by its expression and message.
fn rules_of(schema: &Value, into: &mut BTreeSet<(String, String)>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let text = |key: &str| rule[key].as_str().unwrap().to_owned();
                into.insert((text("rule"), text("message")));
            }
            fields.values().for_each(|value| rules_of(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| rules_of(item, into)),
        _ => {}
    }
}

/// So a rule that is added to a schema without a check in Rust is found, and one that no schema
/// has.
#[test]
fn the_schemas_have_these_rules_and_no_others() {
    let mut written = BTreeSet::new();
    for plural in ["virtualclusters", "virtualclusterclasses", "bulkheadconfigs"] {
        rules_of(&schema(plural), &mut written);
    }
    let known = ALL.iter().map(|rule| (rule.cel.to_owned(), rule.message.to_owned()));
    assert_eq!(written, known.collect());
}

fn any_selector() -> impl Strategy<Value = LabelSelector> {
    use LabelOperator::{DoesNotExist, Exists, In, NotIn};
    let operator = prop_oneof![Just(In), Just(NotIn), Just(Exists), Just(DoesNotExist)];
    let values = proptest::collection::vec("[ab]", 0..2);
    let one = (operator, values).prop_map(|(operator, values)| LabelRequirement {
        key: "tier".to_owned(),
        operator,
        values,
    });
    let labels = proptest::collection::btree_map("[xy]", "[ab]", 0..2);
    (labels, proptest::collection::vec(one, 0..2)).prop_map(|(match_labels, match_expressions)| {
        LabelSelector { match_labels, match_expressions }
    })
}

fn any_preset() -> impl Strategy<Value = Preset> {
    use PresetKind::{Capsule, ClusterApiNested, Hnc, K3k, VCluster};
    let kinds = vec![Capsule, ClusterApiNested, Hnc, K3k, VCluster];
    let namespace = proptest::option::of("[a-c]");
    (proptest::sample::select(kinds), namespace).prop_map(|(kind, namespace)| Preset {
        kind,
        namespace,
        name: "x".to_owned(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What an API server with CEL refuses, the controller refuses too, and nothing else; with
    /// the same words.
    #[test]
    fn cel_and_rust_agree(
        namespaces in proptest::collection::btree_set("[a-c]", 0..3),
        namespace_selector in proptest::option::of(any_selector()),
        pod_selector in proptest::option::of(any_selector()),
        preset in proptest::option::of(any_preset()),
        name in "[aA]",
        allow in proptest::option::of("[ab]"),
    ) {
        let members = Members {
            namespaces: namespaces.into_iter().collect(),
            namespace_selector,
            pod_selector,
            preset,
            addresses: Vec::new(),
        };
        let mut object = cluster(members);
        object.metadata.name = Some(name);
        object.spec.network = allow.map(|other| Network {
            allow: Some(vec![Allow { virtual_cluster: other }]),
            ..Network::default()
        });
        let [cel, rust] = told(&object);
        // Whom it allows is only compared with a name that is one.
        prop_assert_eq!(cel, rust);
    }
}
