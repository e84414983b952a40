//! The cgroup iterator against the files whose place it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use bulkhead_agent::kernel::bpf::usage::{Field, Level, UsageIterator};
use bulkhead_agent::kernel::cgroup::{
    CgroupReading, CgroupTree, Observer, Sampler, TreeObservation,
};
use bulkhead_core::{CgroupId, Control, Controller, VirtualClusterName};

use crate::fixture::{Background, Fixture, sample, vc, wait_for, wait_for_file};

/// Uses some CPU time in user and in kernel mode, and writes to a file.
const BURN: &str = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); : </dev/null; done";

/// The object that is tested: cargo's test of this crate runs in `tests/`.
fn object() -> PathBuf {
    match std::env::var_os("BULKHEAD_BPF_OBJECT") {
        Some(path) => path.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bulkhead.bpf.o")),
    }
}

fn iterator(tree: &CgroupTree, fields: &[Field]) -> UsageIterator {
    let level = Level::Only(tree.virtual_cluster_level());
    UsageIterator::open(&object(), tree.as_fd(), level, fields).unwrap()
}

fn with_iterator(tree: &CgroupTree) -> Sampler {
    let sampler = Sampler::new(Ok(iterator(tree, &Field::ALL)));
    assert_eq!(sampler.why_files(), None);
    sampler
}

type Readings = BTreeMap<VirtualClusterName, CgroupReading>;

/// Starts what runs until the file is there, and burns before that.
fn busy(fixture: &Fixture, name: &str) -> (Background, PathBuf) {
    let (burnt, end) =
        (fixture.file(&format!("{name}-burnt")), fixture.file(&format!("{name}-end")));
    let script = format!(
        "{BURN}; echo 1 > {}; while ! [ -e {} ]; do {BURN}; done",
        burnt.display(),
        end.display()
    );
    let running = fixture.background(name, &script);
    wait_for_file(&burnt);
    (running, end)
}

