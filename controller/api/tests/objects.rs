//! From what users write in files to a catalogue, or to problems that name place, object, field.

use bulkhead_api::{Catalogue, Document, Problems};
use bulkhead_core::{Amount, BasisPoints, Bytes, NanoCores, NetworkMode, VirtualClusterNumber};

fn build(files: &[(&str, &str)]) -> Result<Catalogue, Problems> {
    let mut documents = Vec::new();
    for (name, text) in files {
        documents.extend(Document::parse_all(name, text)?);
    }
    Catalogue::build(&documents)
}

/// A virtual cluster; `spec` is indented by two.
fn cluster(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata:\n  name: {name}\n\
         spec:\n{spec}\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    cluster(name, spec).replace("kind: VirtualCluster", &format!("kind: {kind}"))
}

/// The problems of one file, one for each line.
#[track_caller]
fn refused(text: &str) -> String {
    build(&[("team.yaml", text)]).expect_err("it is wrong").to_string()
}

#[track_caller]
fn refused_with(text: &str, parts: &[&str]) {
    let shown = refused(text);
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in {shown:?}");
    }
}

#[test]
fn one_that_only_names_members_limits_nothing_and_observes() {
    let text = cluster("team-a", "  members:\n    addresses: [10.1.0.0/16, fd00::7]");
    let catalogue = build(&[("a.yaml", &text)]).unwrap();
    let (name, definition) = catalogue.virtual_clusters.first_key_value().unwrap();
    assert_eq!(name.as_str(), "team-a");
    assert_eq!(definition.limit, bulkhead_core::Limit::default());
    assert_eq!(definition.guarantee, bulkhead_core::Guarantee::default());
    assert_eq!(definition.network.mode, NetworkMode::Observe);
    assert_eq!(definition.addresses.len(), 2);
    assert_eq!(definition.source, "a.yaml");
    let number = VirtualClusterNumber::new(7).unwrap();
    assert_eq!(definition.numbered(number).number, number);
}

