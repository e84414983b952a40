//! Who is whose.

use std::collections::BTreeMap;

use bulkhead_core::{Guarantee, Labels, Limit, NetworkPolicy};
use proptest::prelude::*;

use super::presets::*;
use super::*;
use crate::object::Members;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// From members in YAML, made at `created`.
fn definition(name: &str, created: i64, members: &str) -> Definition {
    let members: Members = serde_saphyr::from_str(members).unwrap();
    assert_eq!(validate::members(&members), []);
    Definition {
        name: name.parse().unwrap(),
        members: Rules::of(&members).unwrap(),
        addresses: BTreeSet::new(),
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy::default(),
        class: None,
        source: String::new(),
        age: Age { created, uid: format!("uid-of-{name}") },
    }
}

fn namespace(name: &str, pairs: &[(&str, &str)]) -> Namespace {
    Namespace { labels: labels(pairs), ..Namespace::named(name) }
}

fn outcome(definitions: &[Definition], namespaces: &[Namespace]) -> Outcome {
    Memberships::new(definitions).all(namespaces)
}

#[track_caller]
fn owner_is(outcome: &Outcome, namespace: &str, pairs: &[(&str, &str)], expected: &str) {
    let labels = labels(pairs);
    let owner = outcome.bindings.owner(namespace, &labels).map(VirtualClusterName::as_str);
    assert_eq!(owner, Some(expected).filter(|it| !it.is_empty()), "{namespace} {pairs:?}");
}

#[test]
fn namespaces_by_name_are_bound_before_they_are_there() {
    let all = outcome(&[definition("a", 1, "namespaces: [one, two]")], &[namespace("one", &[])]);
    owner_is(&all, "one", &[], "a");
    owner_is(&all, "two", &[], "a");
    owner_is(&all, "three", &[], "");
    assert_eq!(all.warnings, []);
}

#[test]
fn namespaces_by_label_are_bound_and_never_the_clusters_own() {
    let a = definition("a", 1, "namespaceSelector: {matchLabels: {team: a}}");
    let namespaces =
        ["one", "kube-system", "kube-public"].map(|name| namespace(name, &[("team", "a")]));
    let all = outcome(&[a], &namespaces);
    owner_is(&all, "one", &[], "a");
    owner_is(&all, "kube-system", &[], "");
    owner_is(&all, "kube-public", &[], "");
    let named = definition("b", 1, "namespaces: [kube-system]");
    owner_is(&outcome(&[named], &namespaces), "kube-system", &[], "b");
}

#[test]
fn a_pod_selector_narrows_and_reaches_nowhere_else() {
    let members = "{namespaces: [one], podSelector: {matchExpressions: [{key: tier, operator: In, \
                   values: [web]}]}}";
    let all = outcome(&[definition("a", 1, members)], &[namespace("two", &[])]);
    owner_is(&all, "one", &[("tier", "web")], "a");
    owner_is(&all, "one", &[("tier", "db")], "");
    owner_is(&all, "two", &[("tier", "web")], "");
}

#[test]
fn the_older_object_keeps_what_two_claim_and_both_are_told() {
    let (older, younger) = (
        definition("z", 1, "namespaces: [one]"),
        definition("a", 2, "{namespaces: [one, two], podSelector: {matchLabels: {tier: web}}}"),
    );
    let all = outcome(&[younger, older], &[]);
    owner_is(&all, "one", &[("tier", "web")], "z");
    owner_is(&all, "two", &[("tier", "web")], "a");
    let claim = Claim {
        namespace: "one".to_owned(),
        keeper: "z".parse().unwrap(),
        loser: "a".parse().unwrap(),
        extent: Extent::All,
    };
    assert_eq!(all.claims, [claim]);
    assert_eq!(all.bindings.0["one"].len(), 1, "what can never decide is not sent");
}

#[test]
fn of_two_made_in_one_second_the_lesser_uid_keeps() {
    let (mut a, mut b) = ("a", "b").map_both(|name| definition(name, 1, "namespaces: [one]"));
    (a.age.uid, b.age.uid) = ("2".to_owned(), "1".to_owned());
    owner_is(&outcome(&[a.clone(), b.clone()], &[]), "one", &[], "b");
    owner_is(&outcome(&[b, a], &[]), "one", &[], "b");
}

