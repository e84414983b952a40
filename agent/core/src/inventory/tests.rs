use std::collections::BTreeMap;

use super::*;
use crate::binding::{Binding, Bindings, NodePolicy, Selector};
use crate::compile::tests::{snapshot, virtual_cluster};

/// A pod as a runtime shows it.
pub(crate) fn pod(uid: &str, namespace: &str) -> Pod {
    Pod {
        uid: uid.parse().unwrap(),
        namespace: namespace.to_owned(),
        name: format!("pod-{uid}"),
        labels: Labels::new(),
        addresses: BTreeSet::new(),
        host_network: false,
        cgroup: None,
        rank: Rank::Ordinary,
    }
}

/// Every pod of a namespace is a virtual cluster's.
pub(crate) fn bindings(pairs: &[(&str, &str)]) -> Bindings {
    let binding = |name: &str| Binding {
        virtual_cluster: name.parse().unwrap(),
        selector: Selector::default(),
    };
    let of = |(namespace, name): &(&str, &str)| ((*namespace).to_owned(), vec![binding(name)]);
    Bindings(pairs.iter().map(of).collect::<BTreeMap<_, _>>())
}

fn told(unknown: Unknown) -> Snapshot {
    Snapshot {
        bindings: bindings(&[("team", "a"), ("ghosts", "gone")]),
        policy: NodePolicy { unknown, ..NodePolicy::default() },
        ..snapshot(vec![virtual_cluster("a", 1, &[])])
    }
}

#[test]
fn the_kubelets_names_are_read_with_either_driver() {
    const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let slice = UID.replace('-', "_");
    let systemd = |class: &str| format!("kubepods{class}-pod{slice}.slice");
    for (parent, root, relative, class) in [
        (systemd(""), "kubepods.slice", systemd(""), QosClass::Guaranteed),
        (
            systemd("-burstable"),
            "/kubepods.slice",
            format!("kubepods-burstable.slice/{}", systemd("-burstable")),
            QosClass::Burstable,
        ),
        (
            format!("/kubepods.slice/kubepods-besteffort.slice/{}", systemd("-besteffort")),
            "kubepods.slice/",
            format!("kubepods-besteffort.slice/{}", systemd("-besteffort")),
            QosClass::BestEffort,
        ),
        (format!("/kubepods/pod{UID}"), "kubepods", format!("pod{UID}"), QosClass::Guaranteed),
        (
            format!("/kubepods/burstable/pod{UID}/"),
            "kubepods",
            format!("burstable/pod{UID}"),
            QosClass::Burstable,
        ),
        (
            format!("kubelet-kubepods-burstable-pod{slice}.slice"),
            "kubelet.slice/kubelet-kubepods.slice",
            format!("kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{slice}.slice"),
            QosClass::Burstable,
        ),
    ] {
        let path = PodPath::from_cgroup_parent(&parent, root).unwrap();
        assert_eq!((path.relative(), path.class()), (&*relative, class), "{parent}");
        assert_eq!(path.uid().as_str(), UID, "{parent}");
    }
}

#[test]
fn what_is_no_pods_cgroup_is_told_from_one() {
    for parent in ["", "/", "/user.slice", "system.slice", "/kubepodsx/podabc", "-.slice"] {
        let error = PodPath::from_cgroup_parent(parent, "kubepods").unwrap_err();
        assert!(matches!(error, PodPathError::Elsewhere { .. }), "{parent}: {error}");
    }
    for below in [
        "",
        "burstable",
        "burstable/abc",
        "other/podabc",
        "burstable/podabc/deeper",
        "pod",
        "kubepods-burstable.slice",
        "kubepods-bh01-02.slice",
        "pod../x",
    ] {
        let error = PodPath::from_relative(below).unwrap_err();
        assert!(matches!(error, PodPathError::Unlike(_)), "{below}: {error}");
    }
    let names =
        ["burstable", "kubepods-besteffort.slice", "podabc", "system.slice", "x-pody.slice"];
    assert_eq!(children_to_list(names.into_iter()), ["burstable", "kubepods-besteffort.slice"]);
}

