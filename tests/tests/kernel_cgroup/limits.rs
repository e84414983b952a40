//! Limits, where cgroup v2 has the controllers: written, read back, and felt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use bulkhead_agent::kernel::cgroup::{CgroupError, Sampler};
use bulkhead_agent::kernel::exec::{ExecError, Exit};
use bulkhead_agent::kernel::probe::features::Answer;
use bulkhead_agent::kernel::probe::{Files, Probe};
use bulkhead_core::control::{CpuMax, Device, IoMax, Max};
use bulkhead_core::{Control, ControlValue, Controller};
use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use crate::fixture::{Fixture, mount_point, sample, vc, wait_for};

const MIB: u64 = 1 << 20;
/// A directory on a block device that may be written to and limited.
const SCRATCH: &str = "/scratch";

fn limited(names: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    let missing = fixture.tree().enable(&BTreeSet::from(Controller::ALL));
    assert!(missing.is_empty(), "{missing:?}");
    for name in names {
        fixture.tree().create_virtual_cluster(&vc(name)).unwrap();
    }
    fixture
}

fn at(value: u64) -> ControlValue {
    ControlValue::Max(Max::At(value))
}

fn cpu_max(quota: u64, period_microseconds: u64) -> ControlValue {
    ControlValue::CpuMax(CpuMax { quota: Max::At(quota), period_microseconds })
}

fn scratch() -> Device {
    let device = fs::metadata(SCRATCH).expect("/scratch is a disk for I/O limits").dev();
    let number = |part: u64| u32::try_from(part).unwrap();
    Device { major: number(major(device)), minor: number(minor(device)) }
}

#[test]
fn every_control_holds_what_is_written() {
    let fixture = limited(&["red"]);
    let (tree, red) = (fixture.tree(), vc("red"));
    let io = IoMax { rbps: Max::At(MIB), wiops: Max::At(100), ..IoMax::UNLIMITED };
    let values = [
        (Control::CgroupMaxDepth, at(8)),
        (Control::CgroupMaxDescendants, at(1_000)),
        (Control::CpuWeight, ControlValue::Weight(1)),
        (Control::CpuWeight, ControlValue::Weight(333)),
        (Control::CpuWeight, ControlValue::Weight(10_000)),
        (Control::CpuMax, cpu_max(1_000, 100_000)),
        (Control::CpuMax, cpu_max(150_000, 50_000)),
        (Control::MemoryMin, at(16 * MIB)),
        (Control::MemoryLow, at(32 * MIB)),
        (Control::MemoryHigh, at(64 * MIB)),
        (Control::MemoryMax, at(128 * MIB)),
        (Control::PidsMax, at(64)),
        (Control::IoMax, ControlValue::IoMax(BTreeMap::from([(scratch(), io)]))),
    ];
    for (control, value) in values {
        tree.write(&red, control, &value).unwrap();
        assert_eq!(tree.read(&red, control).unwrap(), Some(value), "{control}");
    }
    for control in Control::ALL.into_iter().filter(|control| *control != Control::IoWeight) {
        tree.write(&red, control, &control.default_value()).unwrap();
        let seen = &tree.observe().unwrap().cgroups[&red].controls[&control];
        assert_eq!(*seen, control.default_value(), "{control}");
    }
}

#[test]
fn memory_is_rounded_as_the_kernel_does_it() {
    let fixture = limited(&["red"]);
    let (tree, red) = (fixture.tree(), vc("red"));
    for (wrote, reads) in [(at(MIB + 1), at(MIB)), (at(u64::MAX), at(0))] {
        let unlimited = Control::MemoryMax.default_value();
        let reads = if wrote == at(u64::MAX) { unlimited } else { reads };
        tree.write(&red, Control::MemoryMax, &wrote).unwrap();
        assert_eq!(tree.read(&red, Control::MemoryMax).unwrap(), Some(reads));
    }
}

#[test]
fn values_that_the_kernel_refuses_change_nothing() {
    let fixture = limited(&["red"]);
    let (tree, red) = (fixture.tree(), vc("red"));
    let nowhere = Device { major: 4_000, minor: 1 };
    let io = BTreeMap::from([(nowhere, IoMax { rbps: Max::At(MIB), ..IoMax::UNLIMITED })]);
    for (control, value, errnos) in [
        (Control::CpuMax, cpu_max(999, 100_000), vec![Errno::EINVAL]),
        (Control::CpuMax, cpu_max(100_000, 2_000_000), vec![Errno::EINVAL]),
        (Control::CpuWeight, ControlValue::Weight(10_001), vec![Errno::ERANGE]),
        (Control::PidsMax, at(1 << 40), vec![Errno::EINVAL]),
        (Control::IoMax, ControlValue::IoMax(io), vec![Errno::ENODEV]),
    ] {
        let error = tree.write(&red, control, &value).unwrap_err();
        let CgroupError::System { errno, ref path, .. } = error else { panic!("{error}") };
        assert!(errnos.contains(&errno), "{control}: {error}: {errno}");
        assert_eq!(*path, fixture.directory("red").join(control.file()));
        assert_eq!(tree.read(&red, control).unwrap(), Some(control.default_value()));
    }
    let error = tree.write(&red, Control::PidsMax, &ControlValue::Weight(1)).unwrap_err();
    assert!(matches!(error, CgroupError::WrongValue { .. }));
}

