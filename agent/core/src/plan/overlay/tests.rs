use std::collections::BTreeSet;
use std::net::IpAddr;

use bulkhead_abi::{MODE_OBSERVE, MODE_OFF};
use proptest::prelude::*;

use super::super::{Plan, plan as whole};
use super::*;
use crate::amount::{Amount, Pids};
use crate::binding::{NodePolicy, Unknown};
use crate::compile::compile;
use crate::compile::tests::{node, snapshot, virtual_cluster};
use crate::desired::EXEMPT;
use crate::facts::{Fact, Index};
use crate::inventory::tests::{bindings, named, pod};
use crate::inventory::{PodFact, Rank, SYSTEM_NAMESPACE};
use crate::model;
use crate::observed::{NodeFacts, Placement};
use crate::tenant::{NetworkMode, VirtualCluster};

const CAPACITIES: Capacities =
    Capacities { members: 64, counters: 64, addresses: 64, prefixes: 64, allowed: 64 };

fn overlay_node() -> NodeFacts {
    NodeFacts { placement: Placement::Overlay, ..node() }
}

fn enforced(name: &str, number: u32, addresses: &[&str]) -> VirtualCluster {
    let mut cluster = virtual_cluster(name, number, addresses);
    cluster.network.mode = NetworkMode::Enforce;
    cluster
}

/// The namespaces "a" and "b" are those of virtual clusters 1 and 2, in a cluster of 10.0.0.0/8.
fn told(unknown: Unknown) -> Snapshot {
    Snapshot {
        bindings: bindings(&[("a", "a"), ("b", "b")]),
        cluster_ranges: BTreeSet::from(["10.0.0.0/8".parse().unwrap()]),
        policy: NodePolicy { unknown, ..NodePolicy::default() },
        ..snapshot(vec![enforced("a", 1, &[]), enforced("b", 2, &[])])
    }
}

fn with_address(pod: Pod, address: &str) -> Pod {
    Pod { addresses: BTreeSet::from([address.parse().unwrap()]), ..pod }
}

fn path(uid: &str) -> PodPath {
    PodPath::from_relative(&format!("burstable/pod{uid}")).unwrap()
}

fn index(snapshot: Snapshot, pods: Vec<Pod>) -> Index {
    let mut index = Index::default();
    index.apply(snapshot.into()).unwrap();
    index.apply(Fact::Pods(PodFact::All(pods))).unwrap();
    index
}

fn wish(index: &Index) -> Desired {
    compile(index, &overlay_node()).unwrap().unwrap()
}

/// Pods whose cgroups are there, by UID; each has the number of its UID for its id.
fn there(uids: &[&str]) -> Observed {
    let one = |uid: &&str| (CgroupId(uid.parse().unwrap()), path(uid));
    Observed { pods: uids.iter().map(one).collect(), ..Observed::default() }
}

fn carry_out(plan: &Plan, observed: &mut Observed) {
    for step in &plan.steps {
        model::apply(observed, step, CgroupId(0), &BTreeSet::new()).unwrap();
    }
}

fn planned(desired: &Desired, observed: &Observed) -> Plan {
    whole(desired, observed, CAPACITIES).unwrap()
}

fn reach(desired: &Desired, observed: &mut Observed) {
    carry_out(&planned(desired, observed), observed);
    let again = planned(desired, observed);
    assert!(again.is_empty(), "{:?}", again.steps);
}

fn numbers(observed: &Observed) -> Vec<(u64, u32)> {
    let members = observed.network.members.iter();
    members.map(|(id, member)| (id.0, member.virtual_cluster)).collect()
}

fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.steps.iter().position(wanted).unwrap()
}

#[test]
fn pods_become_members_after_the_tables_are_filled_and_nothing_is_written_to_their_cgroups() {
    let mut snapshot = told(Unknown::Allow);
    let a = snapshot.virtual_clusters.get_mut(&"a".parse().unwrap()).unwrap();
    a.limit.pids = Some(Amount::Absolute(Pids(10)));
    let pods = vec![with_address(pod("1", "a"), "10.0.0.1"), pod("2", "b"), pod("3", "x")];
    let desired = wish(&index(snapshot, pods));
    let reasons = &desired.degraded[&"a".parse().unwrap()];
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].subject, "pids.max");
    assert!(reasons[0].message.starts_with("Overlay: "), "{reasons:?}");
    let mut observed = there(&["1", "2", "3"]);
    let plan = planned(&desired, &observed);
    let touches = |step: &Step| {
        matches!(
            step,
            Step::CreateCgroup { .. } | Step::SetControl { .. } | Step::RemoveCgroup { .. }
        )
    };
    assert!(!plan.steps.iter().any(touches), "{:?}", plan.steps);
    let order = [
        position(&plan, |step| matches!(step, Step::PutAddresses(_))),
        position(&plan, |step| matches!(step, Step::CreatePodCounters { .. })),
        position(&plan, |step| matches!(step, Step::SetPodMember { .. })),
        position(&plan, |step| matches!(step, Step::SetUnknown(_))),
        position(&plan, |step| matches!(step, Step::Attach)),
        position(&plan, |step| matches!(step, Step::EndPodConnections { .. })),
    ];
    assert!(order.is_sorted(), "{order:?}");
    reach(&desired, &mut observed);
    assert_eq!(numbers(&observed), [(1, 1), (2, 2)]);
}

