//! Taking everything off, and what other versions have left.

use std::fs;
use std::time::Duration;

use bulkhead_abi::maps;
use bulkhead_agent::kernel::bpf::{Bpf, BpfOptions, Detached, detach};

use crate::fixture::{Node, all_attached, at, none_attached, options, ready, run};

#[test]
fn detach_works_although_the_root_is_gone() {
    let node = Node::enforcing();
    for name in ["green", "red"] {
        node.sandbox.cgroups.remove(name).expect("remove cgroup");
    }
    let root = node.sandbox.cgroups.root();
    fs::remove_dir(root).expect("remove root");
    let bpffs = node.sandbox.bpffs.path().join("bulkhead");
    let done = detach(&bpffs).expect("detach");
    assert_eq!((done.links.len(), done.maps.len()), (6, maps::ALL.len()), "{done:?}");
    assert!(done.leftovers.is_empty(), "{done:?}");
    assert!(!bpffs.exists());
    fs::create_dir(root).expect("what the sandbox removes");
}

#[test]
fn detach_takes_everything_off_alone() {
    let node = Node::enforcing();
    let bpffs = node.sandbox.bpffs.path().join("bulkhead");
    // A version that this agent knows nothing of, and something that is nobody's.
    fs::create_dir_all(bpffs.join("v7/links")).expect("make directory");
    fs::create_dir(bpffs.join("other")).expect("make directory");
    let there = at(node.red().v4, 9000);
    let server = ready(&node.traffic("red", node.red()), &format!("tcp-serve --bind {there}"));
    let green = node.traffic("green", node.green());
    assert_eq!(run(&green, &format!("tcp-connect --to {there}"))["error"], "EPERM");

    // Also while an agent still holds its descriptors.
    let done = detach(&bpffs).expect("detach");
    assert_eq!((done.links.len(), done.maps.len()), (6, maps::ALL.len()), "{done:?}");
    assert_eq!(done.directories.len(), 5, "{done:?}");
    assert_eq!(done.leftovers, [(bpffs.join("other"), "is not ours".to_owned())]);
    assert!(none_attached(&node.bpf));
    let said = run(&green, &format!("tcp-connect --to {there} --bytes 10"));
    assert_eq!(said["sent"], 10, "{said}");
    assert_eq!(server.finish().expect("server")["connections"], 1);

    fs::remove_dir(bpffs.join("other")).expect("remove directory");
    let done = detach(&bpffs).expect("detach again");
    assert_eq!(done.directories, std::slice::from_ref(&bpffs));
    assert!(!bpffs.exists());
    assert_eq!(detach(&bpffs).expect("a third time"), Detached::default());
}

#[test]
fn other_versions_are_taken_off_when_ours_is_attached() {
    let node = Node::enforcing();
    let sandbox = &node.sandbox;
    // Made where it sees nothing of ours that it could take over.
    let (apart, beside) = ["apart", "bulkhead"].map(|dir| sandbox.bpffs.path().join(dir)).into();
    let old = BpfOptions { pin_dir: apart.join("v0"), ..options(sandbox) };
    let (before, _) = Bpf::open(&old).expect("load");
    assert_eq!(before.attach_all().expect("attach").attached.len(), 6);
    drop(before);
    fs::rename(&old.pin_dir, beside.join("v0")).expect("move");
    let done = node.bpf.detach_other_versions().expect("take off");
    assert_eq!(done.len(), 6, "{done:?}");
    assert!(all_attached(&node.bpf));
    // Its counters are not ours, so they stay until they are in the journal.
    assert_eq!(node.bpf.foreign().expect("look").len(), 1);
    node.bpf.forget(0).expect("forget");
    assert!(!beside.join("v0").exists());
    // A breath, so that a link that was closed late would be gone.
    std::thread::sleep(Duration::from_millis(50));
    assert!(all_attached(&node.bpf));
}
