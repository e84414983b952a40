//! Loading, attaching, taking over.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use bulkhead_abi::{Class, Direction, MODE_ENFORCE, Outcome, maps, programs};
use bulkhead_agent::kernel::bpf::{Attached, Bpf};
use bulkhead_tests::sandbox::Sandbox;
use serde_json::json;

use crate::fixture::{
    EPOCH, GREEN, Node, RED, all_attached, at, entries, none_attached, object, options, ready, run,
};

#[test]
fn the_verifier_accepts_and_every_program_is_attached_once() {
    let sandbox = Sandbox::new(0).expect("make a sandbox");
    let (bpf, opened) = Bpf::open(&options(&sandbox)).expect("load");
    assert_eq!(opened.created, maps::ALL);
    assert!(opened.taken_over.is_empty() && opened.carried_over.is_empty());
    assert_eq!((opened.epoch, bpf.epoch()), (EPOCH, EPOCH));
    assert!(none_attached(&bpf));
    let done = bpf.attach_all().expect("attach");
    assert_eq!(done.attached.len(), programs::ALL.len());
    assert!(all_attached(&bpf));
    let done = bpf.attach_all().expect("attach again");
    assert_eq!(done.kept.len(), programs::ALL.len(), "{done:?}");
}

#[test]
fn while_the_agent_is_dead_everything_goes_on_and_nothing_is_counted_twice() {
    let node = Node::enforcing();
    let there = at(node.green_peer().v4, 9000);
    let sink =
        ready(&node.traffic("green", node.green_peer()), &format!("udp-recv --bind {there}"));
    let green = node.traffic("green", node.green());
    let refused = at(node.red().v4, 9000);
    let send = || {
        let said = run(&green, &format!("udp-send --to {there} --count 10 --bytes 72"));
        assert_eq!(said["sent"], 10, "{said}");
        let said = run(&green, &format!("tcp-connect --to {refused}"));
        assert_eq!(said["error"], "EPERM", "{said}");
    };
    send();
    let Node { bpf, sandbox } = node;
    drop(bpf);
    send();
    let later =
        bulkhead_agent::kernel::bpf::BpfOptions { epoch_if_new: EPOCH + 1, ..options(&sandbox) };
    let (bpf, opened) = Bpf::open(&later).expect("take over");
    assert_eq!(opened.taken_over, maps::ALL);
    assert_eq!(opened.epoch, EPOCH, "the counters are the old ones");
    send();
    let done = bpf.attach_all().expect("attach");
    assert_eq!(done.replaced.len(), programs::ALL.len(), "{done:?}");
    assert!(all_attached(&bpf));
    send();
    assert_eq!(sink.finish().expect("sink")["received"], 40);
    let node = Node { bpf, sandbox };
    for direction in [Direction::Egress, Direction::Ingress] {
        let own = node.cell("green", direction, Class::Own, Outcome::Passed);
        assert_eq!(own, (40, 4000), "{direction:?}");
    }
    assert_eq!(node.counters("green").connects[0][Class::Other as usize].denied, 4);
}

#[test]
fn taking_over_opens_no_gap() {
    let mut node = Node::enforcing();
    let there = at(node.red().v4, 9000);
    let sink = ready(&node.sandbox.outsider(node.red()), &format!("udp-recv --bind {there}"));
    let line = format!("ping --to {} --count 60000 --timeout-ms 0", node.red().v4);
    let mut pinger = node.traffic("green", node.green()).start(&line).expect("start");
    let line = format!("udp-send --to {there} --count 60000");
    let mut sender = node.traffic("green", node.green()).start(&line).expect("start");
    for _ in 0..10 {
        node = node.restart().0;
        let done = node.bpf.attach_all().expect("attach");
        assert_eq!(done.replaced.len(), programs::ALL.len());
    }
    let said = sender.wait_for_line().expect("result");
    assert_eq!(said["errors"], json!({ "EPERM": 60_000 }), "{said}");
    let said = pinger.wait_for_line().expect("result");
    assert_eq!(said["errors"], json!({ "EPERM": 60_000 }), "{said}");
    assert_eq!(sink.finish().expect("sink")["received"], 0);
    let refused = node.cell("green", Direction::Egress, Class::Other, Outcome::Denied);
    assert_eq!(refused.0, 60_000, "each ping is counted once, whichever program saw it");
}

#[test]
fn new_counters_have_a_new_epoch() {
    let node = Node::enforcing();
    let counters = options(&node.sandbox).pin_dir.join("maps").join(maps::CELLS);
    let Node { bpf, sandbox } = node;
    drop(bpf);
    fs::remove_file(counters).expect("remove pin");
    let mut later = options(&sandbox);
    later.epoch_if_new = EPOCH + 5;
    let (_, opened) = Bpf::open(&later).expect("take over");
    assert_eq!(opened.created, [maps::CELLS]);
    assert_eq!(opened.epoch, EPOCH + 5);
}

