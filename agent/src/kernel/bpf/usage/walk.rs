//! One walk of the iterator over the cgroups below our root, and the memory that it writes to.
#![expect(unsafe_code, reason = "bpf(2) takes pointers; the kernel's memory, mapped")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use bulkhead_abi::CgroupUsage;

use super::super::sys::{Command, address, bpf, number};
use super::program::TRACE_ITER;

/// `BPF_CGROUP_ITER_DESCENDANTS_PRE`: parents before children.
const DESCENDANTS_PRE: u32 = 2;

/// `union bpf_iter_link_info`
#[repr(C)]
#[derive(Default)]
struct IterInfo {
    order: u32,
    cgroup: u32,
    cgroup_id: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_bytes: u32,
    pad: u32,
}

/// Ties a program to the cgroups below `root`, and `root` itself.
pub(super) fn link(program: &OwnedFd, root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = IterInfo { order: DESCENDANTS_PRE, cgroup: number(root), cgroup_id: 0 };
    let mut attr = LinkAttr {
        program: number(program),
        attach_type: TRACE_ITER,
        info: address(&raw const info),
        info_bytes: u32::try_from(size_of::<IterInfo>()).map_err(io::Error::other)?,
        ..LinkAttr::default()
    };
    // SAFETY: `info` outlives the call and has the length that is said.
    let link = unsafe { bpf(Command::LinkCreate, &mut attr) }?;
    // SAFETY: the kernel returned it a moment ago; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Lets the program see every cgroup once. It writes into its map and prints nothing.
pub(super) fn walk(link: &OwnedFd) -> io::Result<()> {
    let mut attr = [number(link), 0];
    // SAFETY: no pointers.
    let iterator = unsafe { bpf(Command::IterCreate, &mut attr) }?;
    // SAFETY: the kernel returned it a moment ago; nobody else knows it.
    let mut iterator = unsafe { File::from_raw_fd(iterator) };
    let mut nothing = [0; 8];
    loop {
        match iterator.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(io::Error::other("the cgroup iterator printed something")),
            // So many cgroups that the kernel takes a rest.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The map's memory. The program writes it only during [`walk`], which nobody but its one owner
/// calls.
#[derive(Debug)]
pub(super) struct Entries {
    start: NonNull<CgroupUsage>,
    /// Entry 0, which is no cgroup, and those that follow.
    length: usize,
}

// SAFETY: memory that only its owner reads, and only while nothing writes.
unsafe impl Send for Entries {}

impl Entries {
    /// Maps an array of `length` [`CgroupUsage`], made with `BPF_F_MMAPABLE`.
    pub(super) fn map(map: &OwnedFd, length: usize) -> io::Result<Self> {
        let (bytes, access) = (Self::bytes(length), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping, which overlaps nothing.
        let start = unsafe {
            let nowhere = std::ptr::null_mut();
            libc::mmap(nowhere, bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, length })
    }

    const fn bytes(length: usize) -> usize {
        length * size_of::<CgroupUsage>()
    }

    /// Makes room for the next walk.
    pub(super) fn clear(&mut self) {
        // SAFETY: entry 0 is there.
        let head = unsafe { self.start.as_mut() };
        (head.id, head.present) = (0, 0);
    }

    /// What the last walk told, and how many cgroups found no room.
    pub(super) fn told(&self) -> (&[CgroupUsage], u32) {
        // SAFETY: `length` entries are mapped, and nothing writes them but `walk`, which has
        // returned: a system call, so the compiler knows nothing of what was there before.
        let all = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) };
        let count = usize::try_from(all[0].id).unwrap_or(usize::MAX);
        (&all[1..=count.min(self.length - 1)], all[0].present)
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; nobody has a reference any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), Self::bytes(self.length));
        }
    }
}