#[test]
fn slices_nest_where_their_names_have_a_dash() {
    assert_eq!(expand_slice("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice");
    assert_eq!(expand_slice("a.slice"), "a.slice");
    assert_eq!(expand_slice("-.slice"), "");
    assert_eq!(expand_slice("a"), "");
}

#[test]
fn bindings_decide_and_after_them_the_policy() {
    let (open, closed) = (told(Unknown::Allow), told(Unknown::Deny));
    let a: VirtualClusterName = "a".parse().unwrap();
    for snapshot in [&open, &closed] {
        assert_eq!(pod("1", "team").claim(snapshot), Claim::Member(&a));
        assert_eq!(pod("1", SYSTEM_NAMESPACE).claim(snapshot), Claim::Exempt);
        for rank in [Rank::Static, Rank::Critical] {
            assert_eq!(Pod { rank, ..pod("1", "x") }.claim(snapshot), Claim::Exempt);
        }
    }
    for namespace in ["x", "ghosts"] {
        assert_eq!(pod("1", namespace).claim(&open), Claim::LeftAlone);
        assert_eq!(pod("1", namespace).claim(&closed), Claim::CutOff);
    }
}

#[test]
fn forged_labels_bring_a_pod_nowhere() {
    let snapshot = told(Unknown::Deny);
    let forged = ["vcluster.loft.sh/managed-by", "vcluster.loft.sh/namespace", "namespace"];
    let labels = forged.map(|label| (label.to_owned(), "a".to_owned())).into();
    let mut pod = Pod { labels, ..pod("1", "outside") };
    assert_eq!(pod.claim(&snapshot), Claim::CutOff);
    pod.labels.insert("kubernetes.io/config.source".to_owned(), "file".to_owned());
    pod.labels.insert("priorityClassName".to_owned(), "system-node-critical".to_owned());
    assert_eq!(pod.claim(&snapshot), Claim::CutOff);
}

/// A pod as the controller names it.
pub(crate) fn named(namespace: &str, owner: Option<&str>) -> NamedPod {
    NamedPod {
        namespace: namespace.into(),
        name: "p".into(),
        owner: owner.map(|name| name.parse().unwrap()),
        is_critical: false,
        mirror_of: None,
    }
}

fn naming(pods: &[(&str, NamedPod)]) -> Snapshot {
    let pods = pods.iter().map(|(uid, pod)| (uid.parse().unwrap(), pod.clone()));
    Snapshot { names_pods: true, pods: pods.collect(), ..told(Unknown::Deny) }
}

#[test]
fn what_the_runtime_shows_counts_before_what_the_controller_knows() {
    let mut pods = Inventory::default();
    assert!(!pods.is_complete());
    pods.apply(PodFact::Runs(pod("1", "shown")));
    assert!(!pods.is_complete(), "one pod is not all");
    pods.name(&naming(&[("1", named("named", None)), ("2", named("named", None))]));
    let namespaces = |pods: &Inventory| {
        pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.uid)).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(&pods), ["shown/1", "named/2"]);
    pods.apply(PodFact::Gone("1".parse().unwrap()));
    assert_eq!(namespaces(&pods), ["named/1", "named/2"]);
    pods.apply(PodFact::All(vec![pod("3", "shown")]));
    assert_eq!(namespaces(&pods), ["shown/3", "named/1", "named/2"]);
    assert_eq!(pods.shown().count(), 1);
}

#[test]
fn the_controllers_word_is_all_only_where_no_runtime_may_tell_more() {
    let mut pods = Inventory::default();
    pods.name(&naming(&[]));
    assert!(!pods.is_complete(), "a runtime may still come");
    pods.apply(PodFact::RuntimeAway);
    assert!(pods.is_complete());
    let mut kept = Inventory::default();
    kept.apply(PodFact::RuntimeAway);
    kept.name(&Snapshot { names_pods: false, ..naming(&[("1", named("team", Some("a")))]) });
    assert!(!kept.is_complete(), "what was kept since the last start may be old");
    assert!(kept.get(&"1".parse().unwrap()).is_some());
}

