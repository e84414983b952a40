//! Where systemd is process 1, our root is the inside of a unit.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_agent::kernel::cgroup::{CgroupError, CgroupTree};
use bulkhead_agent::kernel::delegate::{DelegateError, Root};
use bulkhead_agent::kernel::exec::Exit;
use bulkhead_agent::kernel::probe::{Files, Probe};
use bulkhead_core::control::Max;
use bulkhead_core::{Control, ControlValue, Controller};

use crate::fixture::{execute, in_child, mount_point, unique, vc, wait_for};

/// One at a time: daemon-reexec interrupts what others ask systemd for.
static SYSTEMD: Mutex<()> = Mutex::new(());

/// A unit of this test's own, ended with it.
struct Unit {
    root: Root,
    name: String,
    _alone: MutexGuard<'static, ()>,
}

impl Unit {
    fn new() -> Self {
        assert!(Probe::read(&Files::host()).unwrap().systemd, "systemd is not process 1 here");
        let alone = SYSTEMD.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}.service", unique());
        let path = mount_point().join(&name);
        Self { root: Root::DelegatedUnit { unit: name.clone(), path }, name, _alone: alone }
    }

    fn make(&self) -> CgroupTree {
        self.root.make().unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    fn state(&self) -> String {
        systemctl(&["show", "--property=ActiveState,SubState", &self.name])
    }

    fn path(&self) -> PathBuf {
        self.root.path().to_owned()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", &self.name]).output();
    }
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    assert!(output.status.success(), "systemctl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_unit_gives_us_every_controller_and_is_found_again() {
    let unit = Unit::new();
    let tree = unit.make();
    let id = tree.id().unwrap();
    assert_eq!(tree.virtual_cluster_level(), 2);
    assert!(tree.enable(&BTreeSet::from(Controller::ALL)).is_empty());
    assert_eq!(unit.make().id().unwrap(), id);
    assert_eq!(unit.state(), "ActiveState=active\nSubState=running\n");
}

#[test]
fn systemd_leaves_the_inside_alone() {
    let unit = Unit::new();
    let tree = unit.make();
    tree.enable(&BTreeSet::from(Controller::ALL));
    let red = tree.create_virtual_cluster(&vc("red")).unwrap();
    let limit = ControlValue::Max(Max::At(50));
    tree.write(&vc("red"), Control::PidsMax, &limit).unwrap();
    // Populated and empty again: the moment at which systemd looks whether to clean up.
    assert_eq!(execute(&tree, "red", &["true"]).unwrap(), Exit::Code(0));
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", "init.scope", "CPUWeight=90"]);
    systemctl(&["daemon-reexec"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(unit.state(), "ActiveState=active\nSubState=running\n");
    let again = unit.make();
    assert_eq!(again.create_virtual_cluster(&vc("red")).unwrap(), red);
    assert_eq!(again.read(&vc("red"), Control::PidsMax).unwrap(), Some(limit));
    let enabled = fs::read_to_string(unit.path().join("cgroup.subtree_control")).unwrap();
    for controller in Controller::ALL {
        assert!(enabled.split_ascii_whitespace().any(|name| name == controller.name()));
    }
}

#[test]
fn the_sleeper_can_be_killed_and_nothing_else_ends() {
    let unit = Unit::new();
    let tree = unit.make();
    assert!(tree.enable(&BTreeSet::from(Controller::ALL)).is_empty());
    tree.create_virtual_cluster(&vc("red")).unwrap();
    let red = in_child(|| execute(&tree, "red", &["sleep", "3"]).unwrap().shell_code());
    wait_for("the start in red", || tree.observe().unwrap().cgroups[&vc("red")].populated);
    fs::write(unit.path().join("Holder/cgroup.kill"), "1").unwrap();
    assert_eq!(red.exit_code(), 0);
    // Now the unit is empty, and systemd starts it again.
    let running = || unit.state() == "ActiveState=active\nSubState=running\n";
    let holder = unit.path().join("Holder/cgroup.procs");
    let held = || fs::read_to_string(&holder).is_ok_and(|pids| !pids.is_empty());
    wait_for("the unit's restart", || held() && running());
    let again = unit.make();
    again.create_virtual_cluster(&vc("red")).unwrap();
    assert!(again.enable(&BTreeSet::from(Controller::ALL)).is_empty());
    assert_eq!(execute(&again, "red", &["true"]).unwrap(), Exit::Code(0));
}

#[test]
fn a_process_killed_for_memory_ends_neither_the_unit_nor_its_neighbours() {
    let unit = Unit::new();
    let tree = unit.make();
    tree.enable(&BTreeSet::from(Controller::ALL));
    for name in ["red", "blue"] {
        tree.create_virtual_cluster(&vc(name)).unwrap();
    }
    let limit = ControlValue::Max(Max::At(32 << 20));
    tree.write(&vc("red"), Control::MemoryMax, &limit).unwrap();
    let blue = in_child(|| execute(&tree, "blue", &["sleep", "4"]).unwrap().shell_code());
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1", "status=none"];
    assert_eq!(execute(&tree, "red", &hog).unwrap(), Exit::Signal(libc::SIGKILL));
    assert_eq!(blue.exit_code(), 0);
    assert_eq!(unit.state(), "ActiveState=active\nSubState=running\n");
}

#[test]
fn a_unit_with_processes_is_not_stopped_and_an_empty_one_leaves_nothing() {
    let unit = Unit::new();
    let tree = unit.make();
    tree.create_virtual_cluster(&vc("red")).unwrap();
    let sleeper = in_child(|| execute(&tree, "red", &["sleep", "1000"]).unwrap().shell_code());
    let populated = || tree.observe().unwrap().cgroups[&vc("red")].populated;
    wait_for("the sleeper's start", populated);
    let error = unit.root.unmake().unwrap_err();
    assert!(matches!(error, DelegateError::Cgroup(CgroupError::Populated { .. })), "{error:?}");
    assert!(populated());
    nix::sys::signal::kill(sleeper.0, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(sleeper.exit_code(), 128 + libc::SIGTERM);
    assert!(unit.root.unmake().unwrap());
    wait_for("the cgroup's end", || !unit.path().exists());
    assert!(!unit.root.unmake().unwrap());
}

#[test]
fn a_unit_that_is_not_delegated_is_refused() {
    let unit = Unit::new();
    let started = Command::new("systemd-run")
        .args(["--unit", &unit.name, "--slice=-.slice", "/bin/sleep", "infinity"])
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    let error = unit.root.make().unwrap_err();
    assert!(matches!(error, DelegateError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("systemctl stop {}", unit.name)), "{error}");
}
