//! Processes: starting one where it belongs, and reaching its sockets.
#![expect(unsafe_code, reason = "clone3, and descriptors of other processes, have no wrappers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::answer::{Answer, Row};
use super::scene::Scene;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(super) const ROWS: &[Row] = &[
    (
        "clone3 CLONE_INTO_CGROUP",
        "a command is in its virtual cluster from its first instruction",
        "none: exec is refused, with the error",
        |scene| fork_into(scene).into(),
    ),
    (
        "clone3 into a cgroup in which all was killed before",
        "start a command in a leaf",
        "every command gets a leaf of its own, which was never killed",
        |scene| match scene.killed() {
            Ok(killed) => fork(killed.as_fd(), || 0).map(drop).into(),
            Err(error) => error.into(),
        },
    ),
    (
        "pidfd_getfd",
        "end connections that a new policy denies",
        "they end by their own patience; their packets are dropped",
        |_| own_descriptor().into(),
    ),
    (
        "systemd as process 1",
        "our root is a unit that it delegates to us",
        "our root is a plain directory",
        |_| systemd(),
    ),
];

fn systemd() -> Answer {
    if Path::new("/run/systemd/system").exists() {
        return Answer::Present;
    }
    Answer::Unseen("systemd is not process 1 of this machine".to_owned())
}

/// Starts a process in the inner cgroup that ends at once.
pub(super) fn fork_into(scene: &Scene) -> io::Result<()> {
    fork(scene.as_fd(), || 0).map(drop)
}

/// Starts a process in a cgroup; its status when it has ended. `work` makes system calls
/// only: other threads may have held locks when the memory was copied.
pub(super) fn fork(cgroup: BorrowedFd<'_>, work: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: clone_args is plain old data for which zero is "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    let size = size_of::<libc::clone_args>();
    // SAFETY: no CLONE_VM and no stack, so this is fork(2); the arguments outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut arguments), size) };
    match i32::try_from(pid) {
        Ok(0) => {
            let status = work();
            // SAFETY: it ends the child at once.
            unsafe { libc::_exit(status) }
        }
        Ok(pid @ 1..) => match waitpid(Pid::from_raw(pid), None)? {
            WaitStatus::Exited(_, status) => Ok(status),
            WaitStatus::Signaled(_, signal, _) => {
                Err(io::Error::other(format!("the child ended with {signal}")))
            }
            other => Err(io::Error::other(format!("the child is {other:?}"))),
        },
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a descriptor of this process as it would take another's.
fn own_descriptor() -> io::Result<()> {
    let (ours, _other) = std::os::unix::net::UnixStream::pair()?;
    // SAFETY: no pointers; a descriptor is returned, which nobody else knows.
    let process = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        owned(fd)?
    };
    // SAFETY: as above.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), ours.as_raw_fd(), 0);
        owned(fd).map(drop)
    }
}

/// # Safety
///
/// `fd` is what a system call that makes a descriptor has just returned.
unsafe fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the caller's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