trait MapBoth<T> {
    fn map_both<U>(self, map: impl Fn(T) -> U) -> (U, U);
}

impl<T> MapBoth<T> for (T, T) {
    fn map_both<U>(self, map: impl Fn(T) -> U) -> (U, U) {
        (map(self.0), map(self.1))
    }
}

#[test]
fn what_cannot_meet_is_no_conflict_and_what_may_is() {
    let of = |name, created, pods| {
        let members = format!("{{namespaces: [one], podSelector: {{{pods}}}}}");
        definition(name, created, &members)
    };
    for (first, second, expected) in [
        ("matchLabels: {t: a}", "matchLabels: {t: b}", None),
        ("matchLabels: {t: a}", "matchLabels: {u: b}", Some(Extent::Some)),
        ("matchLabels: {t: a}", "matchLabels: {t: a, u: b}", Some(Extent::All)),
        (
            "matchExpressions: [{key: t, operator: Exists}]",
            "matchExpressions: [{key: t, operator: DoesNotExist}]",
            None,
        ),
        (
            "matchExpressions: [{key: t, operator: NotIn, values: [a, b]}]",
            "matchLabels: {t: a}",
            None,
        ),
        (
            "matchExpressions: [{key: t, operator: NotIn, values: [b]}]",
            "matchLabels: {t: a}",
            Some(Extent::Some),
        ),
    ] {
        let all = outcome(&[of("a", 1, first), of("b", 2, second)], &[]);
        let extents: Vec<Extent> = all.claims.iter().map(|claim| claim.extent).collect();
        assert_eq!(extents, expected.into_iter().collect::<Vec<_>>(), "{first} / {second}");
    }
}

const VCLUSTER: &str = "preset: {kind: VCluster, namespace: host, name: vc}";

#[test]
fn a_vcluster_has_its_synced_pods_and_its_control_plane() {
    let all = outcome(&[definition("a", 1, VCLUSTER)], &[]);
    owner_is(&all, "host", &[(VCLUSTER_MANAGED_BY, "vc")], "a");
    owner_is(&all, "host", &[("app", "vcluster"), ("release", "vc")], "a");
    owner_is(&all, "host", &[("app", "vcluster-etcd"), ("release", "vc")], "a");
    // Another of the same namespace, and what is no vCluster's.
    owner_is(&all, "host", &[(VCLUSTER_MANAGED_BY, "other")], "");
    owner_is(&all, "host", &[("app", "vcluster"), ("release", "other")], "");
    owner_is(&all, "host", &[("release", "vc"), ("app", "web")], "");
    // The name is not unique among namespaces.
    owner_is(&all, "elsewhere", &[(VCLUSTER_MANAGED_BY, "vc")], "");
}

#[test]
fn a_tenant_of_one_vcluster_cannot_pass_for_the_control_plane_of_another() {
    let other = definition("b", 2, "preset: {kind: VCluster, namespace: host, name: other}");
    let all = outcome(&[definition("a", 1, VCLUSTER), other], &[]);
    let forged = [(VCLUSTER_MANAGED_BY, "other"), ("app", "vcluster"), ("release", "vc")];
    owner_is(&all, "host", &forged, "b");
    assert_eq!(all.claims, [], "two vClusters of one namespace are apart");
}

#[test]
fn mapped_namespaces_of_a_vcluster_are_its_own_whole() {
    let a = [definition("a", 1, VCLUSTER)];
    let mapped = |pairs: &[(&str, &str)], expected: &str| {
        owner_is(&outcome(&a, &[namespace("mapped", pairs)]), "mapped", &[], expected);
    };
    let (whole, name, host) = ("host-x-vc", VCLUSTER_NAME, VCLUSTER_NAMESPACE);
    mapped(&[(VCLUSTER_MANAGED_BY, whole)], "a");
    mapped(&[(VCLUSTER_MANAGED_BY, whole), (name, "vc"), (host, "host")], "a");
    // The tenant of another vCluster wrote our name; its syncer wrote the marker.
    mapped(&[(VCLUSTER_MANAGED_BY, "evil-x-other"), (name, "vc"), (host, "host")], "");
    mapped(&[(VCLUSTER_MANAGED_BY, whole), (name, "other"), (host, "host")], "");
    mapped(&[(VCLUSTER_MANAGED_BY, whole), (name, "vc"), (host, "elsewhere")], "");
    mapped(&[(name, "vc"), (host, "host")], "");
    mapped(&[], "");
}

