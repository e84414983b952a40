//! A root of our own for each test, and processes in it.

#![expect(unsafe_code, reason = "fork and _exit")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bulkhead_agent::kernel::cgroup::{CgroupReading, CgroupTree, Sampler};
use bulkhead_agent::kernel::exec::{ExecError, ExecOptions, Exit, run};
use bulkhead_agent::kernel::probe::{Files, Probe};
use bulkhead_core::VirtualClusterName;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A tree below a root that only this test has; what lives in it dies with it.
pub(crate) struct Fixture {
    tree: Option<CgroupTree>,
    files: tempfile::TempDir,
}

pub(crate) fn mount_point() -> PathBuf {
    let probe = Probe::read(&Files::host()).unwrap();
    probe.cgroup2.expect("cgroup v2 is mounted").mount_point
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("bulkhead-test-{}-{number}", std::process::id())
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let tree = CgroupTree::create(&mount_point().join(unique())).unwrap();
        Self { tree: Some(tree), files: tempfile::tempdir().unwrap() }
    }

    /// With virtual clusters of these names.
    pub(crate) fn with(names: &[&str]) -> Self {
        let fixture = Self::new();
        for name in names {
            fixture.tree().create_virtual_cluster(&vc(name)).unwrap();
        }
        fixture
    }

    pub(crate) fn tree(&self) -> &CgroupTree {
        self.tree.as_ref().unwrap()
    }

    /// A path for a file that lives as long as the fixture.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A virtual cluster's directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.tree().path().join(name)
    }

    /// Runs a command in a virtual cluster to its end.
    pub(crate) fn run(&self, name: &str, command: &[&str]) -> Result<Exit, ExecError> {
        execute(self.tree(), name, command)
    }

    /// Runs a shell script in a virtual cluster to its end.
    pub(crate) fn script(&self, name: &str, script: &str) -> Exit {
        self.run(name, &["/bin/sh", "-c", script]).unwrap()
    }

    /// Runs a shell script in a virtual cluster from a process of its own, which stands for
    /// `bulkhead-agent exec`. Its exit status is what that would give.
    pub(crate) fn background(&self, name: &str, script: &str) -> Background {
        in_child(|| execute(self.tree(), name, &["/bin/sh", "-c", script]).unwrap().shell_code())
    }

    pub(crate) fn leaves(&self, name: &str) -> Vec<String> {
        let seen = self.tree().observe().unwrap();
        seen.leaves[&vc(name)].iter().map(|leaf| leaf.name.clone()).collect()
    }

    pub(crate) fn is_populated(&self, name: &str) -> bool {
        self.tree().observe().unwrap().cgroups[&vc(name)].populated
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.take() {
            let removed = tree.kill_and_remove(PATIENCE);
            if !std::thread::panicking() {
                removed.unwrap();
            }
        }
    }
}

pub(crate) fn vc(name: &str) -> VirtualClusterName {
    name.parse().unwrap()
}

pub(crate) fn execute(tree: &CgroupTree, name: &str, command: &[&str]) -> Result<Exit, ExecError> {
    let command = command.iter().map(OsString::from).collect();
    run(&ExecOptions { tree, virtual_cluster: vc(name), command })
}

pub(crate) fn sample(
    sampler: &mut Sampler,
    tree: &CgroupTree,
) -> BTreeMap<VirtualClusterName, CgroupReading> {
    let pass = sampler.sample(tree).unwrap();
    assert!(pass.failed.is_empty(), "{:?}", pass.failed);
    pass.readings
}

/// A process of ours with one thread, on a copy of the test's memory.
pub(crate) struct Background(pub(crate) Pid);

impl Background {
    /// Waits for its end.
    pub(crate) fn exit_code(self) -> i32 {
        let start = Instant::now();
        loop {
            match waitpid(self.0, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::Exited(_, code) => return code,
                WaitStatus::Signaled(_, signal, _) => return 128 + signal as i32,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
            if start.elapsed() > PATIENCE {
                kill(self.0, Signal::SIGKILL).unwrap();
                panic!("process {} did not end within {PATIENCE:?}", self.0);
            }
        }
    }
}

/// Forks: glibc keeps memory allocation usable in the child.
pub(crate) fn in_child(work: impl FnOnce() -> u8) -> Background {
    // SAFETY: the child calls what allocates, which glibc permits after fork, and touches no
    // lock of the test harness: it prints nothing, and ends without returning to it.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Background(child),
        ForkResult::Child => {
            let work = std::panic::AssertUnwindSafe(work);
            let code = std::panic::catch_unwind(work).unwrap_or(101);
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
}

pub(crate) fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn wait_for_file(path: &Path) {
    wait_for(&format!("{} being written", path.display()), || {
        std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
    });
}
