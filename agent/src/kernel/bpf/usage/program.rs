//! Loads the iterator alone, by hand: aya would read the kernel's types into tens of MiB of memory
//! and make every table of the object once more.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use bulkhead_abi::{CgroupUsage, LICENCE, UsageLayout, maps, programs};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

use super::super::sys::{Command, address, bpf, number};

const SECTION: &str = "iter/cgroup";
/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_RDONLY_PROG`
const READ_ONLY: u32 = 1 << 7;
/// `BPF_F_MMAPABLE`
const MAPPABLE: u32 = 1 << 10;
/// `BPF_PROG_TYPE_TRACING`
const TRACING: u32 = 26;
/// `BPF_TRACE_ITER`
pub(super) const TRACE_ITER: u32 = 28;
/// `BPF_PSEUDO_MAP_FD`: a 64-bit constant stands for a map.
const MAP_FD: u8 = 1;
/// `BPF_PSEUDO_MAP_VALUE`: it stands for the address of a map's first value.
const MAP_VALUE: u8 = 2;
/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`
const LOAD_CONSTANT: u8 = 0x18;
/// Room for the verifier's log.
const LOG_BYTES: usize = 64 << 10;

/// The loaded program and what it writes to.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) program: OwnedFd,
    pub(super) map: OwnedFd,
}

/// What the object holds of it.
struct Parts {
    code: Vec<u8>,
    constants: Vec<u8>,
    /// Instructions that load the address of the map, and of constants.
    uses: Vec<(usize, Use)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Map,
    Constant { offset: u32 },
}

/// Loads it for a kernel that keeps things as `layout` says, with room for that many entries.
/// `function` is the number of the kernel's `bpf_iter_cgroup`.
pub(super) fn load(
    object: &[u8],
    layout: &UsageLayout,
    entries: u32,
    function: u32,
) -> Result<Program, String> {
    let parts = take_apart(object, layout)?;
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let value = u32::try_from(size_of::<CgroupUsage>()).unwrap_or(u32::MAX);
    let map = create_array(maps::USAGE, value, entries, MAPPABLE);
    let map = map.map_err(failed("make the map of the cgroup iterator"))?;
    let length = u32::try_from(parts.constants.len()).unwrap_or(u32::MAX);
    let constants = create_array("USAGE_CONSTANTS", length, 1, READ_ONLY);
    let constants = constants.and_then(|fd| fill(&fd, &parts.constants).map(|()| fd));
    let constants = constants.map_err(failed("make the constants of the cgroup iterator"))?;
    let code = patch(parts, number(&map), number(&constants))?;
    let program = load_program(&code, function)?;
    Ok(Program { program, map })
}

fn take_apart(object: &[u8], layout: &UsageLayout) -> Result<Parts, String> {
    let wrong = |what: &str| format!("the object's program {} {what}", programs::USAGE);
    let elf = ElfFile64::<Endianness>::parse(object).map_err(|error| error.to_string())?;
    let section = elf.section_by_name(SECTION).ok_or_else(|| wrong("is missing"))?;
    let code = section.data().map_err(|error| error.to_string())?.to_vec();
    let place = elf.symbols().find(|symbol| symbol.name() == Ok(programs::USAGE_LAYOUT));
    let place = place.ok_or_else(|| wrong("has no layout"))?;
    let constants_index = place.section_index().ok_or_else(|| wrong("has no layout"))?;
    let constants = elf.section_by_index(constants_index).and_then(|section| section.data());
    let mut constants = constants.map_err(|error| error.to_string())?.to_vec();
    let start = usize::try_from(place.address()).unwrap_or(usize::MAX);
    let room = constants.get_mut(start..start.saturating_add(size_of::<UsageLayout>()));
    room.ok_or_else(|| wrong("has another layout"))?.copy_from_slice(&bytes_of(layout));

    let mut uses = Vec::new();
    for (at, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            return Err(wrong("refers to what is no symbol"));
        };
        let symbol = elf.symbol_by_index(index).map_err(|error| error.to_string())?;
        let stands_for = if symbol.name() == Ok(maps::USAGE) {
            Use::Map
        } else if symbol.section_index() == Some(constants_index) {
            let offset = u32::try_from(symbol.address()).map_err(|error| error.to_string())?;
            Use::Constant { offset }
        } else {
            return Err(wrong(&format!("uses {}", symbol.name().unwrap_or("something else"))));
        };
        uses.push((usize::try_from(at).map_err(|error| error.to_string())?, stands_for));
    }
    Ok(Parts { code, constants, uses })
}

