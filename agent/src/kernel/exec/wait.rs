//! Waiting for a command, with the signals that come meanwhile passed on to it.

#![expect(unsafe_code, reason = "pidfd_send_signal has no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::spawn::Spawned;

/// What a person or a supervisor sends to end, reload or inform a command.
const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell gives it: the code, or 128 and the signal's number.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// Holds signals back from this thread, from before the command starts until it has ended.
#[derive(Debug)]
pub(super) struct Forwarder {
    signals: SignalFd,
    before: SigSet,
}

impl Forwarder {
    pub(super) fn begin() -> Result<Self, Errno> {
        let forwarded: SigSet = FORWARDED.into_iter().collect();
        let before = forwarded.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&forwarded, flags)?, before })
    }

    /// The mask that the command is to have.
    pub(super) const fn mask_before(&self) -> &SigSet {
        &self.before
    }

    pub(super) fn wait(&self, spawned: &Spawned) -> Result<Exit, Errno> {
        loop {
            let mut ready = [
                PollFd::new(spawned.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            let ended = ready[0].any().unwrap_or(false);
            while let Some(signal) = self.signals.read_signal()? {
                if !reached_by_itself(&signal) {
                    send(&spawned.pidfd, &signal)?;
                }
            }
            if ended {
                return take(spawned);
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // The mask was this thread's own before; it cannot be refused.
        let _ = self.before.thread_set_mask();
    }
}

/// Ctrl-C and Ctrl-\ go to the whole foreground process group, in which the command is, too.
fn reached_by_itself(signal: &siginfo) -> bool {
    let of_terminal = [libc::SIGINT, libc::SIGQUIT].map(i64::from);
    signal.ssi_code == libc::SI_KERNEL && of_terminal.contains(&i64::from(signal.ssi_signo))
}

fn send(pidfd: &OwnedFd, signal: &siginfo) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a plain system call; a null siginfo means as kill(2) would send it.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.ssi_signo,
            no_info,
            0_u32,
        )
    };
    match Errno::result(sent) {
        // It has ended meanwhile.
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn take(spawned: &Spawned) -> Result<Exit, Errno> {
    loop {
        match waitid(Id::PIDFd(spawned.pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => {
                // The kernel keeps the low eight bits of what exit(2) was given.
                return Ok(Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Exit::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
