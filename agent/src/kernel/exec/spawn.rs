//! clone3(2) into a cgroup, and what the child does before execve(2).
//!
//! The child shares nothing with the parent but a copy of its memory, in which locks may be held
//! by threads that it does not have. So between clone3 and execve it makes system calls only,
//! with values prepared before.

#![expect(unsafe_code, reason = "clone3 and the child's system calls have no safe wrappers")]

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::pipe2;

use super::image::{Image, Pointers};

/// linux/sched.h. The libc crate has them as `c_int`, which is too small for the first.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
/// First descriptor that is not the command's standard input, output or error.
const FIRST_OF_OURS: RawFd = 3;

/// A process that runs the command.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pidfd: OwnedFd,
}

/// What the child failed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its signals or descriptors could not be prepared.
    Prepare,
    /// No program could be executed.
    Exec,
}

/// Why there is no process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SpawnError {
    /// A pipe for the child's report.
    Pipe(Errno),
    /// clone3 itself.
    Clone(Errno),
    /// The child ended again, after this.
    Child(Stage, Errno),
}

/// Starts the program in the cgroup. It begins with the signal mask `mask` and with no
/// descriptors but 0, 1 and 2.
pub(super) fn spawn(
    cgroup: BorrowedFd<'_>,
    image: &Image,
    mask: &SigSet,
) -> Result<Spawned, SpawnError> {
    let pointers = image.pointers();
    let (report, failure) = pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::Pipe)?;
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain old data for which zero is "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP | CLONE_PIDFD;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = number(libc::SIGCHLD);
    arguments.cgroup = number(cgroup.as_raw_fd());
    // SAFETY: no CLONE_VM and no stack, so this is fork(2): the child goes on from here on a copy
    // of this stack. The arguments outlive the call; `pidfd` is where the kernel may write.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut arguments),
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        // The child. It never returns from here.
        0 => child(&pointers, mask.as_ref(), failure.as_raw_fd()),
        1.. => {
            drop(failure);
            // SAFETY: clone3 succeeded, so the kernel has made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            outcome(report, Spawned { pidfd })
        }
        _ => Err(SpawnError::Clone(Errno::last())),
    }
}

fn number(value: c_int) -> u64 {
    // Descriptors and signals are never negative here.
    u64::from(value.unsigned_abs())
}

/// Waits until the child runs the program (the pipe closes) or says why not.
fn outcome(report: OwnedFd, spawned: Spawned) -> Result<Spawned, SpawnError> {
    let mut bytes = Vec::with_capacity(REPORT);
    // A pipe of our own between two ends of ours: reading fails only for want of memory.
    let read = File::from(report).read_to_end(&mut bytes);
    match (read, bytes.first_chunk::<REPORT>()) {
        (Ok(0), _) => Ok(spawned),
        (_, Some([stage, errno @ ..])) => {
            let stage = if *stage == Stage::Exec as u8 { Stage::Exec } else { Stage::Prepare };
            let errno = Errno::from_raw(i32::from_ne_bytes(*errno));
            // It has ended or is about to; only its zombie is left to take.
            let _ = waitid(Id::PIDFd(spawned.pidfd.as_fd()), WaitPidFlag::WEXITED);
            Err(SpawnError::Child(stage, errno))
        }
        (_, None) => Err(SpawnError::Child(Stage::Prepare, Errno::EPIPE)),
    }
}

/// One byte of stage, four of errno: less than `PIPE_BUF`, so written whole.
const REPORT: usize = 5;

/// System calls only, from here to the end of the file.
fn child(image: &Pointers<'_>, mask: &libc::sigset_t, failure: RawFd) -> ! {
    let (stage, errno) = match prepare(mask) {
        Err(errno) => (Stage::Prepare, errno),
        Ok(()) => (Stage::Exec, execute(image)),
    };
    let [a, b, c, d] = (errno as i32).to_ne_bytes();
    let report = [stage as u8, a, b, c, d];
    // SAFETY: the pointer and length are of `report`; the descriptor is the pipe's. _exit runs
    // no handlers of the parent.
    unsafe {
        libc::write(failure, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

/// The command must find signals as a shell would give them, and none of our descriptors.
fn prepare(mask: &libc::sigset_t) -> Result<(), Errno> {
    // SAFETY: plain system calls on valid values. SIGPIPE is ignored by the Rust runtime;
    // handlers of the parent are undone by execve itself, and none can run before: the parent
    // blocks what it forwards, and has no handlers for anything else.
    unsafe {
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(Errno::last());
        }
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        let first = FIRST_OF_OURS;
        // Close-on-exec, not closed: the pipe is still to report a failing execve.
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) == -1 {
            return Err(Errno::last());
        }
        if libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) == -1 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// Tries the candidates as execvp(3) does; returns only if none could be executed.
fn execute(image: &Pointers<'_>) -> Errno {
    let mut worst = Errno::ENOENT;
    for candidate in &image.candidates {
        let candidate: *const c_char = *candidate;
        if candidate.is_null() {
            break;
        }
        // SAFETY: all pointers are of null-terminated strings and arrays that outlive the call.
        unsafe { libc::execve(candidate, image.arguments.as_ptr(), image.environment.as_ptr()) };
        match Errno::last() {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = Errno::EACCES,
            errno => return errno,
        }
    }
    worst
}