#[test]
fn every_field_is_read() {
    let spec = "  members: {addresses: [10.1.0.1]}
  perNode:
    guarantee: {cpu: 500m, memory: \"25%\", io: {weight: 300}}
    limit:
      cpu: 2
      memory: 1Gi
      pids: 512
      io:
      - {device: /dev/vda, readBytesPerSecond: 100M, writeOperationsPerSecond: 500}
  network:
    mode: Off
    allow: [{virtualCluster: team-b}]";
    let text = format!("{}---\n{}", cluster("team-a", spec), cluster("team-b", "  {}"));
    let catalogue = build(&[("a.yaml", &text)]).unwrap();
    let a = &catalogue.virtual_clusters[&"team-a".parse().unwrap()];
    assert_eq!(a.guarantee.cpu, Some(Amount::Absolute(NanoCores(500_000_000))));
    assert_eq!(a.guarantee.memory, Some(Amount::OfNode(BasisPoints::new(2_500).unwrap())));
    assert_eq!(a.guarantee.io_weight, Some(300));
    assert_eq!(a.limit.cpu, Some(Amount::Absolute(NanoCores(2_000_000_000))));
    assert_eq!(a.limit.memory, Some(Amount::Absolute(Bytes(1 << 30))));
    assert_eq!(a.limit.io[0].read_bytes_per_second, Some(100_000_000));
    assert_eq!(a.limit.io[0].write_operations_per_second, Some(500));
    assert_eq!(a.limit.io[0].write_bytes_per_second, None);
    // The bare word is text here, as in YAML 1.2, not false.
    assert_eq!(a.network.mode, NetworkMode::Off);
    assert_eq!(catalogue.warnings, []);
}

#[test]
fn a_class_stands_below_the_object_field_by_field() {
    let class = object(
        "VirtualClusterClass",
        "gold",
        "  perNode:\n    guarantee: {cpu: 1, memory: 1Gi}\n    limit: {cpu: 4, pids: 100}\n  \
         network: {mode: Enforce, allow: [{virtualCluster: team-b}]}",
    );
    let own = cluster(
        "team-a",
        "  class: gold\n  perNode:\n    guarantee: {memory: 0}\n    limit: {cpu: 2}",
    );
    let text = format!("{class}---\n{own}---\n{}", cluster("team-b", "  {}"));
    let catalogue = build(&[("a.yaml", &text)]).unwrap();
    let a = &catalogue.virtual_clusters[&"team-a".parse().unwrap()];
    assert_eq!(a.limit.cpu, Some(Amount::Absolute(NanoCores(2_000_000_000))));
    assert_eq!(a.guarantee.cpu, Some(Amount::Absolute(NanoCores(1_000_000_000))));
    assert_eq!(a.guarantee.memory, None, "0 undoes what the class keeps");
    assert!(a.limit.pids.is_some());
    assert_eq!(a.network.mode, NetworkMode::Enforce);
    assert_eq!(a.class.as_deref(), Some("gold"));
    let b = &catalogue.virtual_clusters[&"team-b".parse().unwrap()];
    assert_eq!(b.network.mode, NetworkMode::Observe);
}

#[test]
fn the_configuration_holds_for_all() {
    let config = object(
        "BulkheadConfig",
        "bulkhead",
        "  clusterRanges: [10.0.0.0/8]\n  sharedServices: [10.96.0.10]\n  defaultMode: Enforce",
    );
    let text = format!("{config}---\n{}", cluster("team-a", "  {}"));
    let catalogue = build(&[("a.yaml", &text)]).unwrap();
    assert_eq!(catalogue.cluster_ranges.len(), 1);
    assert_eq!(catalogue.shared.len(), 1);
    let (_, a) = catalogue.virtual_clusters.first_key_value().unwrap();
    assert_eq!(a.network.mode, NetworkMode::Enforce);
}

#[test]
fn problems_name_file_line_object_field() {
    let text = cluster("team-a", "  perNode:\n    limit:\n      cpu: 2 cores");
    let expected = "team.yaml:8:12: VirtualCluster \"team-a\": spec.perNode.limit.cpu: \
                    \"2 cores\" is no quantity; write it like \"500m\", \"2\" or \"12.5%\"";
    assert_eq!(refused(&text), expected);
    let text = cluster("team-a", "  members:\n    addresses:\n    - 10.0.0.1\n    - 10.0.0\n");
    refused_with(&text, &["team.yaml:9:7: ", "spec.members.addresses[1]: \"10.0.0\""]);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let spec = "  perNode: {limit: {cpu: x, pids: 0}, guarantee: {memory: -1}}";
    let text = format!("{}---\n{}", cluster("team-a", spec), cluster("team-b", "  class: none"));
    let shown = refused(&text);
    for part in ["limit.cpu", "guarantee.memory", "spec.class"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn unknown_fields_are_named_wherever_they_are() {
    for (text, field, line) in [
        (cluster("a", "  perNode:\n    limits: {}"), "limits", 7),
        (cluster("a", "  perNode:\n    limit:\n      cpus: 1"), "cpus", 8),
        (cluster("a", "  netwrok: {}"), "netwrok", 6),
        (cluster("a", "  {}") + "extra: 1\n", "extra", 7),
        (cluster("a\n  nmae: b", "  {}"), "nmae", 5),
        (cluster("a\n  namespace: b", "  {}"), "namespace", 5),
    ] {
        refused_with(&text, &[&format!("team.yaml:{line}:"), field, "unknown field"]);
    }
}

#[test]
fn names_that_are_no_names_are_refused() {
    let long = "x".repeat(64);
    for name in ["../etc", "Team", "a.b", "\"\"", long.as_str()] {
        refused_with(&cluster(name, "  {}"), &["team.yaml:4:", "metadata.name"]);
    }
    refused_with(&cluster(&long, "  {}"), &["64 characters; at most 63"]);
}

#[test]
fn a_name_twice_is_refused_with_both_places() {
    let text = format!("{}---\n{}", cluster("team-a", "  {}"), cluster("team-a", "  {}"));
    refused_with(&text, &["team.yaml:11:9: VirtualCluster \"team-a\"", "team.yaml:4:9 defines it"]);
}

#[test]
fn two_configurations_are_refused() {
    let one = object("BulkheadConfig", "one", "  {}");
    let two = object("BulkheadConfig", "two", "  {}");
    let parts = ["BulkheadConfig \"two\"", "BulkheadConfig \"one\""];
    refused_with(&format!("{one}---\n{two}"), &parts);
}

#[test]
fn overlapping_addresses_name_both_objects_and_both_addresses() {
    let a = cluster("team-a", "  members: {addresses: [10.1.0.0/16]}");
    let b = cluster("team-b", "  members: {addresses: [fd00::1, \"::ffff:10.1.2.3\"]}");
    let shown = build(&[("a.yaml", &a), ("b.yaml", &b)]).expect_err("they overlap").to_string();
    assert_eq!(
        shown,
        "b.yaml:6:34: VirtualCluster \"team-b\": spec.members.addresses[1]: 10.1.2.3 overlaps \
         10.1.0.0/16 of VirtualCluster \"team-a\" in a.yaml; an address has one virtual cluster"
    );
}

#[test]
fn addresses_that_no_member_has_are_refused() {
    for block in [
        "0.0.0.0/0",
        "127.0.0.1",
        "::/0",
        "::1",
        "ff02::1",
        "fe80::1",
        "224.0.0.1",
        "169.254.1.1",
        "\"::ffff:0:0/81\"",
    ] {
        let text = cluster("a", &format!("  members: {{addresses: [{block}]}}"));
        refused_with(&text, &["spec.members.addresses[0]", "which no one member has"]);
    }
}

#[test]
fn a_guarantee_over_its_limit_is_refused_where_they_compare() {
    let spec = |guarantee: &str, limit: &str| {
        let per_node = format!("guarantee: {{cpu: {guarantee}}}, limit: {{cpu: {limit}}}");
        cluster("a", &format!("  perNode: {{{per_node}}}"))
    };
    refused_with(&spec("2", "1500m"), &["spec.perNode.guarantee.cpu", "limit.cpu"]);
    refused_with(&spec("\"50%\"", "\"49.99%\""), &["spec.perNode.guarantee.cpu"]);
    for (guarantee, limit) in [("1", "1"), ("\"50%\"", "1"), ("2", "\"1%\"")] {
        assert!(build(&[("a.yaml", &spec(guarantee, limit))]).is_ok());
    }
}

#[test]
fn wrong_amounts_devices_and_weights_are_refused() {
    for (spec, parts) in [
        ("limit: {memory: 0.5}", ["limit.memory", "in quotes"]),
        ("limit: {memory: 16Ei}", ["limit.memory", "too much"]),
        ("limit: {memory: 128m}", ["limit.memory", "M for millions"]),
        ("limit: {memory: \"\"}", ["limit.memory", "no quantity"]),
        ("limit: {pids: \"101%\"}", ["limit.pids", "no part of a node"]),
        ("limit: {cpu: 0}", ["limit.cpu", "leave it out"]),
        ("guarantee: {io: {weight: 0}}", ["guarantee.io.weight", "between 1 and 10000"]),
        ("guarantee: {io: {weight: 10001}}", ["guarantee.io.weight", "between 1 and 10000"]),
        ("limit: {io: [{device: vda, readBytesPerSecond: 1}]}", ["io[0].device", "below /dev"]),
        (
            "limit: {io: [{device: /dev/../etc/passwd, readBytesPerSecond: 1}]}",
            ["io[0].device", "below /dev"],
        ),
        ("limit: {io: [{device: /dev/vda}]}", ["limit.io[0]", "limits nothing"]),
        (
            "limit: {io: [{device: /dev/vda, readBytesPerSecond: \"5%\"}]}",
            ["readBytesPerSecond", "no part of a node"],
        ),
        (
            "limit: {io: [{device: /dev/vda, readBytesPerSecond: 1}, \
             {device: /dev/vda, readBytesPerSecond: 2}]}",
            ["io[1].device", "limited twice"],
        ),
    ] {
        refused_with(&cluster("a", &format!("  perNode: {{{spec}}}")), &parts);
    }
}

#[test]
fn allowing_oneself_is_refused_and_an_unknown_one_is_a_warning() {
    let allow = |name: &str| {
        cluster("team-a", &format!("  network: {{allow: [{{virtualCluster: {name}}}]}}"))
    };
    refused_with(&allow("team-a"), &["spec.network.allow[0].virtualCluster", "itself"]);
    let catalogue = build(&[("a.yaml", &allow("team-x"))]).unwrap();
    let warnings: Vec<String> = catalogue.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("team-x") && warnings[0].starts_with("a.yaml:6:"), "{warnings:?}");
    let (_, a) = catalogue.virtual_clusters.first_key_value().unwrap();
    assert_eq!(a.network.allow.len(), 1, "it is kept");
}

#[test]
fn a_member_among_the_shared_services_is_a_warning() {
    let config = object("BulkheadConfig", "bulkhead", "  sharedServices: [10.1.0.0/24]");
    let member = cluster("team-a", "  members: {addresses: [10.1.0.7]}");
    let catalogue = build(&[("a.yaml", &config), ("b.yaml", &member)]).unwrap();
    assert!(catalogue.warnings[0].to_string().contains("10.1.0.0/24"));
}

#[test]
fn budget_is_reserved() {
    refused_with(&cluster("a", "  budget: {cpu: 8}"), &["team.yaml:6:", "spec.budget", "reserved"]);
}

#[test]
fn what_is_no_object_of_ours_is_refused() {
    let text = cluster("a", "  {}");
    refused_with(&text.replace("v1alpha1", "v2"), &["team.yaml:1:", "apiVersion"]);
    refused_with(&text.replace("kind: VirtualCluster", "kind: Pod"), &["team.yaml:2:", "kind"]);
    refused_with("- 1\n- 2\n", &["team.yaml:1:", "apiVersion"]);
    refused_with("a: [1, 2\nb: 3\n", &["team.yaml:", "is no YAML"]);
    refused_with("a: 1\na: 2\n", &["team.yaml:2:", "is no YAML"]);
    refused_with(&cluster("a", "  x").replace("spec:\n  x", ""), &["spec", "is missing"]);
}

#[test]
fn json_is_read_too_and_empty_documents_are_skipped() {
    let json = "{\n\t\"apiVersion\": \"bulkhead.dev/v1alpha1\",\n\t\"kind\": \"VirtualCluster\",\n\
                \t\"metadata\": {\"name\": \"a\"},\n\t\"spec\": {\"network\": {\"mode\": \"Off\"}}\n}";
    let text = format!("---\n# nothing\n---\n{}---\n", cluster("b", "  {}"));
    let catalogue = build(&[("a.json", json), ("b.yaml", &text)]).unwrap();
    assert_eq!(catalogue.virtual_clusters.len(), 2);
}

#[test]
fn an_object_that_no_message_would_hold_is_refused() {
    let many: Vec<String> =
        (0..=16_384_u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
    let text = cluster("a", &format!("  members: {{addresses: [{}]}}", many.join(", ")));
    refused_with(&text, &["spec.members.addresses", "at most 16384"]);
    let many: Vec<String> = (0..=1_024).map(|n| format!("{{virtualCluster: x{n}}}")).collect();
    let text = cluster("a", &format!("  network: {{allow: [{}]}}", many.join(", ")));
    refused_with(&text, &["spec.network.allow", "at most 1024"]);
}

#[test]
fn members_that_only_kubernetes_has_are_a_warning_in_files() {
    for (spec, field) in [
        ("members: {namespaces: [a]}", "spec.members.namespaces"),
        (
            "members: {namespaceSelector: {matchLabels: {team: a}}}",
            "spec.members.namespaceSelector",
        ),
        ("members: {preset: {kind: Capsule, name: oil}}", "spec.members.preset"),
    ] {
        let catalogue = build(&[("a.yaml", &cluster("a", &format!("  {spec}")))]).unwrap();
        let [warning] = &catalogue.warnings[..] else { panic!("{:?}", catalogue.warnings) };
        assert_eq!(warning.field, field);
        assert!(warning.message.contains("write addresses"), "{warning}");
    }
    let config = object("BulkheadConfig", "any-name", "  sharedServices: [kube-system/kube-dns]");
    let catalogue = build(&[("a.yaml", &config)]).unwrap();
    assert!(catalogue.warnings[0].to_string().contains("kube-system/kube-dns is not found"));
    assert_eq!(catalogue.shared_services.len(), 1);
}

#[test]
fn what_the_schema_bounds_is_refused_in_files_too() {
    let members = |text: &str| cluster("a", &format!("  members: {{{text}}}"));
    let selector = |text: &str| members(&format!("namespaceSelector: {{{text}}}"));
    let many = |count: usize, item: &dyn Fn(usize) -> String| {
        (0..count).map(item).collect::<Vec<_>>().join(", ")
    };
    let names = many(1_025, &|n| format!("n{n}"));
    let labels = many(33, &|n| format!("l{n}: x"));
    let values = many(65, &|n| format!("v{n}"));
    let devices = many(65, &|n| format!("{{device: /dev/d{n}, readBytesPerSecond: 1}}"));
    for (text, parts) in [
        (members("namespaces: [A]"), ["spec.members.namespaces[0]", "no name of a namespace"]),
        (members("namespaces: [a, a]"), ["spec.members.namespaces[1]", "twice"]),
        (members(&format!("namespaces: [{names}]")), ["spec.members.namespaces", "at most 1024"]),
        (selector("matchLabels: {\"a b\": c}"), ["matchLabels", "no key of a label"]),
        (selector("matchLabels: {/a: c}"), ["matchLabels", "no key of a label"]),
        (selector("matchLabels: {a: \"c d\"}"), ["matchLabels", "no value of a label"]),
        (selector(&format!("matchLabels: {{{labels}}}")), ["matchLabels", "at most 32"]),
        (
            selector(&format!("matchExpressions: [{{key: a, operator: In, values: [{values}]}}]")),
            ["matchExpressions[0].values", "at most 64"],
        ),
        (
            members("preset: {kind: VCluster, namespace: a, name: B}"),
            ["spec.members.preset.name", "no name of a VCluster"],
        ),
        (members("preset: {kind: Kamaji, name: a}"), ["kind", "unknown variant"]),
        (
            cluster("a", &format!("  perNode: {{limit: {{io: [{devices}]}}}}")),
            ["spec.perNode.limit.io", "at most 64"],
        ),
        (
            object("BulkheadConfig", "c", "  sharedServices: [kube-system/kube.dns]"),
            ["spec.sharedServices[0]", "namespace/name"],
        ),
    ] {
        refused_with(&text, &parts);
    }
    for right in ["example.com/a: b", "a.b_c: \"\"", "a: A-1_x.y"] {
        assert!(build(&[("a.yaml", &selector(&format!("matchLabels: {{{right}}}")))]).is_ok());
    }
}

#[test]
fn members_of_a_class_are_refused_and_its_switch_for_the_unknown_is_inherited() {
    let class = object("VirtualClusterClass", "gold", "  network: {unknown: Deny}");
    let shared = object("BulkheadConfig", "c", "  sharedServices: [10.96.0.10]");
    let text = format!(
        "{class}---\n{shared}---\n{}---\n{}",
        cluster("a", "  class: gold"),
        cluster("b", "  class: gold\n  network: {unknown: Allow}")
    );
    let catalogue = build(&[("a.yaml", &text)]).unwrap();
    let unknown = |name: &str| catalogue.virtual_clusters[&name.parse().unwrap()].network.unknown;
    assert_eq!(unknown("a"), bulkhead_core::Unknown::Deny);
    assert_eq!(unknown("b"), bulkhead_core::Unknown::Allow);
    let wrong = object("VirtualClusterClass", "gold", "  members: {}");
    refused_with(&wrong, &["members", "unknown field"]);
}
