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

#[test]
fn what_the_runtime_shows_counts_before_what_the_controller_knows() {
    let mut pods = Inventory::default();
    assert!(!pods.is_complete());
    pods.apply(PodFact::Runs(pod("1", "shown")));
    assert!(!pods.is_complete(), "one pod is not all");
    pods.apply(PodFact::Directory(vec![pod("1", "told"), pod("2", "told")]));
    assert!(pods.is_complete());
    let namespaces = |pods: &Inventory| {
        pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.uid)).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(&pods), ["shown/1", "told/2"]);
    pods.apply(PodFact::Gone("1".parse().unwrap()));
    assert_eq!(namespaces(&pods), ["told/1", "told/2"]);
    pods.apply(PodFact::All(vec![pod("3", "shown")]));
    assert_eq!(namespaces(&pods), ["shown/3", "told/1", "told/2"]);
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
