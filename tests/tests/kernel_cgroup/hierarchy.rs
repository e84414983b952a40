//! Directories: made, found, refused, frozen, removed.

#![expect(unsafe_code, reason = "name_to_handle_at has no safe wrapper")]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bulkhead_agent::kernel::cgroup::{CgroupError, CgroupTree, EmptyLeaves, Sampler};
use bulkhead_core::control::Max;
use bulkhead_core::{CgroupId, Control, ControlValue};
use nix::errno::Errno;

use crate::fixture::{Fixture, PATIENCE, mount_point, sample, vc, wait_for};

/// A kernfs file handle: the 64-bit id, which is what `bpf_get_current_cgroup_id` gives.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

fn id_of_handle(path: &Path) -> CgroupId {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut handle = Handle { bytes: 8, kind: 0, id: [0; 8] };
    let mut mount = 0;
    // SAFETY: `Handle` is a file_handle with room for the 8 bytes that it says it has.
    let result = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle).cast(),
            &raw mut mount,
            0,
        )
    };
    assert_eq!(result, 0, "{}", Errno::last());
    CgroupId(u64::from_ne_bytes(handle.id))
}

#[test]
fn the_inode_number_is_the_id_that_the_kernel_gives() {
    let fixture = Fixture::new();
    let id = fixture.tree().create_virtual_cluster(&vc("red")).unwrap();
    assert_eq!(id, id_of_handle(&fixture.directory("red")));
    assert_eq!(fixture.tree().id().unwrap(), id_of_handle(fixture.tree().path()));
}

#[test]
fn a_directory_is_made_once_and_every_incarnation_has_its_own_id() {
    let fixture = Fixture::new();
    let (tree, red) = (fixture.tree(), vc("red"));
    let id = tree.create_virtual_cluster(&red).unwrap();
    assert_eq!(tree.create_virtual_cluster(&red).unwrap(), id);
    assert!(tree.remove_virtual_cluster(&red).unwrap());
    assert!(!tree.remove_virtual_cluster(&red).unwrap());
    assert_ne!(tree.create_virtual_cluster(&red).unwrap(), id);
    let seen = tree.observe().unwrap();
    assert_eq!(seen.cgroups.len(), 1);
    assert!(!seen.cgroups[&red].populated);
}

#[test]
fn a_root_that_was_replaced_is_found_out() {
    let fixture = Fixture::new();
    let path = fixture.directory("Inner");
    let inner = CgroupTree::create(&path).unwrap();
    assert!(!inner.is_replaced().unwrap());
    fs::remove_dir(&path).unwrap();
    assert!(inner.is_replaced().unwrap());
    fs::create_dir(&path).unwrap();
    assert!(inner.is_replaced().unwrap());
}

#[test]
fn the_level_counts_from_the_top_of_the_hierarchy() {
    let fixture = Fixture::with(&["red"]);
    assert_eq!(fixture.tree().virtual_cluster_level(), 2);
    let inner = CgroupTree::create(&fixture.directory("red").join("inner")).unwrap();
    assert_eq!(inner.virtual_cluster_level(), 4);
}

#[test]
fn a_symbolic_link_in_the_path_is_refused_and_named() {
    let fixture = Fixture::with(&["red"]);
    let link = fixture.file("link");
    symlink(fixture.tree().path(), &link).unwrap();
    let link = link.parent().unwrap().canonicalize().unwrap().join("link");
    for path in [link.clone(), link.join("red")] {
        let refused = CgroupError::Symlink { path: path.clone(), link: link.clone() };
        assert_eq!(CgroupTree::open(&path).unwrap_err(), refused);
        assert!(refused.to_string().contains(&link.display().to_string()));
    }
    assert!(CgroupTree::create(&link.join("new")).is_err());
    assert!(!fixture.directory("new").exists());
}

#[test]
fn what_is_no_cgroup_is_refused() {
    let fixture = Fixture::new();
    let directory = fixture.file("directory");
    fs::create_dir(&directory).unwrap();
    let directory = directory.canonicalize().unwrap();
    let error = CgroupTree::open(&directory).unwrap_err();
    assert!(matches!(error, CgroupError::NotCgroup2 { .. }), "{error}");
    let error = CgroupTree::create(&directory.join("root")).unwrap_err();
    assert!(matches!(error, CgroupError::NotCgroup2 { .. }), "{error}");
    assert!(!directory.join("root").exists());
    let error = CgroupTree::open(&mount_point().join("../..")).unwrap_err();
    assert!(matches!(error, CgroupError::BadPath { .. }), "{error}");
}

