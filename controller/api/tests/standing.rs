//! Objects as Kubernetes holds them: what is wrong with one stops no other.

use std::collections::BTreeMap;

use bulkhead_api::catalogue::Subject;
use bulkhead_api::object::{BulkheadConfig, VirtualCluster, VirtualClusterClass};
use bulkhead_api::{Objects, Standing};
use bulkhead_core::{NanoCores, NetworkMode, OnStale, Unknown};
use serde::de::DeserializeOwned;
use serde_json::json;

/// An object of Kubernetes; `spec` in YAML, made at second `created` of a day.
fn object<T: DeserializeOwned>(kind: &str, name: &str, created: u8, spec: &str) -> T {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).expect("a spec");
    serde_json::from_value(json!({
        "apiVersion": "bulkhead.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "uid": format!("{kind}-{name}"),
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
        },
        "spec": spec,
    }))
    .expect("an object")
}

fn cluster(name: &str, created: u8, spec: &str) -> VirtualCluster {
    object("VirtualCluster", name, created, spec)
}

fn class(name: &str, spec: &str) -> VirtualClusterClass {
    object("VirtualClusterClass", name, 0, spec)
}

fn config(name: &str, spec: &str) -> BulkheadConfig {
    object("BulkheadConfig", name, 0, spec)
}

fn objects(clusters: &[VirtualCluster]) -> Objects {
    let named = clusters.iter().map(|it| (it.metadata.name.clone().expect("a name"), it.clone()));
    Objects { virtual_clusters: named.collect(), ..Objects::default() }
}

fn fresh(objects: &Objects) -> Standing {
    Standing::of(objects, &Objects::default())
}

fn subject(name: &str) -> Subject {
    Subject::VirtualCluster(name.to_owned())
}

/// Cores that a virtual cluster can have; `None`: it is not there.
fn cores(standing: &Standing, name: &str) -> Option<u64> {
    let definition = standing.catalogue.virtual_clusters.get(&name.parse().expect("a name"))?;
    match definition.limit.cpu {
        Some(bulkhead_core::Amount::Absolute(NanoCores(cores))) => Some(cores / 1_000_000_000),
        _ => Some(0),
    }
}

const WRONG: &str = "perNode: {limit: {cpu: x}}";

#[test]
fn one_that_is_wrong_stops_no_other() {
    let standing = fresh(&objects(&[
        cluster("right", 1, "perNode: {limit: {cpu: 2}}"),
        cluster("wrong", 2, WRONG),
    ]));
    assert_eq!(cores(&standing, "right"), Some(2));
    assert_eq!(cores(&standing, "wrong"), None);
    let problems = &standing.problems[&subject("wrong")];
    assert_eq!(problems[0].field, "spec.perNode.limit.cpu");
    assert_eq!(standing.problems.len(), 1);
}

#[test]
fn the_form_that_was_valid_last_stands_until_it_is_mended() {
    let before = fresh(&objects(&[cluster("a", 1, "perNode: {limit: {cpu: 2}}")]));
    let broken = Standing::of(&objects(&[cluster("a", 1, WRONG)]), &before.kept);
    assert_eq!(cores(&broken, "a"), Some(2));
    assert!(broken.problems.contains_key(&subject("a")));
    // And stays, however often it is looked at again.
    let still = Standing::of(&objects(&[cluster("a", 1, WRONG)]), &broken.kept);
    assert_eq!(still, broken);
    let mended =
        Standing::of(&objects(&[cluster("a", 1, "perNode: {limit: {cpu: 3}}")]), &still.kept);
    assert_eq!(cores(&mended, "a"), Some(3));
    assert_eq!(mended.problems, BTreeMap::new());
}

#[test]
fn another_object_of_the_same_name_inherits_nothing() {
    let before = fresh(&objects(&[cluster("a", 1, "perNode: {limit: {cpu: 2}}")]));
    let mut other = cluster("a", 2, WRONG);
    other.metadata.uid = Some("another".to_owned());
    let after = Standing::of(&objects(&[other]), &before.kept);
    assert_eq!(cores(&after, "a"), None);
    let gone = Standing::of(&Objects::default(), &before.kept);
    assert_eq!(gone, Standing::default(), "what was deleted is not kept");
}