#[test]
fn only_what_is_wanted_is_enabled() {
    let fixture = Fixture::new();
    let wanted = BTreeSet::from([Controller::Pids]);
    assert!(fixture.tree().enable(&wanted).is_empty());
    let enabled = fixture.directory("cgroup.subtree_control");
    assert_eq!(fs::read_to_string(&enabled).unwrap(), "pids\n");
    assert!(fixture.tree().enable(&BTreeSet::from([Controller::Memory])).is_empty());
    assert_eq!(fs::read_to_string(&enabled).unwrap(), "memory pids\n");
}

#[test]
fn the_probe_agrees_with_the_files() {
    let fixture = limited(&["red"]);
    let files = fixture.tree().control_files().unwrap();
    for support in Probe::read(&Files::host()).unwrap().controls(Some(&files)) {
        let control = support.control;
        let there = fixture.directory("red").join(control.file()).exists();
        if control == Control::IoWeight && !there {
            let reason = "io.weight: file is absent: no iocost or bfq on this node";
            assert_eq!(support.result, Err(reason.to_owned()));
        } else if control != Control::IoWeight {
            assert!(there, "{control}");
            assert_eq!(support.result, Ok(()), "{control}");
        }
    }
}

#[test]
fn pids_max_stops_a_fork_bomb_and_the_neighbours_go_on() {
    let fixture = limited(&["red", "blue"]);
    let tree = fixture.tree();
    tree.write(&vc("red"), Control::PidsMax, &at(32)).unwrap();
    let _bomb = fixture.background("red", "bomb() { bomb | bomb & wait; }; bomb 2> /dev/null");
    let mut sampler = Sampler::default();
    let start = Instant::now();
    let mut refused = 0;
    while refused == 0 {
        let pids = sample(&mut sampler, tree)[&vc("red")].counters.pids.unwrap();
        assert!(pids.current <= 32, "{pids:?}");
        assert!(pids.peak.unwrap() <= 32, "{pids:?}");
        refused = pids.refused.unwrap();
        assert!(start.elapsed() < Duration::from_mins(1), "the bomb was never stopped");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        fixture.script("blue", "for i in 1 2 3 4 5; do /bin/true || exit 1; done"),
        Exit::Code(0)
    );
    assert_eq!(sample(&mut sampler, tree)[&vc("blue")].counters.pids.unwrap().refused, Some(0));
}

/// Once with the limit two cgroups above whoever forks, each with a pids controller of its own:
/// before Linux 6.11 only the lowest counts, so what the virtual cluster says is not all.
#[test]
fn forks_that_are_refused_further_down_are_counted_or_not_told() {
    let fixture = limited(&["red"]);
    let tree = fixture.tree();
    tree.write(&vc("red"), Control::PidsMax, &at(8)).unwrap();
    let red = fixture.directory("red");
    let refused = || {
        let counters = sample(&mut Sampler::default(), tree)[&vc("red")].counters;
        counters.pids.unwrap().refused
    };
    assert_eq!(refused(), Some(0));
    let pod = red.join("pod");
    fs::create_dir(&pod).unwrap();
    fs::write(red.join("cgroup.subtree_control"), "+pids").unwrap();
    let mut bomb = std::process::Command::new("/bin/sh");
    let script = format!(
        "echo $$ > {}/cgroup.procs; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait",
        pod.display()
    );
    bomb.args(["-c", &script]).stderr(std::process::Stdio::null()).status().unwrap();
    let told = refused();
    wait_for("the pod being empty", || {
        fs::read_to_string(pod.join("cgroup.procs")).unwrap().is_empty()
    });
    fs::remove_dir(&pod).unwrap();
    fs::write(red.join("cgroup.subtree_control"), "-pids").unwrap();
    let mount = mount_point();
    let features = bulkhead_agent::kernel::probe::features::all(Some(&mount));
    let name = "pids.events counts where the limit is";
    let feature = features.iter().find(|feature| feature.name == name).unwrap();
    match feature.answer {
        Answer::Present => assert!(told.is_some_and(|count| count > 0), "{told:?}"),
        _ => assert_eq!(told, None, "{:?}", feature.answer),
    }
}