#[test]
fn a_marker_that_two_vclusters_share_is_not_believed_alone() {
    let one = definition("a", 1, "preset: {kind: VCluster, namespace: host-x-b, name: c}");
    let other = definition("b", 2, "preset: {kind: VCluster, namespace: host, name: b-x-c}");
    let shared = (VCLUSTER_MANAGED_BY, "host-x-b-x-c");
    let both = [one, other];
    owner_is(&outcome(&both, &[namespace("mapped", &[shared])]), "mapped", &[], "");
    let told = [shared, (VCLUSTER_NAME, "b-x-c"), (VCLUSTER_NAMESPACE, "host")];
    owner_is(&outcome(&both, &[namespace("mapped", &told)]), "mapped", &[], "b");
}

#[test]
fn a_marker_that_was_cut_is_compared_as_far_as_it_goes() {
    let (host, name) = ("h".repeat(40), "n".repeat(40));
    let members = format!("preset: {{kind: VCluster, namespace: {host}, name: {name}}}");
    let cut = format!("{}-0123456789", &format!("{host}-x-{name}")[..52]);
    let all = |marker: &str| {
        let told = [
            (VCLUSTER_MANAGED_BY, marker),
            (VCLUSTER_NAME, name.as_str()),
            (VCLUSTER_NAMESPACE, host.as_str()),
        ];
        outcome(&[definition("a", 1, &members)], &[namespace("mapped", &told)])
    };
    owner_is(&all(&cut), "mapped", &[], "a");
    owner_is(&all("another-0123456789"), "mapped", &[], "");
}

#[test]
fn k3k_has_its_pods_its_servers_and_its_agents() {
    let a = definition("a", 1, "preset: {kind: K3k, namespace: host, name: one}");
    let all = outcome(&[a], &[namespace("elsewhere", &[])]);
    owner_is(&all, "host", &[(K3K_CLUSTER, "one")], "a");
    owner_is(&all, "host", &[("cluster", "one"), ("role", "server")], "a");
    owner_is(&all, "host", &[("cluster", "one"), ("type", "agent"), ("mode", "shared")], "a");
    // A tenant's labels stay on its pods.
    let forged = [(K3K_CLUSTER, "two"), ("cluster", "one"), ("role", "server")];
    owner_is(&all, "host", &forged, "");
    owner_is(&all, "elsewhere", &[(K3K_CLUSTER, "one")], "");
}

#[test]
fn cluster_api_nested_has_its_root_and_what_is_synced_from_it() {
    let a = [definition("a", 1, "preset: {kind: ClusterApiNested, namespace: mgmt, name: vc}")];
    let own = [(CAPN_NAME, "vc"), (CAPN_NAMESPACE, "mgmt")];
    let is = |name: &str, marks: &[(&str, &str)], expected: &str| {
        let annotations = labels(&[&own[..], marks].concat());
        let namespace = Namespace { annotations, ..Namespace::named(name) };
        owner_is(&outcome(&a, &[namespace]), name, &[], expected);
    };
    is("mgmt-123456-vc", &[(CAPN_ROOT, "true")], "a");
    is("mgmt-123456-vc-default", &[(CAPN_CLUSTER, "mgmt-123456-vc")], "a");
    is("elsewhere", &[(CAPN_CLUSTER, "mgmt-123456-vc")], "");
    is("elsewhere", &[], "");
    is("x", &[(CAPN_NAME, "other"), (CAPN_ROOT, "true")], "");
    is("x", &[(CAPN_NAMESPACE, "other"), (CAPN_ROOT, "true")], "");
    is("kube-system", &[(CAPN_ROOT, "true")], "");
}

#[test]
fn a_capsule_tenant_is_believed_only_with_its_owner() {
    let a = [definition("a", 1, "preset: {kind: Capsule, name: oil}")];
    let is = |pairs: &[(&str, &str)], owner: Option<&str>, expected: &str| {
        let capsule_tenant = owner.map(str::to_owned);
        let namespace = Namespace { capsule_tenant, ..namespace("oil-prod", pairs) };
        owner_is(&outcome(&a, &[namespace]), "oil-prod", &[], expected);
    };
    is(&[(CAPSULE, "oil")], Some("oil"), "a");
    is(&[(CAPSULE, "oil")], None, "");
    is(&[(CAPSULE, "oil")], Some("gas"), "");
    is(&[], Some("oil"), "");
    is(&[(CAPSULE, "oil"), (VCLUSTER_MANAGED_BY, "evil-x-other")], Some("oil"), "");
}