#[test]
fn a_pod_whose_cgroups_id_another_pod_has_now_leaves_it_nothing() {
    let mut observed = there(&["1"]);
    reach(&wish(&index(told(Unknown::Allow), vec![pod("1", "a")])), &mut observed);
    assert_eq!(numbers(&observed), [(1, 1)]);
    for (namespace, expected) in [("b", vec![(1, 2)]), ("x", vec![])] {
        // The kernel gives each cgroup an id of its own; were it not so:
        let mut reused = observed.clone();
        reused.pods = BTreeMap::from([(CgroupId(1), path("7"))]);
        reach(&wish(&index(told(Unknown::Allow), vec![pod("7", namespace)])), &mut reused);
        assert_eq!(numbers(&reused), expected);
    }
}

#[test]
fn a_runtime_that_tells_of_another_cgroup_registers_none_of_the_same_name() {
    let elsewhere =
        Pod { cgroup: Some(PodPath::from_relative("besteffort/pod1").unwrap()), ..pod("1", "a") };
    let mut observed = there(&["1"]);
    reach(&wish(&index(told(Unknown::Allow), vec![elsewhere])), &mut observed);
    assert_eq!(numbers(&observed), []);
}

#[test]
fn until_all_pods_were_told_of_what_stands_stays() {
    let mut observed = there(&["1", "2"]);
    let pods = vec![with_address(pod("1", "a"), "10.0.0.1"), pod("2", "b")];
    reach(&wish(&index(told(Unknown::Allow), pods)), &mut observed);
    let address = to_abi("10.0.0.1".parse().unwrap());
    // Another start of the agent: it has what the controller said last, and no word of any pod.
    let mut index = Index::default();
    let mut now = told(Unknown::Allow);
    let b = now.virtual_clusters.get_mut(&"b".parse().unwrap()).unwrap();
    b.network.mode = NetworkMode::Observe;
    index.apply(now.into()).unwrap();
    reach(&wish(&index), &mut observed);
    assert_eq!(numbers(&observed), [(1, 1), (2, 2)]);
    assert_eq!(observed.network.members[&CgroupId(2)].mode, MODE_OBSERVE);
    assert_eq!(observed.network.addresses[&address].virtual_cluster, 1);
    // One pod that starts is not all; the cgroup of another is gone.
    index.apply(Fact::Pods(PodFact::Runs(pod("1", "a")))).unwrap();
    observed.pods.remove(&CgroupId(2));
    reach(&wish(&index), &mut observed);
    assert_eq!(numbers(&observed), [(1, 1)]);
    index.apply(Fact::Pods(PodFact::All(vec![]))).unwrap();
    reach(&wish(&index), &mut observed);
    assert_eq!(numbers(&observed), []);
    assert!(observed.network.counters.is_empty());
    assert!(!observed.network.addresses.contains_key(&address));
}

#[test]
fn addresses_of_pods_that_came_before_the_runtime_went_give_way_to_the_controllers_word() {
    let owner = |index: &Index| {
        let desired = wish(index);
        let address = to_abi("10.0.0.1".parse().unwrap());
        desired.network.addresses.get(&address).map(|far| far.virtual_cluster)
    };
    let mut index = index(told(Unknown::Allow), vec![with_address(pod("1", "a"), "10.0.0.1")]);
    let mut now = told(Unknown::Allow);
    let b = now.virtual_clusters.get_mut(&"b".parse().unwrap()).unwrap();
    b.addresses.insert("10.0.0.1".parse().unwrap());
    index.apply(now.into()).unwrap();
    assert_eq!(owner(&index), Some(1), "what the runtime says is newer");
    index.apply(Fact::Pods(PodFact::RuntimeAway)).unwrap();
    assert_eq!(owner(&index), Some(2));
    index.apply(told(Unknown::Allow).into()).unwrap();
    assert_eq!(owner(&index), Some(1), "nobody says anything else");
}

