//! What is refused before anything is touched.

use std::fs;

use bulkhead_abi::{ABI_SECTION, ABI_VERSION, maps};
use bulkhead_agent::kernel::bpf::{Bpf, BpfError, detach};
use bulkhead_tests::sandbox::Sandbox;
use object::{Object as _, ObjectSection as _};

use crate::fixture::{Node, all_attached, at, entries, object, options, run};

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_nothing_changes() {
    let node = Node::enforcing();
    let mut other = options(&node.sandbox);
    other.capacities.allowed = 17;
    let error = Bpf::open(&other).expect_err("the shape differs");
    let text = error.to_string();
    assert!(matches!(error, BpfError::MapShape { map: maps::ALLOWED, .. }), "{text}");
    assert!(text.contains("16 entries") && text.contains("17 entries"), "{text}");
    assert!(text.contains("bulkhead-agent detach"), "{text}");
    assert!(all_attached(&node.bpf));

    // Something else altogether in the place of a map.
    let pins = options(&node.sandbox).pin_dir;
    let members = pins.join("maps").join(maps::MEMBERS);
    fs::remove_file(&members).expect("remove pin");
    fs::rename(pins.join("maps").join(maps::CONFIG), &members).expect("rename");
    let error = Bpf::open(&options(&node.sandbox)).expect_err("CONFIG is not MEMBERS");
    assert!(matches!(error, BpfError::MapShape { map: maps::MEMBERS, .. }), "{error}");
    assert!(!pins.join("maps").join(maps::CONFIG).exists(), "nothing was made");
    let said = run(
        &node.traffic("green", node.green()),
        &format!("tcp-connect --to {}", at(node.red().v4, 9000)),
    );
    assert_eq!(said["error"], "EPERM", "{said}");
}

#[test]
fn an_object_that_is_not_ours_is_refused_before_it_is_loaded() {
    let sandbox = Sandbox::new(0).expect("make a sandbox");
    let dir = tempfile::tempdir().expect("make a directory");
    let mut wrong = options(&sandbox);
    wrong.object = dir.path().join("other.o");
    let refused = || {
        let error = Bpf::open(&wrong).expect_err("not ours");
        assert!(!sandbox.bpffs.path().join("bulkhead").exists(), "nothing was made");
        error
    };

    let error = refused();
    assert!(matches!(error, BpfError::Object { .. }), "{error}");
    assert!(error.to_string().contains("other.o"), "{error}");

    fs::write(&wrong.object, "#!/bin/sh\n").expect("write");
    let error = refused();
    assert!(matches!(error, BpfError::Object { .. }), "{error}");

    let mut bytes = fs::read(object()).expect("read the object");
    let file = object::File::parse(&*bytes).expect("parse the object");
    let section = file.section_by_name(ABI_SECTION).expect("the section is there");
    let (begin, _) = section.file_range().expect("it has bytes");
    bytes[usize::try_from(begin).expect("fits")] = 99;
    fs::write(&wrong.object, bytes).expect("write");
    let error = refused();
    assert!(matches!(error, BpfError::Abi { object: 99, agent: ABI_VERSION, .. }), "{error}");
}

#[test]
fn wrong_places_are_named_with_the_mend() {
    let sandbox = Sandbox::new(0).expect("make a sandbox");
    let dir = tempfile::tempdir().expect("make a directory");
    let mut wrong = options(&sandbox);
    wrong.pin_dir = dir.path().join("v1");
    let error = Bpf::open(&wrong).expect_err("no BPF file system");
    assert!(matches!(error, BpfError::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    assert_eq!(entries(dir.path()), 0);
    let error = detach(dir.path()).expect_err("no BPF file system");
    assert!(matches!(error, BpfError::NotBpffs { .. }), "{error}");

    let mut wrong = options(&sandbox);
    wrong.cgroup_root = dir.path().to_owned();
    let error = Bpf::open(&wrong).expect_err("no cgroup");
    assert!(matches!(error, BpfError::NotCgroup { .. }), "{error}");
    assert!(!sandbox.bpffs.path().join("bulkhead").exists(), "nothing was made");
}
