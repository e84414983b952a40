//! Where cgroup v1 holds the controllers: nothing is pretended.

use std::collections::BTreeSet;

use bulkhead_agent::kernel::cgroup::{CgroupError, Sampler};
use bulkhead_agent::kernel::probe::{Files, Probe};
use bulkhead_core::{Control, Controller};

use crate::fixture::{Fixture, sample, vc};

#[test]
fn the_probe_gives_the_reason_for_every_control() {
    let fixture = Fixture::new();
    let probe = Probe::read(&Files::host()).unwrap();
    let files = fixture.tree().control_files().unwrap();
    for root_files in [None, Some(&files)] {
        for support in probe.controls(root_files) {
            let expected = match support.control.controller() {
                None => Ok(()),
                Some(controller) => Err(format!("{controller}: controller is bound to cgroup v1")),
            };
            assert_eq!(support.result, expected, "{}", support.control);
        }
    }
    let shown = probe.controls(None).iter().map(ToString::to_string).collect::<Vec<_>>();
    let memory = "memory.max             no: memory: controller is bound to cgroup v1";
    assert!(shown.iter().any(|line| line == memory), "{shown:#?}");
}

#[test]
fn controllers_cannot_be_enabled_and_the_reason_says_where_they_are_missing() {
    let fixture = Fixture::new();
    let wanted = BTreeSet::from(Controller::ALL);
    let missing = fixture.tree().enable(&wanted);
    assert_eq!(missing.len(), wanted.len());
    let mount = fixture.tree().path().parent().unwrap().display().to_string();
    let reason = format!("memory: controller is not in cgroup.controllers of {mount}");
    assert_eq!(missing[&Controller::Memory], reason);
}

#[test]
fn a_control_that_is_absent_is_an_error_and_not_a_success() {
    let fixture = Fixture::with(&["red"]);
    for control in Control::ALL.into_iter().filter(|control| control.controller().is_some()) {
        let value = control.default_value();
        let error = fixture.tree().write(&vc("red"), control, &value).unwrap_err();
        let path = fixture.directory("red").join(control.file());
        assert_eq!(error, CgroupError::ControlAbsent { control, path });
        assert_eq!(fixture.tree().read(&vc("red"), control).unwrap(), None);
    }
    let controls = &fixture.tree().observe().unwrap().cgroups[&vc("red")].controls;
    assert_eq!(controls.len(), 2, "{controls:?}");
}

#[test]
fn what_is_not_counted_is_none_and_not_zero() {
    let fixture = Fixture::with(&["red"]);
    let counters = sample(&mut Sampler::default(), fixture.tree())[&vc("red")].counters;
    assert_eq!((counters.memory, counters.io, counters.pids), (None, None, None));
    assert_eq!(counters.cpu.unwrap().throttled, None);
}