#[test]
fn what_was_kept_since_the_last_start_takes_no_registration_and_no_address_away() {
    let mut observed = there(&["1", "2"]);
    let pods = vec![with_address(pod("1", "a"), "10.0.0.1"), pod("2", "b")];
    reach(&wish(&index(told(Unknown::Allow), pods)), &mut observed);
    let address = to_abi("10.0.0.1".parse().unwrap());
    // It was kept before the first came, and neither runtime nor controller is there.
    let second = [("2".parse().unwrap(), named("b", Some("b")))];
    let mut index = Index::default();
    index.apply(Fact::Pods(PodFact::RuntimeAway)).unwrap();
    let kept = || Snapshot { pods: second.clone().into(), ..told(Unknown::Allow) };
    index.apply(kept().into()).unwrap();
    reach(&wish(&index), &mut observed);
    assert_eq!(numbers(&observed), [(1, 1), (2, 2)]);
    assert_eq!(observed.network.addresses[&address].virtual_cluster, 1);
    // The controller comes, and knows of the second only.
    index.apply(Snapshot { names_pods: true, ..kept() }.into()).unwrap();
    reach(&wish(&index), &mut observed);
    assert_eq!(numbers(&observed), [(1, 1), (2, 2)]);
    assert!(!observed.network.addresses.contains_key(&address));
}

#[test]
fn whoever_is_exempt_is_known_before_anybody_is_cut_off() {
    let pods = || {
        let fixed = Pod { rank: Rank::Static, ..pod("2", "x") };
        vec![pod("1", SYSTEM_NAMESPACE), fixed, pod("3", "x"), pod("4", "a")]
    };
    let mut observed = there(&["1", "2", "3", "4"]);
    reach(&wish(&index(told(Unknown::Allow), pods())), &mut observed);
    assert_eq!(numbers(&observed), [(4, 1)]);
    let plan = planned(&wish(&index(told(Unknown::Deny), pods())), &observed);
    let exempted = plan.steps.iter().rposition(
        |step| matches!(step, Step::SetPodMember { name: None, member, .. } if *member == EXEMPT),
    );
    let denied = position(&plan, |step| *step == Step::SetUnknown(Unknown::Deny));
    assert!(exempted.unwrap() < denied, "{:?}", plan.steps);
    carry_out(&plan, &mut observed);
    assert_eq!(numbers(&observed), [(1, 0), (2, 0), (4, 1)]);
    assert_eq!(observed.network.members[&CgroupId(1)].mode, MODE_OFF);
    assert_eq!(observed.network.counters, BTreeSet::from([CgroupId(4)]));
    let plan = planned(&wish(&index(told(Unknown::Allow), pods())), &observed);
    let allowed = position(&plan, |step| *step == Step::SetUnknown(Unknown::Allow));
    let deleted = position(&plan, |step| matches!(step, Step::DeleteMember(_)));
    assert!(allowed < deleted, "{:?}", plan.steps);
}

#[test]
fn a_pod_that_gets_another_number_is_nobodys_while_the_tables_change() {
    let mut observed = there(&["1"]);
    let pods = || vec![with_address(pod("1", "a"), "10.0.0.1")];
    reach(&wish(&index(told(Unknown::Allow), pods())), &mut observed);
    let mut renumbered = told(Unknown::Allow);
    let clusters = vec![enforced("a", 2, &[]), enforced("b", 1, &[])];
    renumbered.virtual_clusters = clusters.into_iter().map(|one| (one.name.clone(), one)).collect();
    let plan = planned(&wish(&index(renumbered, pods())), &observed);
    let number = |wanted: u32| move |step: &Step| matches!(step, Step::SetPodMember { member, .. } if member.virtual_cluster == wanted);
    let order = [
        position(&plan, number(NOBODY)),
        position(&plan, |step| matches!(step, Step::PutAddresses(_))),
        position(&plan, number(2)),
    ];
    assert!(order.is_sorted(), "{order:?}");
    carry_out(&plan, &mut observed);
    assert_eq!(numbers(&observed), [(1, 2)]);
}

