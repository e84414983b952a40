//! Counters against another source of truth: what the kernel tells the parent of the processes.

use std::fs;
use std::time::Duration;

use bulkhead_agent::kernel::cgroup::Sampler;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::fixture::{Fixture, execute, in_child, sample, vc};

/// About a second of one CPU on a slow machine, a tenth on a quick one.
const BURN: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

#[test]
fn cpu_time_agrees_with_getrusage() {
    let fixture = Fixture::with(&["red", "blue"]);
    let told = fixture.file("rusage");
    // In a process of its own, so that RUSAGE_CHILDREN is of this command alone.
    let burner = in_child(|| {
        let exit = execute(fixture.tree(), "red", &["/bin/sh", "-c", BURN]).unwrap();
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let used = usage.user_time() + usage.system_time();
        fs::write(&told, used.num_microseconds().to_string()).unwrap();
        exit.shell_code()
    });
    assert_eq!(burner.exit_code(), 0);
    let told: u64 = fs::read_to_string(told).unwrap().parse().unwrap();
    let readings = sample(&mut Sampler::default(), fixture.tree());
    let cpu = readings[&vc("red")].counters.cpu.unwrap();
    let counted = Duration::from_nanos(cpu.usage_nanoseconds);
    let told = Duration::from_micros(told);
    // rusage also has the microseconds that the child used before it left us.
    let tolerance = told / 20 + Duration::from_millis(20);
    assert!(counted.abs_diff(told) < tolerance, "counted {counted:?}, told {told:?}");
    let parts = cpu.user_nanoseconds + cpu.system_nanoseconds;
    assert!(parts.abs_diff(cpu.usage_nanoseconds) <= 10_000, "{cpu:?}");
    assert_eq!(readings[&vc("blue")].counters.cpu.unwrap().usage_nanoseconds, 0);
}

#[test]
fn what_has_ended_is_still_counted() {
    let fixture = Fixture::with(&["red"]);
    let mut sampler = Sampler::default();
    fixture.script("red", BURN);
    let once = sample(&mut sampler, fixture.tree())[&vc("red")];
    assert!(fixture.leaves("red").is_empty());
    assert!(once.counters.cpu.unwrap().usage_nanoseconds > 0);
    fixture.script("red", BURN);
    let twice = sample(&mut sampler, fixture.tree())[&vc("red")];
    let (once, twice) = (once.counters.cpu.unwrap(), twice.counters.cpu.unwrap());
    assert!(twice.usage_nanoseconds > once.usage_nanoseconds);
}

#[test]
fn a_new_incarnation_counts_from_zero() {
    let fixture = Fixture::with(&["red"]);
    let mut sampler = Sampler::default();
    fixture.script("red", BURN);
    let before = sample(&mut sampler, fixture.tree())[&vc("red")];
    fixture.tree().remove_virtual_cluster(&vc("red")).unwrap();
    assert!(sample(&mut sampler, fixture.tree()).is_empty());
    fixture.tree().create_virtual_cluster(&vc("red")).unwrap();
    let after = sample(&mut sampler, fixture.tree())[&vc("red")];
    assert_ne!(after.id, before.id);
    assert_eq!(after.counters.cpu.unwrap().usage_nanoseconds, 0);
}

#[test]
fn an_incarnation_that_is_replaced_between_two_samples_is_found_out() {
    let fixture = Fixture::with(&["red"]);
    let mut sampler = Sampler::default();
    fixture.script("red", BURN);
    let before = sample(&mut sampler, fixture.tree())[&vc("red")];
    fixture.tree().remove_virtual_cluster(&vc("red")).unwrap();
    fixture.tree().create_virtual_cluster(&vc("red")).unwrap();
    let after = sample(&mut sampler, fixture.tree())[&vc("red")];
    assert_ne!(after.id, before.id);
    assert_eq!(after.counters.cpu.unwrap().usage_nanoseconds, 0);
}

#[test]
fn pressure_and_descendants_are_read() {
    let fixture = Fixture::with(&["red"]);
    fs::create_dir(fixture.directory("red").join("below")).unwrap();
    let reading = sample(&mut Sampler::default(), fixture.tree())[&vc("red")];
    assert_eq!(reading.descendants.live, 1);
    let pressure = reading.counters.pressure.expect("PSI is on");
    assert!(pressure.cpu_some_nanoseconds.is_some());
    assert!(pressure.memory_full_nanoseconds.is_some() && pressure.io_some_nanoseconds.is_some());
}
