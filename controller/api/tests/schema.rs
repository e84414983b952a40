//! The schemas are ones that an API server takes, and that bound what it stores.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Every schema of ours: the kind and the schema.
fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let schema = crd.spec.versions[0].schema.as_ref().expect("a schema");
        let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref()).expect("JSON");
        (crd.spec.names.kind.clone(), schema)
    };
    bulkhead_api::crd::definitions().iter().map(schema).collect()
}

/// Visits every schema node with its path.
fn walk(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    let fields = node.as_object().expect("a schema is an object");
    visit(path, fields);
    for (name, property) in
        fields.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = fields.get(key) {
            walk(&format!("{path}[]"), below, visit);
        }
    }
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    fields.get(key).and_then(Value::as_str)
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
#[test]
fn schemas_are_structural() {
    for (kind, schema) in schemas() {
        let mut nodes = 0;
        walk(&kind, &schema, &mut |path, fields| {
            nodes += 1;
            let any = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
            let is_any = any.iter().any(|key| fields.get(*key) == Some(&Value::Bool(true)));
            let types = ["array", "boolean", "integer", "object", "string"];
            let has_type = text(fields, "type").is_some_and(|it| types.contains(&it));
            assert!(has_type != is_any, "{path} has one type, or may be anything");
            for forbidden in
                ["$ref", "anyOf", "oneOf", "allOf", "not", "definitions", "dependencies", "id"]
            {
                assert!(!fields.contains_key(forbidden), "{path} has {forbidden}");
            }
            let both =
                fields.contains_key("properties") && fields.contains_key("additionalProperties");
            assert!(!both, "{path} has properties and additionalProperties");
            assert_eq!(
                text(fields, "type") == Some("array"),
                fields.contains_key("items"),
                "{path}"
            );
            for required in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
                let required = required.as_str().expect("a name");
                assert!(fields["properties"].get(required).is_some(), "{path} requires {required}");
            }
        });
        assert!(nodes > 10, "{kind} was looked at");
    }
}

/// Whatever users or we write, an object has a bounded size, and rules a bounded cost.
#[test]
fn everything_that_can_grow_is_bounded() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, fields| {
            let has = |key: &str| fields.contains_key(key);
            match text(fields, "type") {
                Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
                Some("string") => assert!(
                    has("maxLength") || has("enum") || text(fields, "format") == Some("date-time"),
                    "{path} has no bound"
                ),
                Some("object") if has("additionalProperties") => {
                    assert!(has("maxProperties"), "{path} has no maxProperties");
                }
                _ => {}
            }
        });
    }
}

#[test]
fn lists_with_keys_have_them_and_they_are_required() {
    let mut keyed = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, fields| {
            let keys = fields.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let is_map = text(fields, "x-kubernetes-list-type") == Some("map");
            assert_eq!(is_map, keys.is_some(), "{path}");
            for key in keys.into_iter().flatten() {
                assert!(fields["items"]["properties"].get(key.as_str().expect("text")).is_some());
                let required = fields["items"]["required"].as_array().expect("required");
                assert!(required.contains(key), "{path}: {key} is required");
                keyed.push(path.to_owned());
            }
        });
    }
    for path in [
        "VirtualCluster.status.conditions",
        "VirtualCluster.spec.network.allow",
        "VirtualCluster.spec.perNode.limit.io",
        "BulkheadConfig.status.conditions",
    ] {
        assert!(keyed.iter().any(|it| it == path), "{path} is not among {keyed:?}");
    }
}

#[test]
fn only_what_is_honest_has_a_default() {
    let mut defaults = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, fields| {
            if let Some(value) = fields.get("default") {
                let known = fields.get("enum").and_then(Value::as_array).expect("an enum");
                assert!(known.contains(value), "{path}: {value} is none of {known:?}");
                defaults.push(format!("{path}={}", value.as_str().expect("text")));
            }
        });
    }
    let expected =
        ["BulkheadConfig.spec.onStale=AllowCounted", "BulkheadConfig.spec.unknown=Allow"];
    assert_eq!(defaults, expected);
}

#[test]
fn every_field_says_what_it_is() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema["properties"]["spec"], &mut |path, fields| {
            let of_list = path.ends_with("[]");
            assert!(of_list || text(fields, "description").is_some(), "{path} has no description");
        });
    }
}

#[test]
fn virtual_clusters_have_columns_a_status_and_a_category() {
    for crd in bulkhead_api::crd::definitions() {
        let version = &crd.spec.versions[0];
        let subresources = version.subresources.as_ref().expect("subresources");
        assert!(subresources.status.is_some(), "{}", crd.spec.names.kind);
        assert_eq!(crd.spec.names.categories.as_deref(), Some(&["bulkhead".to_owned()][..]));
    }
    let [crd, ..] = bulkhead_api::crd::definitions();
    let columns = crd.spec.versions[0].additional_printer_columns.clone().expect("columns");
    let shown: Vec<(&str, i32)> =
        columns.iter().map(|it| (it.name.as_str(), it.priority.unwrap_or(0))).collect();
    let expected = [
        ("Mode", 0),
        ("Pods", 0),
        ("Nodes", 0),
        ("Ready", 0),
        ("Enforced", 0),
        ("Class", 1),
        ("Age", 0),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_definitions_that_are_deployed_are_these() {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for (name, yaml) in bulkhead_api::crd::files().expect("YAML") {
        let path = deployed.join(&name);
        let there = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(there, yaml, "{name} is old: run `cargo xtask codegen`");
    }
}