fn freeze(fixture: &Fixture, frozen: bool) {
    let root = fixture.tree().path();
    fs::write(root.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
    let wanted = format!("frozen {}", u8::from(frozen));
    wait_for(&wanted, || fs::read_to_string(root.join("cgroup.events")).unwrap().contains(&wanted));
}

/// What files say, before and after which `look` was taken, and both times the same: removed
/// cgroups die at a time of their own.
fn steady<T>(fixture: &Fixture, mut look: impl FnMut() -> T) -> (Readings, T) {
    loop {
        let before = sample(&mut Sampler::default(), fixture.tree());
        let seen = look();
        if sample(&mut Sampler::default(), fixture.tree()) == before {
            return (before, seen);
        }
    }
}

#[test]
fn every_value_is_that_of_the_file() {
    let fixture = Fixture::with(&["blue", "green", "red"]);
    fixture.tree().enable(&BTreeSet::from(Controller::ALL));
    let mut told = with_iterator(fixture.tree());
    let (red, end) = busy(&fixture, "red");
    fixture.script("green", BURN);
    fs::create_dir(fixture.directory("blue").join("below")).unwrap();
    for _ in 0..5 {
        sample(&mut told, fixture.tree());
        freeze(&fixture, true);
        // Both orders: what the file has shown must not change what we tell, nor be missed.
        let first = sample(&mut with_iterator(fixture.tree()), fixture.tree());
        let (files, then) = steady(&fixture, || sample(&mut told, fixture.tree()));
        freeze(&fixture, false);
        assert_eq!(then, files);
        // A fresh one, before any file was read; the kernel still takes back memory by then.
        for (name, reading) in &files {
            assert_eq!(first[name].counters.cpu, reading.counters.cpu, "{name}");
        }
        assert!(files[&vc("red")].counters.cpu.unwrap().usage_nanoseconds > 0);
        assert_eq!(files[&vc("blue")].descendants.live, 1);
    }
    fs::write(end, "1").unwrap();
    assert_eq!(red.exit_code(), 0);
}

#[test]
fn without_a_file_being_read_nothing_ever_falls_and_the_parts_are_the_whole() {
    let fixture = Fixture::with(&["red"]);
    let mut told = with_iterator(fixture.tree());
    let (red, end) = busy(&fixture, "red");
    let mut last = sample(&mut told, fixture.tree())[&vc("red")].counters.cpu.unwrap();
    for _ in 0..100 {
        let cpu = sample(&mut told, fixture.tree())[&vc("red")].counters.cpu.unwrap();
        assert!(cpu.usage_nanoseconds >= last.usage_nanoseconds, "{last:?}, then {cpu:?}");
        assert!(cpu.user_nanoseconds >= last.user_nanoseconds, "{last:?}, then {cpu:?}");
        assert!(cpu.system_nanoseconds >= last.system_nanoseconds, "{last:?}, then {cpu:?}");
        let parts = cpu.user_nanoseconds + cpu.system_nanoseconds;
        // Each is cut to whole microseconds.
        assert!(cpu.usage_nanoseconds - parts < 2_000, "{cpu:?}");
        last = cpu;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    fs::write(end, "1").unwrap();
    assert_eq!(red.exit_code(), 0);
    assert!(last.usage_nanoseconds > 0);
}

#[test]
fn what_is_made_removed_and_made_again_is_followed() {
    let fixture = Fixture::with(&["red"]);
    let mut told = with_iterator(fixture.tree());
    fixture.script("red", BURN);
    let first = sample(&mut told, fixture.tree())[&vc("red")];
    assert!(first.counters.cpu.unwrap().usage_nanoseconds > 0);
    fixture.tree().create_virtual_cluster(&vc("blue")).unwrap();
    // Not ours, and not to be told of.
    fs::create_dir(fixture.directory("Not-Ours")).unwrap();
    let both = sample(&mut told, fixture.tree());
    assert_eq!(both.keys().map(ToString::to_string).collect::<Vec<_>>(), ["blue", "red"]);
    fixture.tree().remove_virtual_cluster(&vc("red")).unwrap();
    fixture.tree().create_virtual_cluster(&vc("red")).unwrap();
    let again = sample(&mut told, fixture.tree())[&vc("red")];
    assert_ne!(again.id, first.id);
    assert_eq!(again.counters.cpu.unwrap().usage_nanoseconds, 0);
    fixture.tree().remove_virtual_cluster(&vc("red")).unwrap();
    assert_eq!(sample(&mut told, fixture.tree()).len(), 1);
    fs::remove_dir(fixture.directory("Not-Ours")).unwrap();
}

#[test]
fn more_cgroups_than_there_was_room_for_are_told_of() {
    let fixture = Fixture::new();
    let mut told = iterator(fixture.tree(), &[Field::CpuTimes]);
    let bytes = told.map_bytes();
    let mut ids = Vec::new();
    for index in 0..300 {
        let name = vc(&format!("vc{index}"));
        ids.push(fixture.tree().create_virtual_cluster(&name).unwrap());
    }
    told.flush().unwrap();
    told.walk().unwrap();
    let mut seen: Vec<_> = told.told().iter().map(|entry| CgroupId(entry.id)).collect();
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    assert!(told.map_bytes() > bytes);
}

#[test]
fn a_field_that_the_iterator_does_not_tell_comes_from_its_file() {
    let fixture = Fixture::with(&["red"]);
    fixture.tree().enable(&BTreeSet::from(Controller::ALL));
    fixture.script("red", BURN);
    for field in Field::ALL {
        let rest: Vec<_> = Field::ALL.into_iter().filter(|other| *other != field).collect();
        let iterator = iterator(fixture.tree(), &rest);
        assert!(!iterator.tells(field), "{field:?}");
        let mut sampler = Sampler::new(Ok(iterator));
        let (files, told) = steady(&fixture, || sample(&mut sampler, fixture.tree()));
        assert_eq!(told, files, "without {field:?}");
    }
}

#[test]
fn without_the_iterator_files_tell_everything_and_the_reason_is_named() {
    let fixture = Fixture::with(&["red"]);
    fixture.script("red", BURN);
    let nothing = fixture.file("no-object");
    let level = Level::Only(fixture.tree().virtual_cluster_level());
    let iterator = UsageIterator::open(&nothing, fixture.tree().as_fd(), level, &Field::ALL);
    let mut sampler = Sampler::new(iterator);
    let why = sampler.why_files().unwrap().to_owned();
    assert!(why.contains("no-object"), "{why}");
    let (files, told) = steady(&fixture, || sample(&mut sampler, fixture.tree()));
    assert_eq!(told, files);
}

#[test]
fn what_is_remembered_of_a_cgroup_is_what_a_fresh_look_shows() {
    let fixture = Fixture::with(&["blue", "red"]);
    fixture.tree().enable(&BTreeSet::from(Controller::ALL));
    let mut iterator = iterator(fixture.tree(), &Field::ALL);
    let mut observer = Observer::default();
    let mut look = || {
        let remembered = observer.observe(fixture.tree(), Some(&mut iterator)).unwrap();
        let fresh = fixture.tree().observe().unwrap();
        assert_eq!(remembered.cgroups, fresh.cgroups);
        assert_eq!(remembered.unknown, fresh.unknown);
        let empty = |seen: &TreeObservation| -> Vec<_> {
            let leaves = seen.leaves.values().flatten();
            leaves.filter(|leaf| !leaf.populated).map(|leaf| leaf.name.clone()).collect()
        };
        assert_eq!(empty(&remembered), empty(&fresh));
        fresh
    };
    look();
    look();
    // Every control that is here, by somebody else's hand, and back.
    let red = fixture.directory("red");
    let mut written = 0;
    for (file, values) in [
        ("cgroup.max.depth", ["3", "max"]),
        ("cgroup.max.descendants", ["77", "max"]),
        ("cpu.weight", ["250", "100"]),
        ("cpu.max", ["50000 100000", "max 100000"]),
        ("memory.min", ["1048576", "0"]),
        ("memory.low", ["1048576", "0"]),
        ("memory.high", ["1073741824", "max"]),
        ("memory.max", ["1073741824", "max"]),
        ("pids.max", ["99", "max"]),
        ("io.weight", ["default 250", "default 100"]),
    ] {
        for value in values {
            if red.join(file).exists() {
                fs::write(red.join(file), value).unwrap();
                written += 1;
                let control = Control::ALL.into_iter().find(|one| one.file() == file).unwrap();
                let seen = &look().cgroups[&vc("red")].controls[&control];
                assert_eq!(*seen, control.parse(value).unwrap(), "{file}");
            }
        }
    }
    assert!(written >= 4, "two controls are on every machine");
    // Leaves that come, fill, empty and go; processes; strangers; another incarnation.
    let leaf = fixture.tree().create_leaf(&vc("red")).unwrap();
    look();
    let (running, end) = busy(&fixture, "red");
    assert!(look().cgroups[&vc("red")].populated);
    fs::write(end, "1").unwrap();
    assert_eq!(running.exit_code(), 0);
    assert!(!look().cgroups[&vc("red")].populated);
    fs::remove_dir(leaf.path()).unwrap();
    fs::create_dir(fixture.directory("Not-Ours")).unwrap();
    assert_eq!(look().unknown, ["Not-Ours"]);
    fixture.tree().remove_virtual_cluster(&vc("blue")).unwrap();
    fixture.tree().create_virtual_cluster(&vc("blue")).unwrap();
    look();
    fixture.tree().remove_virtual_cluster(&vc("blue")).unwrap();
    assert_eq!(look().cgroups.len(), 1);
    fs::remove_dir(fixture.directory("Not-Ours")).unwrap();
}