fn bytes_of(layout: &UsageLayout) -> [u8; size_of::<UsageLayout>()] {
    let mut bytes = [0; size_of::<UsageLayout>()];
    // SAFETY: plain integers without padding (asserted where it is defined), and as many bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(layout).cast::<u8>(),
            bytes.as_mut_ptr(),
            bytes.len(),
        );
    }
    bytes
}

/// Puts file descriptors into the instructions: opcode 1 byte, registers 1 (the source in the
/// upper half), offset 2, immediate 4; the constant's upper half is in the next instruction.
fn patch(parts: Parts, map: u32, constants: u32) -> Result<Vec<u8>, String> {
    let mut code = parts.code;
    for (at, used) in parts.uses {
        let pair = code.get_mut(at..at + 2 * INSTRUCTION);
        let pair = pair.filter(|pair| pair[0] == LOAD_CONSTANT);
        let pair = pair.ok_or("the object's iterator refers to a map by another instruction")?;
        let addend = u32::from_le_bytes([pair[4], pair[5], pair[6], pair[7]]);
        let (kind, fd, offset) = match used {
            Use::Map => (MAP_FD, map, 0),
            Use::Constant { offset } => (MAP_VALUE, constants, offset + addend),
        };
        pair[1] = pair[1] & 0x0f | kind << 4;
        pair[4..8].copy_from_slice(&fd.to_le_bytes());
        pair[12..16].copy_from_slice(&offset.to_le_bytes());
    }
    Ok(code)
}

#[repr(C)]
#[derive(Default)]
struct MapAttr {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

fn create_array(name: &str, value_bytes: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr =
        MapAttr { kind: ARRAY, key_bytes: 4, value_bytes, entries, flags, ..MapAttr::default() };
    set_name(&mut attr.name, name);
    // SAFETY: no pointers.
    unsafe { bpf(Command::MapCreate, &mut attr) }.map(own)
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes the one value and lets nobody write it again: so the verifier can count on it.
fn fill(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let (key, value) = (address(&raw const key), address(value.as_ptr()));
    let mut attr = ElementAttr { map: number(map), key, value, ..ElementAttr::default() };
    // SAFETY: the map has keys of 4 bytes and one value of this length.
    unsafe { bpf(Command::MapUpdate, &mut attr) }?;
    let mut attr = number(map);
    // SAFETY: no pointers.
    unsafe { bpf(Command::MapFreeze, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct ProgramAttr {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf: u32,
    function_info_bytes: u32,
    function_info: u64,
    function_infos: u32,
    line_info_bytes: u32,
    line_info: u64,
    line_infos: u32,
    attach_function: u32,
}

fn load_program(code: &[u8], function: u32) -> Result<OwnedFd, String> {
    let licence = format!("{LICENCE}\0");
    let mut attr = ProgramAttr {
        kind: TRACING,
        instructions: u32::try_from(code.len() / INSTRUCTION).unwrap_or(u32::MAX),
        code: address(code.as_ptr()),
        licence: address(licence.as_ptr()),
        attach_type: TRACE_ITER,
        attach_function: function,
        ..ProgramAttr::default()
    };
    set_name(&mut attr.name, programs::USAGE);
    // SAFETY: code and licence outlive the call.
    let loaded = unsafe { bpf(Command::ProgLoad, &mut attr) };
    loaded.map(own).map_err(|error| {
        // Once more, for the verifier to say why.
        let mut log = vec![0_u8; LOG_BYTES];
        attr.log_level = 1;
        attr.log = address(log.as_mut_ptr());
        attr.log_bytes = u32::try_from(LOG_BYTES).unwrap_or(u32::MAX);
        // SAFETY: as above; the kernel writes at most `log_bytes` bytes of log.
        drop(unsafe { bpf(Command::ProgLoad, &mut attr) }.map(own));
        let log = String::from_utf8_lossy(&log);
        let mut last: Vec<_> = log.trim_end_matches('\0').lines().rev().take(3).collect();
        last.reverse();
        format!("the kernel refuses the cgroup iterator: {error} ({})", last.join("; "))
    })
}

fn set_name(to: &mut [u8; 16], name: &str) {
    // One byte stays zero.
    let length = name.len().min(15);
    to[..length].copy_from_slice(&name.as_bytes()[..length]);
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: only called with what the kernel returned a moment ago; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
