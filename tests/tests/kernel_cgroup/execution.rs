//! `exec`: where the command starts, what it inherits, how its end is told.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;

use bulkhead_agent::kernel::exec::{ExecError, Exit};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};

use crate::fixture::{Fixture, wait_for, wait_for_file};

#[test]
fn the_command_is_in_its_cgroup_from_the_first_instruction() {
    let fixture = Fixture::with(&["red"]);
    let seen = fixture.file("cgroup");
    // cp reads the file of its own process: no shell ran before it.
    let command = ["cp", "/proc/self/cgroup", seen.to_str().unwrap()];
    assert_eq!(fixture.run("red", &command).unwrap(), Exit::Code(0));
    let seen = fs::read_to_string(seen).unwrap();
    let root = fixture.tree().path().file_name().unwrap().to_str().unwrap();
    let line = seen.lines().find(|line| line.starts_with("0::")).unwrap();
    let leaf = format!("0::/{root}/red/exec-{}-", std::process::id());
    assert!(line.starts_with(&leaf), "{line}");
    assert!(fixture.leaves("red").is_empty());
}

#[test]
fn no_descriptor_of_ours_is_passed_on() {
    let fixture = Fixture::with(&["red"]);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    for careless in [socket.as_fd(), file.as_fd()] {
        // As a library that does not think of exec would leave it.
        fcntl(careless, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
    let seen = fixture.file("fds");
    // The shell's own descriptors; a glob opens the directory only while it is read.
    let script =
        format!("for fd in /proc/$$/fd/*; do readlink $fd || :; done > {}", seen.display());
    assert_eq!(fixture.script("red", &script), Exit::Code(0));
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("socket:") && !seen.contains("pidfd"), "{seen}");
    assert!(seen.lines().count() <= 5, "{seen}");
    let seen = fixture.file("numbers");
    let script = format!("ls /proc/self/fd > {}", seen.display());
    assert_eq!(fixture.script("red", &script), Exit::Code(0));
    // 3 is the directory that ls itself reads.
    assert_eq!(fs::read_to_string(seen).unwrap(), "0\n1\n2\n3\n");
}

#[test]
fn signals_are_as_a_shell_would_give_them() {
    let fixture = Fixture::with(&["red"]);
    let seen = fixture.file("status");
    let command = ["cp", "/proc/self/status", seen.to_str().unwrap()];
    assert_eq!(fixture.run("red", &command).unwrap(), Exit::Code(0));
    let seen = fs::read_to_string(seen).unwrap();
    let mask = |key: &str| {
        let value = seen.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(value.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    assert_eq!(mask("SigIgn:") & (1 << (Signal::SIGPIPE as u32 - 1)), 0);
    assert_eq!(mask("SigCgt:"), 0);
}

#[test]
fn exit_codes_and_signals_are_told() {
    let fixture = Fixture::with(&["red"]);
    assert_eq!(fixture.script("red", "exit 7"), Exit::Code(7));
    let killed = fixture.script("red", "kill -KILL $$");
    assert_eq!((killed, killed.shell_code()), (Exit::Signal(9), 137));
    assert!(fixture.leaves("red").is_empty());
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let fixture = Fixture::with(&["red"]);
    for command in ["no-such-command", "/no/such/command", "/etc/passwd", "/", ""] {
        let error = fixture.run("red", &[command, "argument"]).unwrap_err();
        assert!(matches!(error, ExecError::Execute { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot execute \"{command}\"; ")), "{text}");
    }
    assert!(matches!(fixture.run("red", &[]).unwrap_err(), ExecError::NoCommand));
    assert!(matches!(fixture.run("red", &["a\0b"]).unwrap_err(), ExecError::NoCommand));
    assert!(fixture.leaves("red").is_empty());
}

#[test]
fn an_unknown_virtual_cluster_is_named_with_the_mend() {
    let fixture = Fixture::new();
    let error = fixture.run("nobody", &["true"]).unwrap_err().to_string();
    assert!(error.contains("virtual cluster \"nobody\" has no cgroup"), "{error}");
    assert!(error.contains("bulkhead-agent status"), "{error}");
}

#[test]
fn signals_are_forwarded() {
    let fixture = Fixture::with(&["red"]);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGINT] {
        let ready = fixture.file(&format!("ready-{signal}"));
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!(
            "trap 'exit 42' {name}; echo ready > {}; while :; do sleep 0.05; done",
            ready.display()
        );
        let exec = fixture.background("red", &script);
        wait_for_file(&ready);
        kill(exec.0, signal).unwrap();
        assert_eq!(exec.exit_code(), 42, "{signal}");
    }
    let ready = fixture.file("ready");
    let script = format!("echo ready > {}; exec sleep 1000", ready.display());
    let exec = fixture.background("red", &script);
    wait_for_file(&ready);
    kill(exec.0, Signal::SIGTERM).unwrap();
    assert_eq!(exec.exit_code(), 128 + libc::SIGTERM);
    assert!(fixture.leaves("red").is_empty());
}

#[test]
fn a_leaf_stays_while_something_lives_in_it() {
    let fixture = Fixture::with(&["red"]);
    assert_eq!(fixture.script("red", "sleep 1000 > /dev/null 2>&1 &"), Exit::Code(0));
    let leaves = fixture.leaves("red");
    assert_eq!(leaves.len(), 1);
    assert!(fixture.is_populated("red"));
    let leaf = fixture.directory("red").join(&leaves[0]);
    fs::write(leaf.join("cgroup.kill"), "1").unwrap();
    wait_for("the end of what was left behind", || !fixture.is_populated("red"));
    assert!(fixture.tree().remove_virtual_cluster(&"red".parse().unwrap()).unwrap());
}
