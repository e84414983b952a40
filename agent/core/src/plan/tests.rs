use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{MODE_OBSERVE, Prefix};
use proptest::prelude::*;

use super::*;
use crate::address::AddressBlock;
use crate::amount::{Amount, NanoCores, Pids};
use crate::compile::tests::{compiled, node, snapshot, virtual_cluster};
use crate::control::{Control, ControlValue, Max};
use crate::desired::look_up;
use crate::model;
use crate::name::CgroupId;
use crate::tenant::{NetworkMode, VirtualCluster};

fn all() -> BTreeSet<Control> {
    Control::ALL.into()
}

/// Applies a plan to the model; each new cgroup gets an id that was never used.
fn carry_out(plan: &Plan, observed: &mut Observed, next_id: &mut u64) {
    for step in &plan.steps {
        *next_id += 1;
        model::apply(observed, step, CgroupId(*next_id), &all()).unwrap();
    }
}

fn enforced(name: &str, number: u32, addresses: &[&str]) -> VirtualCluster {
    let mut vc = virtual_cluster(name, number, addresses);
    vc.network.mode = NetworkMode::Enforce;
    vc
}

fn two() -> Desired {
    let clusters = vec![enforced("a", 1, &["10.0.0.1"]), enforced("b", 2, &["10.0.0.2"])];
    compiled(snapshot(clusters), &node())
}

fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.steps.iter().position(wanted).unwrap()
}