#[test]
fn exec_into_a_full_virtual_cluster_names_its_pids_max() {
    let fixture = limited(&["red"]);
    let _sleeper = fixture.background("red", "exec sleep 1000");
    wait_for("the sleeper's start", || fixture.is_populated("red"));
    fixture.tree().write(&vc("red"), Control::PidsMax, &at(1)).unwrap();
    let error = fixture.run("red", &["true"]).unwrap_err();
    assert!(matches!(error, ExecError::PidsMax { limit: 1, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("virtual cluster \"red\" has reached its pids.max of 1"), "{text}");
    assert_eq!(fixture.leaves("red").len(), 1);
}

#[test]
fn memory_max_kills_inside_only() {
    let fixture = limited(&["red", "blue"]);
    let tree = fixture.tree();
    tree.write(&vc("red"), Control::MemoryMax, &at(64 * MIB)).unwrap();
    let blue = fixture.background("blue", "sleep 5; exit 3");
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1", "status=none"];
    assert_eq!(fixture.run("red", &hog).unwrap(), Exit::Signal(libc::SIGKILL));
    let readings = sample(&mut Sampler::default(), tree);
    let red = readings[&vc("red")].counters.memory.unwrap();
    assert!(red.oom_kills >= 1, "{red:?}");
    assert!(red.peak_bytes.unwrap() <= 64 * MIB, "{red:?}");
    assert!(red.peak_bytes.unwrap() > 32 * MIB, "{red:?}");
    assert_eq!(readings[&vc("blue")].counters.memory.unwrap().oom_kills, 0);
    assert_eq!(fixture.run("red", &["true"]).unwrap(), Exit::Code(0));
    assert_eq!(blue.exit_code(), 3);
}

#[test]
fn cpu_max_holds_a_burner() {
    let fixture = limited(&["red"]);
    let tree = fixture.tree();
    tree.write(&vc("red"), Control::CpuMax, &cpu_max(20_000, 100_000)).unwrap();
    let _burner = fixture.background("red", "while :; do :; done");
    wait_for("the burner's start", || fixture.is_populated("red"));
    let mut sampler = Sampler::default();
    let mut cpu = || sample(&mut sampler, tree)[&vc("red")].counters.cpu.unwrap();
    let (before, start) = (cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let (after, wall) = (cpu(), start.elapsed());
    let used = Duration::from_nanos(after.usage_nanoseconds - before.usage_nanoseconds);
    // A fifth of one CPU, and one period more than the wall clock may hold at each end.
    assert!(used <= wall / 5 + Duration::from_millis(40), "{used:?} of {wall:?}");
    let throttled = |counters: bulkhead_core::sample::CpuCounters| counters.throttled.unwrap();
    assert!(throttled(after).periods > throttled(before).periods);
    assert!(throttled(after).nanoseconds > throttled(before).nanoseconds);
}

#[test]
fn io_max_holds_a_writer() {
    let fixture = limited(&["red"]);
    let tree = fixture.tree();
    let slow = IoMax { wbps: Max::At(2 * MIB), ..IoMax::UNLIMITED };
    let value = ControlValue::IoMax(BTreeMap::from([(scratch(), slow)]));
    tree.write(&vc("red"), Control::IoMax, &value).unwrap();
    let file = tempfile::Builder::new().prefix("bulkhead-test-").tempfile_in(SCRATCH).unwrap();
    let output = format!("of={}", file.path().display());
    let start = Instant::now();
    let writer = ["dd", "if=/dev/zero", &output, "bs=1M", "count=8", "oflag=direct", "status=none"];
    assert_eq!(fixture.run("red", &writer).unwrap(), Exit::Code(0));
    let wall = start.elapsed();
    assert!(wall > Duration::from_secs(3), "8 MiB at 2 MiB/s took {wall:?}");
    let io = sample(&mut Sampler::default(), tree)[&vc("red")].counters.io.unwrap();
    assert!(io.write_bytes >= 8 * MIB, "{io:?}");
    assert!(io.write_operations >= 8, "{io:?}");
}

#[test]
fn a_limit_that_someone_else_changed_is_seen_and_can_be_written_again() {
    let fixture = limited(&["red"]);
    let (tree, red) = (fixture.tree(), vc("red"));
    tree.write(&red, Control::PidsMax, &at(64)).unwrap();
    fs::write(fixture.directory("red").join("pids.max"), "max").unwrap();
    let seen = tree.observe().unwrap().cgroups[&red].controls[&Control::PidsMax].clone();
    assert_eq!(seen, Control::PidsMax.default_value());
    tree.write(&red, Control::PidsMax, &at(64)).unwrap();
    assert_eq!(tree.read(&red, Control::PidsMax).unwrap(), Some(at(64)));
}

#[test]
fn everything_is_counted() {
    let fixture = limited(&["red"]);
    assert_eq!(fixture.script("red", "exit 0"), Exit::Code(0));
    let counters = sample(&mut Sampler::default(), fixture.tree())[&vc("red")].counters;
    assert!(counters.cpu.unwrap().throttled.is_some());
    let memory = counters.memory.unwrap();
    assert!(memory.peak_bytes.unwrap() > 0 && memory.oom_kills == 0);
    let pids = counters.pids.unwrap();
    assert_eq!((pids.current, pids.refused), (0, Some(0)));
    assert!(pids.peak.unwrap() >= 1);
    assert!(counters.io.is_some() && counters.pressure.is_some());
}
