//! The program itself, where nothing of ours is: no privilege is needed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn detach(place: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"));
    command.arg("--bpffs").arg(place.join("bpffs")).arg("--run-dir").arg(place.join("run"));
    command.arg("detach").stdout(Stdio::piped());
    command
}

/// A `DaemonSet` starts again what has ended.
#[test]
fn when_all_is_off_it_stays_until_it_is_told_to_end() {
    let place = tempfile::tempdir().unwrap();
    let mut held = detach(place.path()).arg("--hold").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(held.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("nothing of ours is pinned"), "{line}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(held.try_wait().unwrap(), None, "it did not stay");
    kill(Pid::from_raw(held.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(held.wait().unwrap().success());
    assert!(detach(place.path()).status().unwrap().success(), "without --hold it ends by itself");
}