#[test]
fn first_start_fills_tables_before_it_judges_and_limits_before_it_admits() {
    let mut a = enforced("a", 1, &["10.0.0.1"]);
    a.limit.pids = Some(Amount::Absolute(Pids(10)));
    let desired = compiled(snapshot(vec![a]), &node());
    let plan = plan(&desired, &Observed::default(), Capacities::default()).unwrap();
    let created = position(&plan, |step| matches!(step, Step::CreateCgroup { .. }));
    let limited =
        position(&plan, |step| matches!(step, Step::SetControl { control: Control::PidsMax, .. }));
    let filled = position(&plan, |step| matches!(step, Step::PutAddresses(_)));
    let member = position(&plan, |step| matches!(step, Step::SetMember { .. }));
    let attached = position(&plan, |step| matches!(step, Step::Attach));
    let ended = position(&plan, |step| matches!(step, Step::EndConnections { .. }));
    let order = [created, limited, filled, member, attached, ended];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_full_table_refuses_the_change_whole_and_names_it() {
    let capacities = Capacities { addresses: 1, ..Capacities::default() };
    let error = plan(&two(), &Observed::default(), capacities).unwrap_err();
    assert!(matches!(error, PlanError::TableFull { table: "ADDRESSES", capacity: 1, .. }));
    assert!(error.to_string().contains("ADDRESSES"), "{error}");
}

#[test]
fn somebody_elses_change_is_mended() {
    let mut a = enforced("a", 1, &["10.0.0.1"]);
    a.limit.cpu = Some(Amount::Absolute(NanoCores(500_000_000)));
    let desired = compiled(snapshot(vec![a]), &node());
    let (mut observed, mut id) = (Observed::default(), 0);
    let first = plan(&desired, &observed, Capacities::default()).unwrap();
    carry_out(&first, &mut observed, &mut id);
    let name = "a".parse().unwrap();
    let controls = &mut observed.cgroups.get_mut(&name).unwrap().controls;
    controls.insert(Control::CpuMax, Control::CpuMax.default_value());
    controls.insert(Control::MemoryHigh, ControlValue::Max(Max::At(1)));
    observed.network.attached.remove(PROGRAMS[0]);
    let again = plan(&desired, &observed, Capacities::default()).unwrap();
    let written = again.steps.iter().filter(|step| matches!(step, Step::SetControl { .. }));
    assert_eq!(written.count(), 2);
    assert!(again.steps.contains(&Step::Attach));
}

#[test]
fn only_tightening_ends_connections() {
    let mut observe = virtual_cluster("a", 1, &["10.0.0.1"]);
    let (mut observed, mut id) = (Observed::default(), 0);
    let desired = compiled(snapshot(vec![observe.clone()]), &node());
    let first = plan(&desired, &observed, Capacities::default()).unwrap();
    assert!(!first.steps.iter().any(|step| matches!(step, Step::EndConnections { .. })));
    carry_out(&first, &mut observed, &mut id);
    observe.network.mode = NetworkMode::Enforce;
    let desired = compiled(snapshot(vec![observe.clone()]), &node());
    let second = plan(&desired, &observed, Capacities::default()).unwrap();
    let name = observe.name.clone();
    assert_eq!(second.steps.last(), Some(&Step::EndConnections { name }));
}

#[test]
fn a_deleted_virtual_cluster_with_processes_is_released_and_counted_to_its_end() {
    let mut a = enforced("a", 1, &["10.0.0.1"]);
    a.limit.pids = Some(Amount::Absolute(Pids(10)));
    let (mut observed, mut id) = (Observed::default(), 0);
    let desired = compiled(snapshot(vec![a.clone()]), &node());
    carry_out(&plan(&desired, &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
    observed.cgroups.get_mut(&a.name).unwrap().populated = true;

    let nobody = compiled(snapshot(vec![]), &node());
    let released = plan(&nobody, &observed, Capacities::default()).unwrap();
    carry_out(&released, &mut observed, &mut id);
    let cgroup = &observed.cgroups[&a.name];
    assert_eq!(cgroup.controls[&Control::PidsMax], Control::PidsMax.default_value());
    assert_eq!(observed.network.members[&cgroup.id].mode, MODE_OFF);
    assert!(observed.network.counters.contains(&cgroup.id));
    assert!(plan(&nobody, &observed, Capacities::default()).unwrap().is_empty());

    observed.cgroups.get_mut(&a.name).unwrap().populated = false;
    let last = plan(&nobody, &observed, Capacities::default()).unwrap();
    assert!(last.clone().keeping_counters().is_empty(), "nothing but ends of counters: {last:?}");
    carry_out(&last, &mut observed, &mut id);
    assert!(observed.cgroups.is_empty());
    assert!(observed.network.members.is_empty() && observed.network.counters.is_empty());
}

/// Any member of a small world; names and numbers go together, addresses never overlap.
fn world() -> impl Strategy<Value = Vec<VirtualCluster>> {
    let one = |number: u32| {
        let mode = prop_oneof![
            Just(NetworkMode::Off),
            Just(NetworkMode::Observe),
            Just(NetworkMode::Enforce)
        ];
        let addresses = prop::collection::btree_set(1u8..5, 0..4);
        let allow = prop::collection::btree_set(1u32..5, 0..3);
        let limit = prop::option::of(1u64..5);
        (mode, addresses, allow, limit, any::<bool>()).prop_map(
            move |(mode, addresses, allow, limit, there)| {
                let mut vc = virtual_cluster(&format!("vc{number}"), number, &[]);
                let text = |host: &u8| format!("10.0.{number}.{host}/3{}", host % 3);
                let blocks = addresses.iter().map(|host| text(host).parse().unwrap());
                vc.addresses = blocks.collect::<BTreeSet<AddressBlock>>();
                vc.network.mode = mode;
                let friends = allow.iter().map(|number| format!("vc{number}").parse().unwrap());
                vc.network.allow = friends.collect();
                vc.limit.pids = limit.map(|pids| Amount::Absolute(Pids(pids)));
                there.then_some(vc)
            },
        )
    };
    (one(1), one(2), one(3), one(4))
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect())
}

/// A mess that no plan of ours would leave: wrong values, strange entries, lost programs.
fn mess(observed: &mut Observed, seed: u64) {
    if seed & 1 != 0 {
        observed.network.attached.clear();
    }
    if seed & 2 != 0 {
        observed.network.configured = false;
    }
    if seed & 4 != 0 {
        let far = FarEnd { virtual_cluster: 9, flags: 7 };
        observed.network.addresses.insert(Address([1; 16]), far);
        observed.network.prefixes.insert(Prefix::default(), far);
    }
    if seed & 8 != 0 {
        let member = Member { virtual_cluster: 9, mode: MODE_OBSERVE };
        observed.network.members.insert(CgroupId(u64::MAX), member);
        observed.network.counters.insert(CgroupId(u64::MAX - 1));
    }
    for (at, cgroup) in observed.cgroups.values_mut().enumerate() {
        if seed >> (4 + at) & 1 != 0 {
            cgroup.controls.insert(Control::PidsMax, ControlValue::Max(Max::At(seed)));
        }
        cgroup.populated = seed >> (8 + at) & 1 != 0;
        if seed >> (12 + at) & 1 != 0 {
            observed.network.members.remove(&cgroup.id);
            observed.network.counters.remove(&cgroup.id);
        }
    }
}

/// What the node must be like for the wish to be met.
fn is_as_wanted(desired: &Desired, observed: &Observed) -> Result<(), TestCaseError> {
    prop_assert_eq!(&observed.network.addresses, &desired.network.addresses);
    prop_assert_eq!(&observed.network.prefixes, &desired.network.prefixes);
    prop_assert_eq!(&observed.network.allowed, &desired.network.allowed);
    prop_assert!(observed.network.configured);
    prop_assert_eq!(observed.network.attached.len(), PROGRAMS.len());
    let mut members = BTreeMap::new();
    for (name, cgroup) in &desired.cgroups {
        let stands = &observed.cgroups[name];
        prop_assert_eq!(&stands.controls, &cgroup.controls);
        prop_assert!(observed.network.counters.contains(&stands.id));
        members.insert(stands.id, desired.network.members[name]);
    }
    for (name, released) in &observed.cgroups {
        if !desired.cgroups.contains_key(name) {
            prop_assert!(released.populated, "an empty cgroup stayed: {}", name);
            if let Some(member) = observed.network.members.get(&released.id) {
                prop_assert_eq!(member.mode, MODE_OFF);
                members.insert(released.id, *member);
            }
        }
    }
    prop_assert_eq!(&observed.network.members, &members);
    Ok(())
}

proptest! {
    #[test]
    fn carrying_out_a_plan_reaches_the_wish_and_planning_again_gives_nothing(
        worlds in prop::collection::vec((world(), any::<u64>()), 1..4),
    ) {
        let (mut observed, mut id) = (Observed::default(), 0);
        for (clusters, seed) in worlds {
            let desired = compiled(snapshot(clusters), &node());
            mess(&mut observed, seed);
            let plan_of = |observed: &Observed| plan(&desired, observed, Capacities::default());
            carry_out(&plan_of(&observed).unwrap(), &mut observed, &mut id);
            is_as_wanted(&desired, &observed)?;
            prop_assert_eq!(plan_of(&observed).unwrap(), Plan::default());
        }
    }

    #[test]
    fn a_plan_that_was_cut_off_anywhere_is_finished_by_the_next(
        before in world(),
        after in world(),
        cut in 0usize..40,
    ) {
        let (mut observed, mut id) = (Observed::default(), 0);
        let first = compiled(snapshot(before), &node());
        carry_out(&plan(&first, &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
        let second = compiled(snapshot(after), &node());
        let mut half = plan(&second, &observed, Capacities::default()).unwrap();
        half.steps.truncate(cut);
        carry_out(&half, &mut observed, &mut id);
        carry_out(&plan(&second, &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
        is_as_wanted(&second, &observed)?;
    }

    #[test]
    fn a_table_without_room_for_both_is_never_overfull(before in world(), after in world()) {
        let (mut observed, mut id) = (Observed::default(), 0);
        let first = compiled(snapshot(before), &node());
        carry_out(&plan(&first, &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
        let second = compiled(snapshot(after), &node());
        let most = first.network.addresses.len().max(second.network.addresses.len());
        let tight = Capacities { addresses: most, ..Capacities::default() };
        for step in plan(&second, &observed, tight).unwrap().steps {
            id += 1;
            model::apply(&mut observed, &step, CgroupId(id), &all()).unwrap();
            prop_assert!(observed.network.addresses.len() <= most);
        }
    }

    #[test]
    fn an_address_that_is_known_before_and_after_is_never_outside_in_between(
        before in world(),
        after in world(),
        host in 1u8..5,
        number in 1u32..5,
    ) {
        let asked = format!("10.0.{number}.{host}").parse().unwrap();
        let known = |network: &ObservedNetwork| {
            let far = look_up(&network.addresses, &network.prefixes, asked);
            far.is_some_and(|far| far.virtual_cluster != 0)
        };
        let (mut observed, mut id) = (Observed::default(), 0);
        let first = compiled(snapshot(before), &node());
        carry_out(&plan(&first, &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
        let second = compiled(snapshot(after), &node());
        let mut at_the_end = observed.clone();
        let plan = plan(&second, &observed, Capacities::default()).unwrap();
        carry_out(&plan, &mut at_the_end, &mut id);
        let always = known(&observed.network) && known(&at_the_end.network);
        for step in &plan.steps {
            id += 1;
            model::apply(&mut observed, step, CgroupId(id), &all()).unwrap();
            prop_assert!(!always || known(&observed.network), "after {step}");
        }
    }
}

#[test]
fn virtual_clusters_that_swap_numbers_are_nobody_while_the_tables_change() {
    let (mut observed, mut id) = (Observed::default(), 0);
    carry_out(&plan(&two(), &observed, Capacities::default()).unwrap(), &mut observed, &mut id);
    let swapped = vec![enforced("a", 2, &["10.0.0.1"]), enforced("b", 1, &["10.0.0.2"])];
    let swapped = compiled(snapshot(swapped), &node());
    let plan = plan(&swapped, &observed, Capacities::default()).unwrap();
    let isolated = plan.steps.iter().rposition(|step| matches!(step, Step::Isolate { .. }));
    let changed = position(&plan, |step| matches!(step, Step::PutAddresses(_)));
    let members = position(&plan, |step| matches!(step, Step::SetMember { .. }));
    assert!(isolated.unwrap() < changed && changed < members, "{plan:?}");
    carry_out(&plan, &mut observed, &mut id);
    is_as_wanted(&swapped, &observed).unwrap();
}

fn numbered(range: std::ops::Range<u32>) -> Desired {
    let one = |number| enforced(&format!("t{number}"), number, &[]);
    compiled(snapshot(range.map(one).collect()), &node())
}

#[test]
fn a_node_that_is_full_takes_others_in_the_place_of_those_that_are_gone() {
    let capacities = Capacities { members: 5, counters: 4, ..Capacities::default() };
    let (mut observed, mut id) = (Observed::default(), 0);
    carry_out(&plan(&numbered(1..5), &observed, capacities).unwrap(), &mut observed, &mut id);
    // All but one are others now.
    let others = numbered(4..8);
    for step in plan(&others, &observed, capacities).unwrap().steps {
        id += 1;
        model::apply(&mut observed, &step, CgroupId(id), &all()).unwrap();
        assert!(observed.network.counters.len() <= 4 && observed.network.members.len() <= 5);
    }
    is_as_wanted(&others, &observed).unwrap();

    // One that still runs keeps its place, and the error says of which table, and what helps.
    observed.cgroups.get_mut(&"t4".parse().unwrap()).unwrap().populated = true;
    let error = plan(&numbered(5..9), &observed, capacities).unwrap_err();
    let PlanError::TableFull { table, needed, capacity } = &error;
    assert_eq!((*table, *needed, *capacity), ("CELLS", 5, 4));
    assert!(error.to_string().contains("--max-counted-cgroups"), "{error}");
    assert!(plan(&numbered(5..8), &observed, capacities).is_ok());
}
