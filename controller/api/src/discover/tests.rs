//! What is proposed.

use super::*;
use crate::Document;
use crate::catalogue::{Objects, Standing};
use crate::membership::Memberships;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn workload(kind: &'static str, place: &str, pairs: &[(&str, &str)]) -> Workload {
    let (namespace, name) = place.split_once('/').unwrap();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Workload { kind, namespace, name, labels: labels(pairs) }
}

fn namespace(name: &str, pairs: &[(&str, &str)]) -> Namespace {
    Namespace { labels: labels(pairs), ..Namespace::named(name) }
}

fn a_cluster_with_everything() -> (Vec<Namespace>, Vec<Workload>) {
    let capn = [
        ("tenancy.x-k8s.io/vcname", "nested"),
        ("tenancy.x-k8s.io/vcnamespace", "mgmt"),
        ("tenancy.x-k8s.io/vcrootns", "true"),
    ];
    let namespaces = vec![
        namespace("plain", &[("team", "x")]),
        Namespace { annotations: labels(&capn), ..Namespace::named("mgmt-123456-nested") },
        Namespace {
            capsule_tenant: Some("oil".to_owned()),
            ..namespace("oil-prod", &[("capsule.clastix.io/tenant", "oil")])
        },
        namespace("acme", &[("acme.tree.hnc.x-k8s.io/depth", "0")]),
        namespace(
            "acme-web",
            &[("acme.tree.hnc.x-k8s.io/depth", "1"), ("acme-web.tree.hnc.x-k8s.io/depth", "0")],
        ),
        namespace("lonely", &[("lonely.tree.hnc.x-k8s.io/depth", "0")]),
    ];
    let vcluster = [("app", "vcluster"), ("release", "dev")];
    let k3k = [("cluster", "lab"), ("role", "server")];
    let workloads = vec![
        workload("StatefulSet", "team-a/dev", &vcluster),
        workload("Pod", "team-a/dev-0", &vcluster),
        workload("StatefulSet", "k3k-lab/k3k-lab-server", &k3k),
        // A pod that a tenant labelled, and somebody else's servers.
        workload(
            "Pod",
            "team-a/web-x-default-x-dev",
            &[("app", "vcluster"), ("release", "forged"), ("vcluster.loft.sh/managed-by", "dev")],
        ),
        workload("Pod", "db/postgres-0", &[("cluster", "pg"), ("role", "server")]),
    ];
    (namespaces, workloads)
}

fn titles(proposals: &[Proposal]) -> Vec<(String, PresetKind)> {
    let title = |it: &Proposal| {
        let preset = it.object.spec.members.as_ref().unwrap().preset.as_ref().unwrap();
        (it.object.metadata.name.clone().unwrap(), preset.kind)
    };
    proposals.iter().map(title).collect()
}

#[test]
fn each_project_is_found_once_and_forgeries_are_not() {
    let (namespaces, workloads) = a_cluster_with_everything();
    let seen = Seen { namespaces: &namespaces, workloads: &workloads, described: &[] };
    let found = discover(&seen);
    let expected = [
        ("dev", PresetKind::VCluster),
        ("lab", PresetKind::K3k),
        ("nested", PresetKind::ClusterApiNested),
        ("oil", PresetKind::Capsule),
        ("acme", PresetKind::Hnc),
    ];
    assert_eq!(titles(&found), expected.map(|(name, kind)| (name.to_owned(), kind)));
    for proposal in &found {
        let network = proposal.object.spec.network.as_ref().unwrap();
        assert_eq!(network.mode, Some(Mode::Observe), "it changes nothing");
    }
    // In another order the same, with the same words.
    let (mut namespaces, mut workloads) = (namespaces.clone(), workloads.clone());
    namespaces.reverse();
    workloads.reverse();
    let turned = Seen { namespaces: &namespaces, workloads: &workloads, described: &[] };
    assert_eq!(discover(&turned), found);
}

#[test]
fn what_is_described_already_is_not_proposed_again() {
    let (namespaces, workloads) = a_cluster_with_everything();
    let seen = Seen { namespaces: &namespaces, workloads: &workloads, described: &[] };
    let described: Vec<VirtualCluster> =
        discover(&seen).into_iter().map(|proposal| proposal.object).collect();
    assert_eq!(discover(&Seen { described: &described, ..seen }), []);
    let rest = discover(&Seen { described: &described[1..], ..seen });
    assert_eq!(titles(&rest), [("dev".to_owned(), PresetKind::VCluster)]);
}

#[test]
fn names_that_collide_are_made_apart() {
    let release = [("app", "vcluster"), ("release", "dev")];
    let long = "x".repeat(63);
    let workloads = [
        workload("StatefulSet", "team-a/dev", &release),
        workload("StatefulSet", "team-b/dev", &release),
        workload("StatefulSet", &format!("{long}/dev"), &release),
    ];
    let taken = VirtualCluster::new("team-a-dev", VirtualClusterSpec::default());
    let seen = Seen { workloads: &workloads, described: &[taken], ..Seen::default() };
    let names: Vec<String> = titles(&discover(&seen)).into_iter().map(|(name, _)| name).collect();
    let cut = format!("{}-2", &long[..61]);
    assert_eq!(names, ["team-a-dev-2", "team-b-dev", &cut]);
}

#[test]
fn what_is_printed_is_taken_and_says_how_it_was_found() {
    let (namespaces, workloads) = a_cluster_with_everything();
    let seen = Seen { namespaces: &namespaces, workloads: &workloads, described: &[] };
    let found = discover(&seen);
    let yaml = to_yaml(&found).unwrap();
    let how = "# VCluster team-a/dev, found by Pod team-a/dev-0 (app=vcluster, release=dev)\n";
    assert!(yaml.contains(how), "{yaml}");
    let documents = Document::parse_all("discovered.yaml", &yaml).unwrap();
    assert_eq!(documents.len(), found.len());
    let objects = found.iter().map(|it| (it.object.metadata.name.clone().unwrap(), it));
    let virtual_clusters = objects.map(|(name, it)| (name, it.object.clone())).collect();
    let objects = Objects { virtual_clusters, ..Objects::default() };
    let standing = Standing::of(&objects, &Objects::default());
    assert_eq!(standing.problems, [].into());
    // And it has the pods by which it was found.
    let all = Memberships::new(standing.catalogue.virtual_clusters.values()).all(&namespaces);
    for (place, pairs, owner) in [
        ("team-a", &workloads[1].labels, "dev"),
        ("team-a", &workloads[3].labels, "dev"),
        ("k3k-lab", &workloads[2].labels, "lab"),
        ("mgmt-123456-nested", &Labels::new(), "nested"),
        ("oil-prod", &Labels::new(), "oil"),
        ("acme-web", &Labels::new(), "acme"),
    ] {
        let found = all.bindings.owner(place, pairs).map(bulkhead_core::VirtualClusterName::as_str);
        assert_eq!(found, Some(owner), "{place}");
    }
    assert_eq!(all.bindings.owner("plain", &Labels::new()), None);
}

#[test]
fn a_name_from_the_cluster_ends_no_comment() {
    let proposal = Proposal {
        found: "one\nkind: Evil".to_owned(),
        object: VirtualCluster::new("a", VirtualClusterSpec::default()),
    };
    let yaml = to_yaml(&[proposal]).unwrap();
    assert!(yaml.starts_with("---\n# one kind: Evil\napiVersion:"), "{yaml}");
}