#[test]
fn a_pod_that_the_controller_names_no_more_is_gone_where_nobody_else_tells() {
    let mut pods = Inventory::default();
    pods.apply(PodFact::All(vec![pod("1", "team"), pod("2", "team")]));
    pods.name(&naming(&[("1", named("team", Some("a")))]));
    pods.name(&naming(&[]));
    assert_eq!(pods.shown().count(), 2, "the runtime knows better");
    pods.name(&naming(&[("1", named("team", Some("a")))]));
    pods.apply(PodFact::RuntimeAway);
    pods.name(&naming(&[]));
    let left: Vec<_> = pods.shown().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(left, ["2"], "of the other the controller has never told");
}

#[test]
fn the_controllers_word_of_a_pod_counts_before_the_labels_with_which_it_began() {
    let a: VirtualClusterName = "a".parse().unwrap();
    let critical = NamedPod { is_critical: true, ..named("x", None) };
    let snapshot = naming(&[
        ("1", named("team", None)),
        ("2", named("x", Some("a"))),
        ("3", critical),
        ("4", named("x", Some("gone"))),
    ]);
    // As the runtime shows them: the bindings of their namespaces would say otherwise.
    assert_eq!(pod("1", "team").claim(&snapshot), Claim::CutOff, "relabelled since");
    assert_eq!(pod("2", "x").claim(&snapshot), Claim::Member(&a));
    assert_eq!(pod("3", "x").claim(&snapshot), Claim::Exempt);
    assert_eq!(pod("4", "x").claim(&snapshot), Claim::CutOff);
    assert_eq!(pod("5", "team").claim(&snapshot), Claim::Member(&a), "not named yet");
    let mut pods = Inventory::default();
    pods.name(&snapshot);
    let claims: Vec<_> = pods.iter().map(|pod| pod.claim(&snapshot)).collect();
    assert_eq!(claims, [Claim::CutOff, Claim::Member(&a), Claim::Exempt, Claim::CutOff]);
}

#[test]
fn a_mirror_makes_its_static_pod_exempt_and_nobodys() {
    const HASH: &str = "0123456789abcdef0123456789abcdef";
    let mirror = |namespace| NamedPod {
        mirror_of: Some(NamedPod::mirrored(HASH).unwrap()),
        ..named(namespace, Some("a"))
    };
    // Two say that they are its mirror, one of them in a tenant's namespace.
    let snapshot = naming(&[("1", mirror("team")), ("2", mirror(SYSTEM_NAMESPACE))]);
    let mut pods = Inventory::default();
    pods.name(&snapshot);
    assert_eq!(pods.iter().count(), 1);
    assert_eq!(pods.get(&HASH.parse().unwrap()).unwrap().claim(&snapshot), Claim::Exempt);
    pods.name(&naming(&[("2", mirror(SYSTEM_NAMESPACE))]));
    assert!(pods.get(&HASH.parse().unwrap()).is_some(), "one is enough");
    for uid in
        ["0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "0123", "", "0123456789ABCDEF0123456789ABCDEF"]
    {
        assert_eq!(NamedPod::mirrored(uid), None, "{uid}");
    }
}

#[test]
fn addresses_outlive_a_runtime_that_does_not_tell_them_again() {
    let addresses = |pods: &Inventory| pods.get(&"1".parse().unwrap()).unwrap().addresses.clone();
    let mut pods = Inventory::default();
    pods.apply(PodFact::Runs(pod("1", "n")));
    let own = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
    pods.apply(PodFact::Addresses("1".parse().unwrap(), own.clone()));
    pods.apply(PodFact::All(vec![pod("1", "n")]));
    assert_eq!(addresses(&pods), own);
    pods.apply(PodFact::Runs(pod("1", "n")));
    assert_eq!(addresses(&pods), BTreeSet::new(), "another sandbox has another network");
    pods.apply(PodFact::Addresses("1".parse().unwrap(), own));
    pods.apply(PodFact::All(vec![Pod { host_network: true, ..pod("1", "n") }]));
    assert_eq!(addresses(&pods), BTreeSet::new());
}
