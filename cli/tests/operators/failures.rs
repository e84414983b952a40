//! Exit codes and the one line that comes with them; help.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::program::{program, run};
use crate::server::{BROKEN, SLOW, Server};

#[test]
fn the_servers_reason_and_mend_come_through() {
    let server = Server::start();
    let failed = run(&server.address(), &["usage", BROKEN]);
    assert_eq!(
        failed.complaint(1),
        "query usage: the answer would be too long; step: more than 1,000,000 rows; use a longer \
         step (RANGE_TOO_LONG)"
    );
    assert_eq!(failed.stdout, "");
}

#[test]
fn nonsense_is_two() {
    let server = Server::start();
    let backward = ["usage", "--start", "2025-03-02", "--end", "2025-03-01"];
    let failed = run(&server.address(), &backward);
    assert!(failed.complaint(2).starts_with("usage: the range is empty"), "{failed:?}");
    let failed = run(&server.address(), &["usage", "--start", "noon"]);
    assert!(failed.complaint(2).contains("`noon` is not a time"), "{failed:?}");
    assert!(server.questions().is_empty());
    for arguments in [&["usage", "--step", "soon"][..], &["get", "pods"], &[]] {
        assert_eq!(run(&server.address(), arguments).code, Some(2), "{arguments:?}");
    }
    let remote = run("http://192.0.2.1:80", &["get", "nodes"]);
    assert_eq!(remote.code, Some(2));
    assert!(remote.stderr.contains("not on loopback"), "{remote:?}");
}

#[test]
fn nobody_there_is_four() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = format!("unix:{}", directory.path().join("none.sock").display());
    for arguments in [&["get", "nodes"][..], &["usage"], &["top"], &["get", "bvc", "--watch"]] {
        let away = run(&address, arguments);
        let line = away.complaint(4);
        assert!(line.starts_with(&format!("connect to {address}: ")), "{line}");
        assert!(line.contains("No such file") && line.contains("--server"), "{line}");
    }
}

#[test]
fn an_answer_that_does_not_come_is_four() {
    let server = Server::start();
    let slow = run(&server.address(), &["usage", SLOW, "--timeout", "200ms"]);
    assert!(slow.complaint(4).contains("did not answer in time"), "{slow:?}");
    assert!(slow.stderr.contains("--timeout"), "{slow:?}");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let server = Server::start();
    let mut top = program(&server.address(), &["top", "--interval", "10ms"]);
    let mut top = top.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(top.stdout.take());
    let ended = top.wait_with_output().expect("an end");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn help_needs_no_server_and_tells_the_exit_codes() {
    let nowhere = "unix:/nonexistent/operators.sock";
    let help = run(nowhere, &["--help"]).answer();
    assert!(help.contains("Usage: bulkheadctl"), "{help}");
    assert!(help.contains("3  a named object does not exist"), "{help}");
    for command in [&["get", "virtualclusters", "--help"][..], &["usage", "--help"], &["top", "-h"]]
    {
        let help = run(nowhere, command).answer();
        assert!(help.contains("Usage: bulkheadctl"), "{help}");
    }
    let script = run(nowhere, &["completion", "bash"]).answer();
    assert!(script.contains("complete -F _bulkheadctl"), "{script}");
}

#[test]
fn kubectl_finds_it_under_another_name() {
    let called = Command::new(env!("CARGO_BIN_EXE_bulkheadctl"))
        .arg0("/usr/bin/kubectl-bulkhead")
        .args(["usage", "--help"])
        .output()
        .expect("the program runs");
    let help = String::from_utf8(called.stdout).expect("text");
    assert!(help.contains("Usage: kubectl bulkhead usage"), "{help}");
    assert!(help.contains("kubectl bulkhead usage --since today"), "{help}");
    assert!(!help.contains("bulkheadctl usage"), "{help}");
}