#[test]
fn a_class_that_is_gone_or_wrong_changes_nothing_that_stands() {
    let gold = class("gold", "perNode: {limit: {cpu: 4}}");
    let mut now = objects(&[cluster("a", 1, "class: gold")]);
    now.classes.insert("gold".to_owned(), gold);
    let before = fresh(&now);
    assert_eq!(cores(&before, "a"), Some(4));
    // Gone: the object is wrong, and stands as it was; also the time after.
    now.classes.clear();
    let gone = Standing::of(&now, &before.kept);
    let gone = Standing::of(&now, &gone.kept);
    assert_eq!(cores(&gone, "a"), Some(4));
    assert_eq!(gone.problems[&subject("a")][0].field, "spec.class");
    // Wrong: only the class is.
    now.classes.insert("gold".to_owned(), class("gold", WRONG));
    let wrong = Standing::of(&now, &before.kept);
    assert_eq!(cores(&wrong, "a"), Some(4));
    let told: Vec<&Subject> = wrong.problems.keys().collect();
    assert_eq!(told, [&Subject::VirtualClusterClass("gold".to_owned())]);
    // Nobody names it any more: it is forgotten.
    let unnamed = Standing::of(&objects(&[cluster("a", 1, "{}")]), &gone.kept);
    assert!(unnamed.kept.classes.is_empty());
}

#[test]
fn the_one_configuration_is_the_default_one() {
    let mut now = objects(&[cluster("a", 1, "{}")]);
    let spec = "{defaultMode: Enforce, onStale: Deny, unknown: Deny, sharedServices: \
                [10.96.0.10, kube-system/kube-dns]}";
    now.configs.insert("default".to_owned(), config("default", spec));
    now.configs.insert("other".to_owned(), config("other", "defaultMode: \"Off\""));
    let standing = fresh(&now);
    let catalogue = &standing.catalogue;
    let (_, a) = catalogue.virtual_clusters.first_key_value().expect("one");
    assert_eq!(a.network.mode, NetworkMode::Enforce);
    assert_eq!(
        (catalogue.policy.on_stale, catalogue.policy.unknown),
        (OnStale::Deny, Unknown::Deny)
    );
    assert_eq!(catalogue.shared.len(), 1);
    let service = catalogue.shared_services.first().expect("one");
    assert_eq!((service.namespace.as_str(), service.name.as_str()), ("kube-system", "kube-dns"));
    let other = Subject::BulkheadConfig("other".to_owned());
    assert!(standing.problems[&other][0].message.contains("\"default\""));
    // A wrong one changes nothing.
    let wrong = config("default", "{defaultMode: Observe, sharedServices: [\"a b\"]}");
    now.configs = [("default".to_owned(), wrong)].into();
    let after = Standing::of(&now, &standing.kept);
    assert_eq!(after.catalogue, standing.catalogue);
    let default = Subject::BulkheadConfig("default".to_owned());
    assert_eq!(after.problems[&default][0].field, "spec.sharedServices[0]");
}

#[test]
fn of_two_that_name_an_address_the_older_keeps_it() {
    let wide = cluster("wide", 2, "members: {addresses: [10.0.0.0/8, 192.168.0.1]}");
    let narrow = cluster("narrow", 1, "members: {addresses: [10.1.0.0/16]}");
    let standing = fresh(&objects(&[wide, narrow]));
    let [overlap] = &standing.overlaps[..] else { panic!("{:?}", standing.overlaps) };
    assert_eq!((overlap.keeper.as_str(), overlap.loser.as_str()), ("narrow", "wide"));
    assert_eq!(
        (overlap.kept.to_string(), overlap.lost.to_string()),
        ("10.1.0.0/16".into(), "10.0.0.0/8".into())
    );
    let wide = &standing.catalogue.virtual_clusters[&"wide".parse().expect("a name")];
    let left: Vec<String> = wide.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(left, ["192.168.0.1"], "the rest of it stays");
    assert_eq!(standing.problems, BTreeMap::new(), "neither is invalid");
}

#[test]
fn closing_what_is_unknown_without_shared_services_is_a_warning() {
    let mut now = objects(&[cluster("a", 1, "network: {unknown: Deny}")]);
    let warned = fresh(&now).catalogue.warnings;
    assert!(warned[0].message.contains("DNS"), "{warned:?}");
    let dns = config("default", "sharedServices: [kube-system/kube-dns]");
    now.configs.insert("default".to_owned(), dns);
    let standing = fresh(&now);
    assert_eq!(standing.catalogue.warnings, []);
    let (_, a) = standing.catalogue.virtual_clusters.first_key_value().expect("one");
    assert_eq!(a.network.unknown, Unknown::Deny);
}