/// Takes every place that a cgroup has for one kind of program (64), until it is dropped.
fn fill_places(root: &Path) -> aya::Ebpf {
    let bytes = fs::read(object()).expect("read the object");
    let mut other = EbpfLoader::new().load(&bytes).expect("load");
    let program = other.program_mut(LAST).expect("it has the program");
    let program: &mut CgroupSockAddr = program.try_into().expect("of this kind");
    program.load().expect("load");
    let root = fs::File::open(root).expect("open");
    for _ in 0..64 {
        program.attach(&root, CgroupAttachMode::Single).expect("attach");
    }
    other
}

/// Attaches when the places that were taken are free: a child that another test is starting
/// holds our descriptors until it runs its program.
fn attach_when_free(bpf: &Bpf) -> Attached {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match bpf.attach_all() {
            Ok(done) => return done,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The program that is attached last.
const LAST: &str = programs::SENDMSG6;

#[test]
fn a_first_start_that_fails_leaves_nothing_attached() {
    let node = Node::bare();
    let full = fill_places(node.sandbox.cgroups.root());
    let error = node.bpf.attach_all().expect_err("no place is left");
    assert!(error.to_string().contains(LAST), "{error}");
    assert!(none_attached(&node.bpf));
    assert_eq!(entries(&options(&node.sandbox).pin_dir.join("links")), 0);

    drop(full);
    let done = attach_when_free(&node.bpf);
    assert_eq!(done.attached.len(), programs::ALL.len());
    assert!(all_attached(&node.bpf));
}

#[test]
fn a_new_root_takes_the_place_of_the_old_one_or_nothing_changes() {
    let node = Node::enforcing();
    let elsewhere = Sandbox::new(0).expect("make a sandbox");
    let mut moved = options(&node.sandbox);
    moved.cgroup_root = elsewhere.cgroups.root().to_owned();
    let green = node.traffic("green", node.green());
    let there = at(node.red().v4, 9000);
    let refused = |why: &str| {
        let said = run(&green, &format!("ping --to {}", node.red().v4));
        assert_eq!(said["errors"], json!({ "EPERM": 1 }), "{why}: {said}");
        let said = run(&green, &format!("tcp-connect --to {there}"));
        assert_eq!(said["error"], "EPERM", "{why}: {said}");
    };
    refused("before");

    let (bpf, _) = Bpf::open(&moved).expect("take over");
    assert!(none_attached(&bpf), "they are attached elsewhere");
    let full = fill_places(elsewhere.cgroups.root());
    let error = bpf.attach_all().expect_err("no place is left");
    assert!(error.to_string().contains(LAST), "{error}");
    refused("after a move that failed");
    assert!(all_attached(&node.bpf));

    drop(full);
    let done = attach_when_free(&bpf);
    assert_eq!(done.attached.len(), programs::ALL.len());
    assert!(all_attached(&bpf));
    assert!(none_attached(&node.bpf));
    let server = ready(&node.traffic("red", node.red()), &format!("tcp-serve --bind {there}"));
    let said = run(&green, &format!("tcp-connect --to {there} --bytes 10"));
    assert_eq!(said["sent"], 10, "nothing is left on the old root: {said}");
    drop(server);
}

#[test]
fn a_link_that_was_taken_away_is_seen_and_mended() {
    let node = Node::enforcing();
    let links = options(&node.sandbox).pin_dir.join("links");
    fs::remove_file(links.join(programs::EGRESS)).expect("remove pin");
    let attached = node.bpf.attached().expect("ask the kernel");
    assert!(!attached[programs::EGRESS]);
    assert_eq!(attached.values().filter(|attached| **attached).count(), 5);
    let done = node.bpf.attach_all().expect("mend");
    assert_eq!((&done.attached[..], done.kept.len()), (&[programs::EGRESS][..], 5));
    assert!(all_attached(&node.bpf));
}

#[test]
fn links_of_a_root_that_is_gone_are_made_anew() {
    let node = Node::enforcing();
    let Node { bpf, sandbox } = node;
    drop(bpf);
    let root = sandbox.cgroups.root().to_owned();
    for name in ["green", "red"] {
        sandbox.cgroups.remove(name).expect("remove cgroup");
    }
    fs::remove_dir(&root).expect("remove root");
    fs::create_dir(&root).expect("make root");
    let (bpf, opened) = Bpf::open(&options(&sandbox)).expect("take over");
    assert_eq!(opened.taken_over, maps::ALL);
    assert!(none_attached(&bpf));
    let done = bpf.attach_all().expect("attach");
    assert_eq!(done.attached.len(), programs::ALL.len());
    let node = Node { bpf, sandbox };
    node.join("green", GREEN, MODE_ENFORCE);
    node.join("red", RED, MODE_ENFORCE);
    let said = run(
        &node.traffic("green", node.green()),
        &format!("tcp-connect --to {}", at(node.red().v4, 9000)),
    );
    assert_eq!(said["error"], "EPERM", "{said}");
}
