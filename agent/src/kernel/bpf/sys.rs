//! bpf(2) commands that aya does not offer: links that outlive us, and programs and maps by pin.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::faults::{self, Point, reach};

/// Commands of `enum bpf_cmd` in linux/bpf.h.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgById = 13,
    Info = 15,
    MapFreeze = 22,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    IterCreate = 33,
    LinkDetach = 34,
}

impl Command {
    /// Fault points before and after what changes something.
    const fn points(self) -> Option<[Point; 2]> {
        match self {
            Self::MapUpdate | Self::MapUpdateBatch => Some([Point::BpfPut, Point::BpfPutDone]),
            Self::MapDelete | Self::MapDeleteBatch => Some([Point::BpfDelete, Point::BpfDeleted]),
            Self::ObjPin => Some([Point::BpfPin, Point::BpfPinned]),
            Self::LinkCreate => Some([Point::BpfAttach, Point::BpfAttached]),
            Self::LinkUpdate => Some([Point::BpfReplace, Point::BpfReplaced]),
            Self::LinkDetach => Some([Point::BpfDetach, Point::BpfDetached]),
            _ => None,
        }
    }
}

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

/// Calls bpf(2).
///
/// # Safety
///
/// `A` is the command's `repr(C)` prefix of `union bpf_attr` without padding, and each pointer
/// in it is valid for what the command reads and writes.
pub(super) unsafe fn bpf<A>(command: Command, attr: &mut A) -> io::Result<i32> {
    command.points().map_or(Ok(()), |[before, _]| reach(before))?;
    // SAFETY: the caller's.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command as i32, std::ptr::from_mut(attr), size_of::<A>())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some([_, after]) = command.points() {
        faults::pass(after);
    }
    // A file descriptor, or 0.
    i32::try_from(done).map_err(io::Error::other)
}

/// Takes the file descriptor that a command has just made.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with what the kernel returned a moment ago; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { path: address(path.as_ptr()), ..PinAttr::default() };
    // SAFETY: the path is a string that outlives the call.
    unsafe { bpf(Command::ObjGet, &mut attr) }.map(own)
}

/// Pins a link, program or map at `path`.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { path: address(path.as_ptr()), fd: number(fd), flags: 0 };
    // SAFETY: the path is a string that outlives the call.
    unsafe { bpf(Command::ObjPin, &mut attr) }.map(drop)
}

/// Opens a pinned link; what is no link is an error.
pub(super) fn open_link(path: &Path) -> io::Result<OwnedFd> {
    let fd = open_pin(path)?;
    let kind = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if kind.to_string_lossy().contains("link") {
        return Ok(fd);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("is {}, no link", kind.display())))
}

/// Where a cgroup link is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CgroupLink {
    pub(super) program_id: u32,
    /// 0: its cgroup is gone, or it was detached.
    pub(super) cgroup_id: u64,
    pub(super) attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info` with its cgroup part.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    tail: u32,
}

/// What the kernel says about a link; `None` for one that is not of a cgroup.
pub(super) fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<Option<CgroupLink>> {
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let pointer = address(&raw mut info);
    let mut attr = InfoAttr { fd: number(link), length, info: pointer };
    // SAFETY: the kernel writes at most `length` bytes to `info`, integers only.
    unsafe { bpf(Command::Info, &mut attr) }?;
    Ok((info.kind == LINK_TYPE_CGROUP).then_some(CgroupLink {
        program_id: info.program_id,
        cgroup_id: info.cgroup_id,
        attach_type: info.attach_type,
    }))
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup. The link can stand beside others without any flag; with one,
/// the kernel refuses it.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let (program, target) = (number(program), number(cgroup));
    let mut attr = LinkCreateAttr { program, target, attach_type, flags: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(Command::LinkCreate, &mut attr) }.map(own)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces a link's program: each packet sees the old one or the new one.
pub(super) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link, program) = (number(link), number(program));
    let mut attr = LinkUpdateAttr { link, program, ..LinkUpdateAttr::default() };
    // SAFETY: no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// Opens a loaded program.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: no pointers.
    unsafe { bpf(Command::ProgById, &mut attr) }.map(own)
}

#[repr(C)]
struct FdAttr {
    fd: u32,
}

/// Detaches a link, whoever else still holds it.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = FdAttr { fd: number(link) };
    // SAFETY: no pointers.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}

/// A file descriptor as bpf(2) wants it.
pub(super) fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// A pointer as bpf(2) wants it.
pub(super) fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
