//! Ends TCP connections that a changed policy no longer allows.
//!
//! The kernel programs drop the packets of such a connection, so it is dead already; but its
//! owner would wait for the protocol's own patience, which is many minutes. Here the owner
//! learns of it at once. It works on duplicates of the processes' own sockets, so it needs no
//! help of the kernel's socket diagnostics, and does not care for network namespaces.
#![expect(unsafe_code, reason = "pidfd_getfd, and connect to AF_UNSPEC")]

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// What was done.
#[derive(Default, Debug)]
pub struct Ended {
    /// Connections that were ended.
    pub ended: u32,
    /// Connections that were looked at and may go on.
    pub kept: u32,
    /// What could not be looked at or ended. Processes that have gone meanwhile are not here.
    pub errors: Vec<SocketError>,
}

/// Why a connection, or all of a process or cgroup, could not be seen to.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The processes of a cgroup could not be listed.
    #[error("list processes of cgroup {}", cgroup.display())]
    Cgroup {
        /// The cgroup.
        cgroup: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A process's sockets could not be listed.
    #[error("list sockets of process {pid}")]
    Process {
        /// The process.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// A connection could not be ended.
    #[error("end the connection of process {pid} (file descriptor {fd})")]
    Connection {
        /// The process.
        pid: u32,
        /// Its file descriptor.
        fd: RawFd,
        /// Why not.
        source: io::Error,
    },
}

/// Ends each TCP connection of a process in `cgroup` or below for whose peer `denied` is true.
///
/// Peers are shown as they are judged: an IPv4-mapped address as IPv4. Listening sockets are
/// never touched. Connections that are still being made are left to the connect hooks; one that
/// waits to be accepted belongs to no process yet, and is found when this is called again.
pub fn end_connections(cgroup: &Path, mut denied: impl FnMut(SocketAddr) -> bool) -> Ended {
    let mut done = Ended::default();
    // Processes share sockets with their children.
    let mut seen = HashSet::new();
    for pid in processes(cgroup, &mut done.errors) {
        if let Err(source) = end_of_process(pid, &mut seen, &mut denied, &mut done)
            && !is_gone(&source)
        {
            done.errors.push(SocketError::Process { pid, source });
        }
    }
    done
}

/// The processes of a cgroup and of those below it.
fn processes(cgroup: &Path, errors: &mut Vec<SocketError>) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut open = vec![cgroup.to_owned()];
    while let Some(dir) = open.pop() {
        match list(&dir) {
            Ok((below, here)) => {
                open.extend(below);
                pids.extend(here);
            }
            Err(source) if is_gone(&source) => {}
            Err(source) => errors.push(SocketError::Cgroup { cgroup: dir, source }),
        }
    }
    pids
}

fn list(dir: &Path) -> io::Result<(Vec<PathBuf>, Vec<u32>)> {
    let mut below = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    let procs = fs::read_to_string(dir.join("cgroup.procs"))?;
    let pids = procs.lines().map(str::parse).collect::<Result<_, _>>();
    Ok((below, pids.map_err(io::Error::other)?))
}

fn end_of_process(
    pid: u32,
    seen: &mut HashSet<PathBuf>,
    denied: &mut impl FnMut(SocketAddr) -> bool,
    done: &mut Ended,
) -> io::Result<()> {
    let process = open_process(pid)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        if !target.to_string_lossy().starts_with("socket:") || !seen.insert(target) {
            continue;
        }
        match end_one(process.as_fd(), fd, denied) {
            Ok(Some(true)) => done.ended += 1,
            Ok(Some(false)) => done.kept += 1,
            Ok(None) => {}
            Err(source) if is_gone(&source) => {}
            Err(source) => done.errors.push(SocketError::Connection { pid, fd, source }),
        }
    }
    Ok(())
}

/// Says whether a connection was ended; `None` for what is no TCP connection.
fn end_one(
    process: BorrowedFd<'_>,
    fd: RawFd,
    denied: &mut impl FnMut(SocketAddr) -> bool,
) -> io::Result<Option<bool>> {
    let socket = duplicate(process, fd)?;
    let protocol = option(socket.as_fd(), libc::SO_PROTOCOL)?;
    if !matches!(protocol, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)
        || option(socket.as_fd(), libc::SO_ACCEPTCONN)? != 0
    {
        return Ok(None);
    }
    let stream = TcpStream::from(socket);
    let peer = match stream.peer_addr() {
        Ok(peer) => SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        // Not connected, not yet or no longer.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
        Err(error) => return Err(error),
    };
    if !denied(peer) {
        return Ok(Some(false));
    }
    abort(&stream)?;
    Ok(Some(true))
}

/// Resets a connection, for its owner too.
fn abort(stream: &TcpStream) -> io::Result<()> {
    match disconnect(stream.as_fd()) {
        // Some kernels around 6.4 will not while somebody waits in a call: send them away first.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            stream.shutdown(Shutdown::Both)?;
            disconnect(stream.as_fd())
        }
        done => done,
    }
}

fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = libc::sockaddr {
        sa_family: libc::AF_UNSPEC.cast_unsigned().try_into().unwrap_or_default(),
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: an address of that length, which the kernel copies.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const address, length) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

/// A reference to a process that no other process can take the place of.
fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A file descriptor of our own for what that of a process stands for.
fn duplicate(process: BorrowedFd<'_>, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

fn own(made: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(made)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An integer option of a socket.
fn option(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: room for an integer, and its length.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(done).map(|_| value).map_err(io::Error::from)
}

/// Whether a process, its file descriptor or a cgroup has gone while we looked.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV | libc::EBADF))
}
