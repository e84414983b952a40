//! bpf(2) with programs of a few instructions: raw, since what is to be tried is the kernel and no
//! library.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands of `enum bpf_cmd` in linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const BTF_LOAD: libc::c_int = 18;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const ITER_CREATE: libc::c_int = 33;

/// One instruction: operation, the registers that it writes and reads, offset, number.
pub(super) fn instruction(code: u8, registers: (u8, u8), offset: i16, number: i32) -> u64 {
    let (to, from) = registers;
    u64::from(code)
        | u64::from(from << 4 | to) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(number.cast_unsigned()) << 32
}

/// `return number`
pub(super) fn returns(number: i32) -> Vec<u64> {
    vec![instruction(0xb7, (0, 0), 0, number), instruction(0x95, (0, 0), 0, 0)]
}

/// What kind of program one is.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// `enum bpf_prog_type`
    pub(super) program: u32,
    /// `enum bpf_attach_type`
    pub(super) attach: u32,
    /// The kernel's type that it is attached to; 0: none.
    pub(super) btf_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    version_and_flags: [u32; 2],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf_and_lines: [u32; 9],
    attach_btf_id: u32,
    tail: [u32; 2],
}

/// Loads a program.
pub(super) fn load(kind: Kind, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        program_type: kind.program,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: address(instructions.as_ptr()),
        license: address(c"GPL".as_ptr()),
        attach_type: kind.attach,
        attach_btf_id: kind.btf_id,
        ..LoadAttr::default()
    };
    call(PROG_LOAD, &mut attr)
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u64,
}

/// Attaches a program to a cgroup, an interface or (0) the place that it was loaded for.
pub(super) fn attach(
    program: &OwnedFd,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let program = number(program.as_fd());
    let mut attr = LinkAttr { program, target, attach_type, flags, ..LinkAttr::default() };
    call(LINK_CREATE, &mut attr)
}

/// Reads everything that an iterator gives; `info` says where it goes.
pub(super) fn iterate(program: &OwnedFd, attach_type: u32, info: &[u32]) -> io::Result<()> {
    let mut attr = LinkAttr {
        program: number(program.as_fd()),
        attach_type,
        info: if info.is_empty() { 0 } else { address(info.as_ptr()) },
        info_length: u64::try_from(size_of_val(info)).map_err(io::Error::other)?,
        ..LinkAttr::default()
    };
    let link: OwnedFd = call(LINK_CREATE, &mut attr)?;
    let mut attr = [number(link.as_fd()), 0];
    let iterator = std::fs::File::from(call(ITER_CREATE, &mut attr)?);
    io::copy(&mut &iterator, &mut io::sink()).map(drop)
}

/// Replaces the program of a link.
pub(super) fn update(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    raw(LINK_UPDATE, &mut [number(link.as_fd()), number(program.as_fd()), 0, 0]).map(drop)
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MapAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
    pub(super) inner_and_node: [u32; 2],
    pub(super) name: [u8; 16],
    pub(super) interface: u32,
    pub(super) btf: u32,
    pub(super) btf_key: u32,
    pub(super) btf_value: u32,
}

/// Creates a map.
pub(super) fn map(mut attr: MapAttr) -> io::Result<OwnedFd> {
    call(MAP_CREATE, &mut attr)
}

#[repr(C)]
#[derive(Default)]
struct BtfAttr {
    btf: u64,
    log: u64,
    size: u32,
    log_size_and_level: [u32; 2],
    pad: u32,
}

/// Loads descriptions of types.
pub(super) fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    call(BTF_LOAD, &mut BtfAttr { btf: address(bytes.as_ptr()), size, ..BtfAttr::default() })
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    flags: [u64; 2],
}

/// Writes two entries of a map at once, and reads them back at once; keys and values are 32 bits.
pub(super) fn batches(map: &OwnedFd) -> io::Result<()> {
    let (mut keys, mut values, mut place) = ([1_u32, 2], [10_u32, 20], 0_u64);
    let map = number(map.as_fd());
    let attr = |keys: &mut [u32; 2], values: &mut [u32; 2], place: &mut u64| BatchAttr {
        out_batch: address(std::ptr::from_mut(place)),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: 2,
        map,
        ..BatchAttr::default()
    };
    let mut write = attr(&mut keys, &mut values, &mut place);
    write.out_batch = 0;
    raw(MAP_UPDATE_BATCH, &mut write)?;
    (keys, values) = ([0; 2], [0; 2]);
    let read = raw(MAP_LOOKUP_BATCH, &mut attr(&mut keys, &mut values, &mut place));
    match read {
        // The end of the map was reached.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => drop(other?),
    }
    keys.sort_unstable();
    values.sort_unstable();
    if (keys, values) == ([1, 2], [10, 20]) {
        return Ok(());
    }
    Err(io::Error::other("what was read is not what was written"))
}

/// A descriptor as bpf(2) wants it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A pointer as bpf(2) wants it.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// A command that makes a descriptor.
fn call<A>(command: libc::c_int, attr: &mut A) -> io::Result<OwnedFd> {
    let made = raw(command, attr)?;
    // SAFETY: these commands return a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Every attribute of this file is a `repr(C)` prefix of `union bpf_attr`, and its pointers are to
/// values that outlive the call and are as long as the counts beside them say.
fn raw<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: see above.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(done).map_err(io::Error::other)
}
