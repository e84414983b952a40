//! Agents of other versions: who takes over from whom, under traffic.

use std::path::PathBuf;

use aya::maps::{Array, MapData, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use bulkhead_abi::{Cell, Class, Config, Counters, Direction, Outcome, maps, programs};
use bulkhead_agent::kernel::bpf::{Bpf, BpfOptions, Capacities};
use bulkhead_tests::sandbox::Sandbox;
use serde_json::json;

use crate::fixture::{EPOCH, Node, all_attached, at, options, ready, run};

const BPF_F_NO_PREALLOC: u32 = 1;

/// What an agent of that version would open; it has the shapes of ours.
fn version(sandbox: &Sandbox, number: u32) -> BpfOptions {
    BpfOptions { pin_dir: directory(sandbox, number), ..options(sandbox) }
}

/// The same, with counters of another shape.
fn other_shape(sandbox: &Sandbox, number: u32) -> BpfOptions {
    let mut options = version(sandbox, number);
    options.capacities.counters += 1;
    options.epoch_if_new = EPOCH + u64::from(number);
    options
}

fn directory(sandbox: &Sandbox, number: u32) -> PathBuf {
    sandbox.bpffs.path().join(format!("bulkhead/v{number}"))
}

/// Ends the agent of `node` and lets one of another version take over.
fn take_over(node: Node, options: &BpfOptions) -> Node {
    let Node { bpf, sandbox } = node;
    drop(bpf);
    let (bpf, _) = Bpf::open(options).expect("open");
    let done = bpf.attach_all().expect("attach");
    assert_eq!(done.replaced.len(), programs::ALL.len(), "{done:?}");
    let taken_off = bpf.detach_other_versions().expect("take off");
    assert_eq!(taken_off, Vec::<PathBuf>::new(), "every link goes on with us");
    assert!(all_attached(&bpf));
    Node { bpf, sandbox }
}

fn denied(node: &Node) -> u64 {
    node.cell("green", Direction::Egress, Class::Other, Outcome::Denied).0
}

#[test]
fn up_and_down_under_traffic_nothing_passes_and_nothing_is_counted_twice() {
    let mut node = Node::enforcing();
    let there = at(node.red().v4, 9000);
    let sink = ready(&node.sandbox.outsider(node.red()), &format!("udp-recv --bind {there}"));
    let line = format!("ping --to {} --count 60000 --timeout-ms 0", node.red().v4);
    let mut pinger = node.traffic("green", node.green()).start(&line).expect("start");
    let line = format!("udp-send --to {there} --count 60000");
    let mut sender = node.traffic("green", node.green()).start(&line).expect("start");
    for number in [8, 3, 9, 2, 8, 3] {
        let before = options(&node.sandbox).pin_dir;
        node = {
            let options = version(&node.sandbox, number);
            take_over(node, &options)
        };
        assert!(!before.exists(), "the pins of the version before are gone");
    }
    let said = sender.wait_for_line().expect("result");
    assert_eq!(said["errors"], json!({ "EPERM": 60_000 }), "{said}");
    let said = pinger.wait_for_line().expect("result");
    assert_eq!(said["errors"], json!({ "EPERM": 60_000 }), "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    assert_eq!(denied(&node), 60_000, "each ping once, whichever version saw it");
    assert_eq!(node.bpf.epoch(), EPOCH, "the counters are the old ones");
    assert_eq!(node.bpf.foreign().expect("look"), []);
}

#[test]
fn tables_and_counters_of_the_same_shape_are_carried_over() {
    let node = Node::enforcing();
    let Node { bpf, sandbox } = node;
    drop(bpf);
    let (bpf, opened) = Bpf::open(&version(&sandbox, 9)).expect("open");
    assert_eq!((opened.carried_over, opened.created), (maps::ALL.to_vec(), vec![]));
    assert_eq!(bpf.tables().addresses.read_all().expect("read").len(), 6);
    assert!(bpf.is_linked().expect("ask"), "the other version judges and counts");
    drop(bpf);
    // It was killed before it attached: the next one finds both.
    let (bpf, opened) = Bpf::open(&version(&sandbox, 9)).expect("open");
    assert_eq!(opened.taken_over, maps::ALL);
    bpf.attach_all().expect("attach");
    assert!(all_attached(&bpf));
}

/// What an agent leaves that is killed between two pins, whichever these are, is not half of the
/// tables of one version and half of another's.
#[test]
fn a_take_over_that_was_cut_short_between_two_pins_is_begun_anew() {
    let node = Node::enforcing();
    let green = node.traffic("green", node.green());
    run(&green, &format!("ping --to {} --count 5 --timeout-ms 0", node.red().v4));
    let Node { bpf, sandbox } = node;
    drop(bpf);
    let later = BpfOptions { epoch_if_new: EPOCH + 9, ..version(&sandbox, 9) };
    let theirs = later.pin_dir.join("maps");
    // In this order and, as another version may have it, in the other.
    let cuts = (1..maps::ALL.len()).flat_map(|at| {
        let (first, second) = maps::ALL.split_at(at);
        [first.to_vec(), second.to_vec()]
    });
    for gone in cuts {
        let (bpf, _) = Bpf::open(&later).expect("open");
        drop(bpf);
        for map in &gone {
            std::fs::remove_file(theirs.join(map)).expect("remove pin");
        }
        let (bpf, opened) = Bpf::open(&options(&sandbox)).expect("the version before");
        assert_eq!((opened.taken_over, bpf.epoch()), (maps::ALL.to_vec(), EPOCH), "{gone:?}");
        assert_eq!(bpf.foreign().expect("look"), [], "{gone:?}");
        drop(bpf);
        let (bpf, opened) = Bpf::open(&later).expect("open again");
        assert_eq!((opened.carried_over, bpf.epoch()), (maps::ALL.to_vec(), EPOCH), "{gone:?}");
        assert_eq!(bpf.foreign().expect("look"), [], "{gone:?}");
        assert_eq!(bpf.tables().addresses.read_all().expect("read").len(), 6, "{gone:?}");
    }
    let (bpf, _) = Bpf::open(&later).expect("open");
    bpf.attach_all().expect("attach");
    let node = Node { bpf, sandbox };
    assert_eq!(denied(&node), 5);
}

/// The same where counters are of another shape: those of the version before stay the only ones.
#[test]
fn counters_that_were_never_counted_in_are_nobodys() {
    let node = Node::enforcing();
    let Node { bpf, sandbox } = node;
    drop(bpf);
    let later = other_shape(&sandbox, 9);
    let theirs = later.pin_dir.join("maps");
    for map in maps::ALL {
        let (bpf, _) = Bpf::open(&later).expect("open");
        drop(bpf);
        for other in maps::ALL.into_iter().filter(|other| *other != map) {
            std::fs::remove_file(theirs.join(other)).expect("remove pin");
        }
        let (bpf, _) = Bpf::open(&options(&sandbox)).expect("the version before");
        assert_eq!(bpf.foreign().expect("look"), [], "{map}");
        drop(bpf);
        let (bpf, opened) = Bpf::open(&later).expect("open again");
        assert_eq!((opened.taken_over, bpf.epoch()), (vec![], EPOCH + 9), "{map}");
        let foreign = bpf.foreign().expect("look");
        assert_eq!(foreign.iter().map(|one| one.epoch).collect::<Vec<_>>(), [EPOCH], "{map}");
    }
}

/// A node on which more is counted than the version after has slots for is not left alone.
#[test]
fn what_finds_no_slot_does_not_keep_the_next_version_from_starting() {
    let node = Node::enforcing();
    let options = BpfOptions {
        capacities: Capacities { counters: 1, ..options(&node.sandbox).capacities },
        epoch_if_new: EPOCH + 9,
        ..version(&node.sandbox, 9)
    };
    let node = take_over(node, &options);
    let counted = node.bpf.tables().counters.read_all().expect("read");
    assert_eq!(counted.len(), 1, "of green and red");
    assert_eq!(node.bpf.foreign().expect("look").len(), 1, "both are read from before");
}

/// An agent of version 2 refuses to start beside a map COUNTERS that is not its own; where there
/// is none, it takes the tables over and makes counters.
#[test]
fn an_agent_of_version_2_finds_nothing_that_it_does_not_know() {
    let node = Node::enforcing();
    let maps = options(&node.sandbox).pin_dir.join("maps");
    assert!(maps.join(maps::CELLS).exists());
    assert!(!maps.join(maps::COUNTERS_UP_TO_2).exists());
}

#[test]
fn counters_of_another_shape_are_read_to_their_last_packet() {
    let node = Node::enforcing();
    let green = node.traffic("green", node.green());
    let ping = format!("ping --to {} --count 100 --timeout-ms 0", node.red().v4);
    run(&green, &ping);
    let line = format!("ping --to {} --count 40000 --timeout-ms 0", node.red().v4);
    let mut pinger = green.start(&line).expect("start");
    let options = other_shape(&node.sandbox, 9);
    let node = take_over(node, &options);
    assert_eq!(node.bpf.epoch(), EPOCH + 9, "new counters have an epoch of their own");
    let said = pinger.wait_for_line().expect("result");
    assert_eq!(said["errors"], json!({ "EPERM": 40_000 }), "{said}");

    let foreign = node.bpf.foreign().expect("look");
    let [theirs] = &foreign[..] else { panic!("{foreign:?}") };
    assert_eq!((theirs.is_linked, theirs.epoch), (false, EPOCH));
    let id = node.id("green");
    let (_, counters) = theirs.counters.iter().find(|(cgroup, _)| *cgroup == id).expect("green");
    let before = counters.cells[0][Class::Other as usize][Outcome::Denied as usize].packets;
    assert!(before >= 100);
    assert_eq!(before + denied(&node), 40_100, "each ping once, in one of the two");

    node.bpf.forget(theirs.version).expect("forget");
    assert_eq!(node.bpf.foreign().expect("look"), []);
    assert!(!crate::fixture::options(&node.sandbox).pin_dir.exists());
}

/// Up to version 2, counters were a table by cgroup.
#[test]
fn counters_of_version_2_are_read_added_over_cpus() {
    let node = Node::enforcing();
    let maps = directory(&node.sandbox, 2).join("maps");
    std::fs::create_dir_all(&maps).expect("make a directory");
    let config = Config { abi_version: 2, ancestor_level: 1, epoch: EPOCH + 2 };
    let mut of_version_2 = Array::<MapData, Config>::create(1, 0).expect("create");
    of_version_2.set(0, config, 0).expect("write");
    of_version_2.pin(maps.join(maps::CONFIG)).expect("pin");
    let mut of_version_2 =
        PerCpuHashMap::<MapData, u64, Counters>::create(16, BPF_F_NO_PREALLOC).expect("create");
    let mut one = Counters::default();
    one.cells[1][2][0] = Cell { packets: 3, bytes: 400 };
    let cpus = nr_cpus().expect("count CPUs");
    let values = PerCpuValues::try_from(vec![one; cpus]).expect("one for each CPU");
    of_version_2.insert(77, values, 0).expect("write");
    of_version_2.pin(maps.join(maps::COUNTERS_UP_TO_2)).expect("pin");

    let foreign = node.bpf.foreign().expect("look");
    let [theirs] = &foreign[..] else { panic!("{foreign:?}") };
    assert_eq!((theirs.version, theirs.is_linked, theirs.epoch), (2, false, EPOCH + 2));
    let cpus = cpus as u64;
    one.cells[1][2][0] = Cell { packets: 3 * cpus, bytes: 400 * cpus };
    assert_eq!(theirs.counters, [(77, one)]);
    node.bpf.forget(2).expect("forget");
    assert_eq!(node.bpf.foreign().expect("look"), []);
}

/// A link that was moved, one whose program was replaced but not its pin, and four as they were:
/// what an agent leaves that is killed while it takes over.
#[test]
fn a_take_over_that_was_cut_short_is_ended_by_either_version() {
    for next in [9, 2] {
        let node = Node::enforcing();
        let Node { bpf, sandbox } = node;
        let ours = options(&sandbox).pin_dir;
        drop(bpf);
        let (newer, _) = Bpf::open(&version(&sandbox, 9)).expect("open");
        newer.attach_all().expect("attach");
        let theirs = directory(&sandbox, 9);
        for program in &programs::ALL[1..] {
            let link = PathBuf::from("links").join(program);
            std::fs::rename(theirs.join(&link), ours.join(&link)).expect("move back");
        }
        drop(newer);
        let options = if next == 9 {
            version(&sandbox, 9)
        } else {
            BpfOptions { pin_dir: ours.clone(), ..options(&sandbox) }
        };
        let (bpf, _) = Bpf::open(&options).expect("open");
        let done = bpf.attach_all().expect("attach");
        assert_eq!(done.replaced.len(), programs::ALL.len(), "{next}: {done:?}");
        assert_eq!(bpf.detach_other_versions().expect("take off"), Vec::<PathBuf>::new());
        assert!(all_attached(&bpf));
        let node = Node { bpf, sandbox };
        let said = run(
            &node.traffic("green", node.green()),
            &format!("ping --to {} --count 3 --timeout-ms 0", node.red().v4),
        );
        assert_eq!((&said["errors"], denied(&node)), (&json!({ "EPERM": 3 }), 3));
    }
}
