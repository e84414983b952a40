//! The tables from the agent's side: whole changes or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bulkhead_abi::{
    Address, AllowKey, Counters, FarEnd, MODE_ENFORCE, MODE_OBSERVE, Member, Prefix, maps,
};
use bulkhead_agent::kernel::bpf::{BpfError, Table};

use crate::fixture::Node;

fn numbered(number: u32) -> Address {
    let [a, b, c, d] = number.to_be_bytes();
    Address([0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
}

fn far(virtual_cluster: u32) -> FarEnd {
    FarEnd { virtual_cluster, flags: FarEnd::CLUSTER }
}

fn contents<K: aya::Pod + Ord + std::hash::Hash, V: aya::Pod + Ord>(
    table: &Table<K, V>,
) -> BTreeSet<(K, V)> {
    table.read_all().expect("read").into_iter().collect()
}

/// A change that does not fit is refused, names the table, and leaves everything as it was.
fn refuses_whole<K, V>(table: &Table<K, V>, map: &str, too_many: &[(K, V)])
where
    K: aya::Pod + Ord + std::hash::Hash + std::fmt::Debug,
    V: aya::Pod + Ord + std::fmt::Debug,
{
    let before = contents(table);
    let error = table.put(too_many).expect_err("it does not fit");
    match &error {
        BpfError::TableFull { map: named, capacity, wanted } => {
            assert_eq!((*named, *capacity), (map, table.capacity()));
            assert_eq!(*wanted, too_many.len());
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains(map), "{error}");
    assert_eq!(contents(table), before, "{map}");
}

#[test]
fn many_addresses_are_written_read_and_removed() {
    let node = Node::bare();
    let addresses = &node.bpf.tables().addresses;
    let entries: Vec<_> = (0..4000).map(|number| (numbered(number), far(number + 1))).collect();
    addresses.put(&entries).expect("write");
    assert_eq!(contents(addresses), entries.iter().copied().collect());
    // Half of them, and some that were never there.
    let gone: Vec<_> = (0..6000).filter(|number| number % 2 == 0).map(numbered).collect();
    addresses.remove(&gone).expect("remove");
    let left: BTreeMap<_, _> = contents(addresses).into_iter().collect();
    assert_eq!(left.len(), 2000);
    assert!(left.keys().all(|address| address.0[15] % 2 == 1));
    addresses.put(&[(numbered(1), far(99))]).expect("change");
    assert!(contents(addresses).contains(&(numbered(1), far(99))));
    assert_eq!(contents(addresses).len(), 2000);
}

#[test]
fn prefixes_are_written_read_and_removed() {
    let node = Node::bare();
    let prefixes = &node.bpf.tables().prefixes;
    let before = contents(prefixes);
    let new = [
        (Prefix { prefix_len: 128, address: numbered(1) }, far(1)),
        (Prefix { prefix_len: 64, address: numbered(0) }, far(2)),
        (Prefix { prefix_len: 0, address: Address::default() }, far(3)),
    ];
    prefixes.put(&new).expect("write");
    assert_eq!(contents(prefixes).len(), before.len() + 3);
    let gone = [new[0].0, Prefix { prefix_len: 17, address: numbered(0) }, new[1].0, new[2].0];
    prefixes.remove(&gone).expect("one of them is not there");
    assert_eq!(contents(prefixes), before);
}

#[test]
fn a_full_table_refuses_a_change_whole() {
    let node = Node::bare();
    let tables = node.bpf.tables();

    let pair = |from| AllowKey { from, to: 1 };
    let held: Vec<_> = (0..10).map(|from| (pair(from), 1)).collect();
    tables.allowed.put(&held).expect("fits");
    // Changes three, adds more than there is room for.
    let more: Vec<_> = (7..20).map(|from| (pair(from), 2)).collect();
    refuses_whole(&tables.allowed, maps::ALLOWED, &more);
    // What does fit still does.
    tables.allowed.put(&more[..9]).expect("16 in all");
    assert_eq!(contents(&tables.allowed).len(), 16);

    let member = |number| (u64::from(number), Member { virtual_cluster: number, mode: 1 });
    let members: Vec<_> = (1..=17).map(member).collect();
    refuses_whole(&tables.members, maps::MEMBERS, &members);

    let prefix = |number| Prefix { prefix_len: 128, address: numbered(number) };
    let prefixes: Vec<_> = (0..70).map(|number| (prefix(number), far(number))).collect();
    tables.prefixes.put(&prefixes[..8]).expect("fits");
    let changed: Vec<_> = prefixes.iter().map(|(prefix, _)| (*prefix, far(500))).collect();
    refuses_whole(&tables.prefixes, maps::PREFIXES, &changed);

    let addresses: Vec<_> = (0..5000).map(|number| (numbered(number), far(1))).collect();
    tables.addresses.put(&addresses[..3000]).expect("fits");
    let changed: Vec<_> = addresses.iter().map(|(address, _)| (*address, far(2))).collect();
    refuses_whole(&tables.addresses, maps::ADDRESSES, &changed);
}

#[test]
fn counters_begin_at_zero_once_and_end_with_their_last_value() {
    let node = Node::bare();
    let counters = &node.bpf.tables().counters;
    assert!(counters.create(1).expect("make"), "new");
    assert!(!counters.create(1).expect("make"), "there already");
    assert_eq!(counters.read_all().expect("read"), [(1, Counters::default())]);
    for id in 2..=16 {
        counters.create(id).expect("fits");
    }
    let error = counters.create(17).expect_err("full");
    assert!(
        matches!(error, BpfError::TableFull { map: maps::CELLS, capacity: 16, wanted: 1 }),
        "{error}"
    );
    assert_eq!(counters.read_all().expect("read").len(), 16);
    assert_eq!(counters.remove(1).expect("remove"), Some(Counters::default()));
    assert_eq!(counters.remove(1).expect("remove"), None);
    assert!(counters.create(17).expect("there is room again"));
}

/// A program that knows a slot may run until a grace period is over. One takes a tick or so, and
/// what makes counters otherwise takes microseconds.
#[test]
fn a_slot_is_given_away_only_after_a_grace_period() {
    let node = Node::bare();
    let counters = &node.bpf.tables().counters;
    counters.create(1).expect("make");
    let time = |id| {
        let began = Instant::now();
        assert!(counters.create(id).expect("make"), "new");
        began.elapsed()
    };
    let at_once = (2..9).map(time).min().expect("some");
    let after_removal = (2..9).map(|id| {
        counters.remove(id).expect("remove").expect("it was counted");
        time(id)
    });
    let waiting = after_removal.min().expect("some");
    assert!(
        waiting > at_once + Duration::from_micros(300),
        "given away after {waiting:?}, a free one after {at_once:?}"
    );
}

#[test]
fn a_member_changes_its_mode_in_place() {
    let node = Node::bare();
    node.join("green", 7, MODE_OBSERVE);
    node.join("green", 7, MODE_ENFORCE);
    let member = Member { virtual_cluster: 7, mode: MODE_ENFORCE };
    assert_eq!(contents(&node.bpf.tables().members), [(node.id("green"), member)].into());
}