#[test]
fn connections_are_looked_at_only_where_something_is_denied_now() {
    let ends = |plan: &Plan| {
        let ends = plan.steps.iter().filter_map(|step| match step {
            Step::EndPodConnections { pod, .. } => Some(pod.id.0),
            _ => None,
        });
        ends.collect::<Vec<_>>()
    };
    let mut observed = there(&["1", "2"]);
    let own = with_address(pod("1", "a"), "10.0.0.1");
    let two = vec![own.clone(), pod("2", "b")];
    reach(&wish(&index(told(Unknown::Allow), two.clone())), &mut observed);
    // An address inside the cluster that was nobody's was denied to all.
    let mut more = two.clone();
    more.push(with_address(pod("3", "b"), "10.0.0.3"));
    observed.pods.insert(CgroupId(3), path("3"));
    let plan = planned(&wish(&index(told(Unknown::Allow), more)), &observed);
    assert_eq!(ends(&plan), [3], "only of the new one: {:?}", plan.steps);
    carry_out(&plan, &mut observed);
    // It was outside the cluster, and open to all; now it is another's.
    let mut outside = two;
    outside.push(with_address(pod("3", "b"), "203.0.113.3"));
    let plan = planned(&wish(&index(told(Unknown::Allow), outside)), &observed);
    assert_eq!(ends(&plan), [1, 2, 3], "of b, since 10.0.0.3 is its own no more: {:?}", plan.steps);
}

#[test]
fn an_address_that_is_here_is_taken_from_whoever_had_it() {
    let mut snapshot = told(Unknown::Allow);
    let b = snapshot.virtual_clusters.get_mut(&"b".parse().unwrap()).unwrap();
    b.addresses = ["10.0.0.1", "10.1.0.0/16"].iter().map(|text| text.parse().unwrap()).collect();
    snapshot.node_addresses.insert("10.0.0.9".parse().unwrap());
    let mut mine = with_address(pod("1", "a"), "10.0.0.1");
    mine.addresses.extend(["10.1.2.3", "10.0.0.9"].map(|text| text.parse::<IpAddr>().unwrap()));
    let desired = wish(&index(snapshot, vec![mine]));
    let owner = |text: &str| {
        let network = &desired.network;
        look_up(&network.addresses, &network.prefixes, text.parse().unwrap())
            .unwrap()
            .virtual_cluster
    };
    assert_eq!(owner("10.0.0.1"), 1, "what the controller said is older");
    assert_eq!(owner("10.1.2.3"), 2, "what an object says holds");
    assert_eq!(owner("10.0.0.9"), 0, "a host's stays a host's");
    let reasons = &desired.degraded[&"a".parse().unwrap()];
    assert!(reasons[0].message.contains("10.1.2.3"), "{reasons:?}");
}

#[test]
fn more_pods_than_members_fit_are_refused_whole() {
    let uids: Vec<String> = (1..=65).map(|uid| uid.to_string()).collect();
    let pods = uids.iter().map(|uid| pod(uid, "a")).collect();
    let desired = wish(&index(told(Unknown::Allow), pods));
    let observed = there(&uids.iter().map(String::as_str).collect::<Vec<_>>());
    let error = whole(&desired, &observed, CAPACITIES).unwrap_err();
    assert!(error.to_string().contains("MEMBERS"), "{error}");
}

/// A few pods in any of the namespaces, each with an address of its own or none.
fn any_pods() -> impl Strategy<Value = Vec<Pod>> {
    let namespaces = prop::sample::select(vec!["a", "b", "x", SYSTEM_NAMESPACE]);
    let one = (1u8..20, namespaces, any::<bool>());
    prop::collection::btree_map(1u8..20, one, 0..12).prop_map(|pods| {
        let one = |(uid, (_, namespace, has_address)): (u8, (u8, &str, bool))| {
            let pod = pod(&uid.to_string(), namespace);
            if has_address { with_address(pod, &format!("10.0.0.{uid}")) } else { pod }
        };
        pods.into_iter().map(one).collect()
    })
}

fn any_unknown() -> impl Strategy<Value = Unknown> {
    prop_oneof![Just(Unknown::Allow), Just(Unknown::Deny)]
}