#[test]
fn an_hnc_tree_is_everything_below_its_root() {
    let a = [definition("a", 1, "preset: {kind: HNC, name: acme}")];
    let tree = |pairs: &[(&str, &str)], expected: &str| {
        owner_is(&outcome(&a, &[namespace("one", pairs)]), "one", &[], expected);
    };
    tree(&[("acme.tree.hnc.x-k8s.io/depth", "0")], "a");
    tree(&[("acme.tree.hnc.x-k8s.io/depth", "2"), ("one.tree.hnc.x-k8s.io/depth", "0")], "a");
    tree(&[("acme.tree.hnc.x-k8s.io/depth", "deep")], "");
    tree(&[("other.tree.hnc.x-k8s.io/depth", "1")], "");
    tree(&[("acme.tree.hnc.x-k8s.io/depth", "1"), (VCLUSTER_MANAGED_BY, "evil-x-other")], "");
}

#[test]
fn labels_that_a_tenant_may_have_written_select_no_namespace() {
    let a = [definition("a", 1, "namespaceSelector: {matchLabels: {team: a}}")];
    let mine = ("team", "a");
    let annotated =
        |key: &str| Namespace { annotations: labels(&[(key, "x")]), ..namespace("one", &[mine]) };
    for forged in [
        namespace("one", &[mine, (VCLUSTER_MANAGED_BY, "evil-x-other")]),
        namespace("one", &[mine, (VCLUSTER_NAME, "other")]),
        namespace("one", &[mine, (CAPSULE, "oil")]),
        annotated(CAPN_CLUSTER),
        Namespace { capsule_tenant: Some("oil".to_owned()), ..namespace("one", &[mine]) },
    ] {
        let all = outcome(&a, std::slice::from_ref(&forged));
        owner_is(&all, "one", &[], "");
        let [(whose, message)] = &all.warnings[..] else { panic!("{forged:?}: {all:?}") };
        assert_eq!(whose.as_str(), "a");
        assert!(message.contains("namespace one") && message.contains("name it"), "{message}");
    }
}

#[test]
fn what_kubernetes_says_of_a_namespace_is_read() {
    let text = "{metadata: {name: one, labels: {a: b}, annotations: {other: x, \
                tenancy.x-k8s.io/vcname: vc}, ownerReferences: [{apiVersion: \
                capsule.clastix.io/v1beta2, kind: Tenant, name: oil, uid: u}]}}";
    let read = Namespace::of(&serde_saphyr::from_str(text).unwrap());
    let expected = Namespace {
        annotations: labels(&[(CAPN_NAME, "vc")]),
        capsule_tenant: Some("oil".to_owned()),
        ..namespace("one", &[("a", "b")])
    };
    assert_eq!(read, expected);
}

/// Members of every form, of few names, so that they meet.
fn any_members() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(
        &[
            "namespaces: [one]",
            "namespaces: [one, two]",
            "{namespaces: [one], podSelector: {matchLabels: {tier: a}}}",
            "{namespaces: [two], podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}",
            "namespaceSelector: {matchLabels: {team: a}}",
            "preset: {kind: VCluster, namespace: one, name: vc}",
            "preset: {kind: K3k, namespace: two, name: vc}",
            "preset: {kind: ClusterApiNested, namespace: one, name: vc}",
            "preset: {kind: Capsule, name: vc}",
            "preset: {kind: HNC, name: vc}",
        ][..],
    )
}

fn any_definitions() -> impl Strategy<Value = Vec<Definition>> {
    proptest::collection::vec((any_members(), 0_i64..3), 0..6).prop_map(|all| {
        let made = all.into_iter().enumerate();
        made.map(|(index, (members, created))| definition(&format!("vc-{index}"), created, members))
            .collect()
    })
}