#[test]
fn directories_that_are_not_ours_are_reported_and_left_alone() {
    let fixture = Fixture::with(&["red"]);
    fs::create_dir(fixture.directory("Not_Ours")).unwrap();
    let seen = fixture.tree().observe().unwrap();
    assert_eq!(seen.unknown, ["Not_Ours"]);
    assert_eq!(seen.cgroups.keys().collect::<Vec<_>>(), [&vc("red")]);
    assert!(fixture.directory("Not_Ours").exists());
}

#[test]
fn frozen_processes_use_no_cpu_until_thawed() {
    let fixture = Fixture::with(&["red"]);
    let _burner = fixture.background("red", "while :; do :; done");
    let mut sampler = Sampler::default();
    let mut used = || sample(&mut sampler, fixture.tree())[&vc("red")].counters.cpu.unwrap();
    wait_for("the burner's start", || fixture.is_populated("red"));
    fixture.tree().set_frozen(&vc("red"), true, PATIENCE).unwrap();
    let frozen = used();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(used(), frozen);
    fixture.tree().set_frozen(&vc("red"), false, PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(used().usage_nanoseconds > frozen.usage_nanoseconds);
}

#[test]
fn while_a_process_lives_nothing_is_removed() {
    let fixture = Fixture::with(&["red"]);
    let _sleeper = fixture.background("red", "sleep 1000");
    wait_for("the sleeper's start", || fixture.is_populated("red"));
    fs::create_dir(fixture.directory("red").join("empty")).unwrap();
    let error = fixture.tree().remove_virtual_cluster(&vc("red")).unwrap_err();
    assert_eq!(error, CgroupError::Populated { path: fixture.directory("red") });
    assert!(fixture.directory("red").join("empty").exists());
    assert!(fixture.tree().remove_virtual_clusters().is_err());
}

#[test]
fn only_roots_of_tests_and_demos_are_killed() {
    let fixture = Fixture::with(&["red"]);
    let _sleeper = fixture.background("red", "sleep 1000");
    wait_for("the sleeper's start", || fixture.is_populated("red"));
    let tree = CgroupTree::open(&fixture.directory("red")).unwrap();
    let error = tree.kill_and_remove(PATIENCE).unwrap_err();
    assert!(matches!(error, CgroupError::NotDisposable { .. }), "{error}");
    assert!(fixture.is_populated("red"));
}

#[test]
fn leaves_that_stay_empty_are_swept_after_their_grace() {
    let fixture = Fixture::with(&["red"]);
    let tree = fixture.tree();
    let leaf = tree.create_leaf(&vc("red")).unwrap();
    fs::create_dir(fixture.directory("red").join("other")).unwrap();
    let mut empty = EmptyLeaves::default();
    let grace = Duration::from_secs(10);
    let mut sweep = |seconds| {
        let seen = tree.observe().unwrap();
        empty.sweep(tree, &seen, Duration::from_secs(seconds), grace).unwrap()
    };
    assert!(sweep(100).is_empty());
    assert!(sweep(109).is_empty());
    let name = leaf.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(sweep(110), [format!("red/{name}")]);
    assert_eq!(fixture.leaves("red"), ["other"]);
    assert!(sweep(200).is_empty());
}

#[test]
fn core_controls_hold_and_stop_floods_of_cgroups() {
    let fixture = Fixture::with(&["red"]);
    let (tree, red) = (fixture.tree(), vc("red"));
    let eight = ControlValue::Max(Max::At(8));
    for control in [Control::CgroupMaxDescendants, Control::CgroupMaxDepth] {
        tree.write(&red, control, &eight).unwrap();
        assert_eq!(tree.read(&red, control).unwrap(), Some(eight.clone()));
        assert_eq!(tree.observe().unwrap().cgroups[&red].controls[&control], eight);
    }
    for _ in 0..8 {
        tree.create_leaf(&red).unwrap();
    }
    let error = tree.create_leaf(&red).unwrap_err();
    assert!(matches!(error, CgroupError::System { errno: Errno::EAGAIN, .. }), "{error}");
    assert!(error.to_string().contains("cgroup.max.descendants"), "{error}");
    tree.write(&red, Control::CgroupMaxDescendants, &Control::CgroupMaxDescendants.default_value())
        .unwrap();
    tree.create_leaf(&red).unwrap();
}

#[test]
fn an_unknown_virtual_cluster_is_named() {
    let fixture = Fixture::new();
    let root = fixture.tree().path().to_owned();
    let unknown = CgroupError::UnknownVirtualCluster { name: vc("nobody"), root };
    let value = Control::PidsMax.default_value();
    let error = fixture.tree().write(&vc("nobody"), Control::PidsMax, &value).unwrap_err();
    assert_eq!(error, unknown);
    assert_eq!(fixture.tree().create_leaf(&vc("nobody")).unwrap_err(), unknown);
}