/// What holds after each single step: whoever is judged is counted, and where pods of nobody are
/// cut off, those that are exempt are not.
fn holds(observed: &Observed, desired: &Desired, was: Unknown) -> Result<(), TestCaseError> {
    for (id, member) in &observed.network.members {
        let is_counted = observed.network.counters.contains(id);
        prop_assert!(member.virtual_cluster == 0 || is_counted, "{id} is judged and not counted");
    }
    let overlay = desired.overlay.as_ref().unwrap();
    if (was, observed.network.unknown, overlay.unknown)
        == (Unknown::Allow, Some(Unknown::Deny), Unknown::Deny)
    {
        for (id, path) in &observed.pods {
            let exempt = overlay.pod(path).is_some_and(|pod| pod.owner.is_none());
            prop_assert!(!exempt || observed.network.members.contains_key(id), "{id} is cut off");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn from_any_state_a_plan_reaches_the_wish(
        before in any_pods(), after in any_pods(), gone in prop::collection::btree_set(1u8..20, 0..6),
        unknown in any_unknown(), was in any_unknown(), cut in 0usize..40,
    ) {
        let uids: Vec<String> = (1..20).map(|uid: u8| uid.to_string()).collect();
        let mut observed = there(&uids.iter().map(String::as_str).collect::<Vec<_>>());
        carry_out(&planned(&wish(&index(told(was), before)), &observed), &mut observed);
        observed.pods.retain(|id, _| !gone.contains(&u8::try_from(id.0).unwrap()));
        let desired = wish(&index(told(unknown), after.clone()));
        // The first attempt is cut off somewhere.
        for step in planned(&desired, &observed).steps.iter().take(cut) {
            model::apply(&mut observed, step, CgroupId(0), &BTreeSet::new()).unwrap();
            holds(&observed, &desired, was)?;
        }
        reach(&desired, &mut observed);
        for pod in &after {
            let id = CgroupId(pod.uid.as_str().parse().unwrap());
            let expected = match pod.namespace.as_str() {
                _ if !observed.pods.contains_key(&id) => None,
                "a" => Some(1),
                "b" => Some(2),
                SYSTEM_NAMESPACE if unknown == Unknown::Deny => Some(0),
                _ => None,
            };
            let number = observed.network.members.get(&id).map(|member| member.virtual_cluster);
            prop_assert_eq!(number, expected);
        }
    }

    #[test]
    fn the_order_in_which_facts_come_does_not_matter(
        pods in any_pods().prop_shuffle(), at in any::<prop::sample::Index>(), unknown in any_unknown(),
    ) {
        let expected = wish(&index(told(unknown), pods.clone()));
        let mut index = Index::default();
        index.apply(Fact::Pods(PodFact::All(vec![]))).unwrap();
        let at = at.index(pods.len() + 1);
        for (place, pod) in pods.iter().enumerate() {
            if place == at {
                index.apply(told(unknown).into()).unwrap();
            }
            let (uid, addresses) = (pod.uid.clone(), pod.addresses.clone());
            let bare = Pod { addresses: BTreeSet::new(), ..pod.clone() };
            index.apply(Fact::Pods(PodFact::Runs(bare))).unwrap();
            index.apply(Fact::Pods(PodFact::Addresses(uid, addresses))).unwrap();
        }
        index.apply(told(unknown).into()).unwrap();
        prop_assert_eq!(wish(&index), expected);
    }

    #[test]
    fn admitting_a_pod_is_what_the_next_plan_would_do(
        pods in any_pods(), namespace in prop::sample::select(vec!["a", "b", "x", SYSTEM_NAMESPACE]),
        unknown in any_unknown(), address in prop::option::of(0u8..40),
    ) {
        let uids: Vec<String> = (1..20).map(|uid: u8| uid.to_string()).collect();
        let mut observed = there(&uids.iter().map(String::as_str).collect::<Vec<_>>());
        let snapshot = told(unknown);
        let mut index = index(snapshot.clone(), pods);
        let standing = wish(&index);
        reach(&standing, &mut observed);
        let mut new = pod("50", namespace);
        if let Some(address) = address {
            new = with_address(new, &format!("10.0.0.{address}"));
        }
        index.apply(Fact::Pods(PodFact::Runs(new.clone()))).unwrap();
        observed.pods.insert(CgroupId(50), path("50"));
        let cgroup = PodCgroup { path: path("50"), id: CgroupId(50) };
        let steps = admit(&snapshot, &standing, &new, cgroup).unwrap_or_default();
        carry_out(&Plan { steps }, &mut observed);
        let left = planned(&wish(&index), &observed);
        // Where an address was another pod's, the whole plan sees to that one's connections, and
        // takes it out where it is nobody's now.
        let may_be_left = |step: &Step| match step {
            Step::EndPodConnections { .. } => true,
            Step::DeleteAddresses(_) => !["a", "b"].contains(&namespace),
            _ => false,
        };
        let left: Vec<_> = left.steps.iter().filter(|step| !may_be_left(step)).collect();
        prop_assert!(left.is_empty(), "{left:?}");
    }
}