/// Labels and values that mean something to someone.
fn any_labels() -> impl Strategy<Value = Labels> {
    let keys = proptest::sample::select(
        &[
            "tier",
            "team",
            "app",
            "release",
            "cluster",
            "role",
            "type",
            "vc.tree.hnc.x-k8s.io/depth",
            "kubernetes.io/metadata.name",
            VCLUSTER_MANAGED_BY,
            VCLUSTER_NAME,
            VCLUSTER_NAMESPACE,
            K3K_CLUSTER,
            CAPN_NAME,
            CAPN_NAMESPACE,
            CAPN_ROOT,
            CAPSULE,
        ][..],
    );
    let values = proptest::sample::select(
        &["a", "vc", "one", "two", "0", "true", "vcluster", "server", "agent", "one-x-vc"][..],
    );
    proptest::collection::btree_map(
        keys.prop_map(str::to_owned),
        values.prop_map(str::to_owned),
        0..6,
    )
}

fn any_namespaces() -> impl Strategy<Value = Vec<Namespace>> {
    proptest::collection::btree_map("(one|two|three|kube-system)", any_labels(), 0..4).prop_map(
        |all| {
            let made = all.into_iter();
            made.map(|(name, labels)| Namespace { labels, ..Namespace::named(name) }).collect()
        },
    )
}

proptest! {
    /// A pod that forges whatever it likes is owned by someone whom the operator gave its
    /// namespace, or by nobody.
    #[test]
    fn no_label_of_a_pod_reaches_outside(
        definitions in any_definitions(),
        namespaces in any_namespaces(),
        forged in any_labels(),
    ) {
        let all = outcome(&definitions, &namespaces);
        let honest: BTreeMap<&str, &Namespace> =
            namespaces.iter().map(|it| (it.name.as_str(), it)).collect();
        for name in ["one", "two", "three", "four", "kube-system"] {
            let Some(owner) = all.bindings.owner(name, &forged) else { continue };
            let owner = definitions.iter().find(|it| it.name == *owner).unwrap();
            let unlabelled = Namespace::named(name);
            let within = honest.get(name).copied().unwrap_or(&unlabelled);
            // Claims are made of the namespace alone, before any pod is there.
            prop_assert!(!owner.members.claims(within).is_empty());
            let is_named = owner.members.named().any(|it| it == name);
            prop_assert!(is_named || honest.contains_key(name));
            prop_assert!(is_named || name != "kube-system");
        }
    }

    /// The order in which objects and namespaces come decides nothing.
    #[test]
    fn whatever_the_order_the_older_claim_wins(
        definitions in any_definitions(),
        namespaces in any_namespaces(),
        pod in any_labels(),
        seed in 0_usize..100,
    ) {
        let before = outcome(&definitions, &namespaces);
        let (mut again, mut places) = (definitions.clone(), namespaces.clone());
        again.rotate_left(seed % definitions.len().max(1));
        places.reverse();
        let after = outcome(&again, &places);
        prop_assert_eq!(&before, &after);
        let definitions: BTreeMap<_, _> = definitions.iter().map(|it| (&it.name, it)).collect();
        for namespace in &namespaces {
            let claims = before.bindings.claims(&namespace.name, &pod);
            let ages: Vec<_> = claims.map(|name| &definitions[name].age).collect();
            prop_assert!(ages.is_sorted(), "{ages:?}");
        }
    }

    /// One namespace at a time, as changes come, gives what all at once gives.
    #[test]
    fn one_by_one_is_as_all_at_once(
        definitions in any_definitions(),
        namespaces in any_namespaces(),
    ) {
        let memberships = Memberships::new(&definitions);
        let all = memberships.all(&namespaces);
        for namespace in &namespaces {
            let bound = memberships.of(namespace);
            let whole = all.bindings.0.get(&namespace.name).cloned().unwrap_or_default();
            prop_assert_eq!(bound.bindings, whole);
        }
    }

    /// What is dropped because an older one has it all, nobody would have got.
    #[test]
    fn what_is_not_sent_changes_no_owner(
        definitions in any_definitions(),
        namespaces in any_namespaces(),
        pod in any_labels(),
    ) {
        let all = outcome(&definitions, &namespaces);
        let mut sorted = definitions.clone();
        sorted.sort_by_key(|it| (it.age.clone(), it.name.clone()));
        for namespace in &namespaces {
            let selects = |it: &&Definition| {
                it.members.claims(namespace).iter().any(|claim| claim.selects(&pod))
            };
            let expected = sorted.iter().find(selects).map(|it| &it.name);
            prop_assert_eq!(all.bindings.owner(&namespace.name, &pod), expected);
        }
    }
}
