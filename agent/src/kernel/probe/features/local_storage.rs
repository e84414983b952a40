//! Storage that belongs to a socket, as a packet's program reaches it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::bpf::{Kind, MapAttr, instruction, load, load_btf, map, number};

/// `BPF_MAP_TYPE_SK_STORAGE`, and the flag that it wants.
const SK_STORAGE: u32 = 24;
const NO_PREALLOC: u32 = 1;
/// Offset of `sk` in `struct __sk_buff`.
const SOCKET_OF_PACKET: i16 = 168;
/// Helpers.
const SK_FULLSOCK: i32 = 95;
const SK_STORAGE_GET: i32 = 107;

/// A program that makes storage for the socket of a packet.
pub(super) fn program(kind: Kind) -> io::Result<OwnedFd> {
    let storage = storage()?;
    let descriptor = number(storage.as_fd()).cast_signed();
    load(
        kind,
        &[
            // r1 = packet->sk; without one, done
            instruction(0x79, (1, 1), SOCKET_OF_PACKET, 0),
            instruction(0x15, (1, 0), 8, 0),
            instruction(0x85, (0, 0), 0, SK_FULLSOCK),
            instruction(0x15, (0, 0), 6, 0),
            // bpf_sk_storage_get(map, socket, NULL, CREATE)
            instruction(0xbf, (2, 0), 0, 0),
            instruction(0x18, (1, 1), 0, descriptor),
            0,
            instruction(0xb7, (3, 0), 0, 0),
            instruction(0xb7, (4, 0), 0, 1),
            instruction(0x85, (0, 0), 0, SK_STORAGE_GET),
            instruction(0xb7, (0, 0), 0, 1),
            instruction(0x95, (0, 0), 0, 0),
        ],
    )
}

/// The map; the kernel wants to know the types of its keys and values.
fn storage() -> io::Result<OwnedFd> {
    let types = load_btf(&one_integer())?;
    map(MapAttr {
        map_type: SK_STORAGE,
        key_size: 4,
        value_size: 4,
        flags: NO_PREALLOC,
        btf: number(types.as_fd()),
        btf_key: 1,
        btf_value: 1,
        ..MapAttr::default()
    })
}

/// Type 1 is a signed integer of 32 bits.
fn one_integer() -> Vec<u8> {
    let header: [u32; 6] = [0xeb9f | 1 << 16, 24, 0, 16, 16, 5];
    let integer: [u32; 4] = [1, 1 << 24, 4, 1 << 24 | 32];
    let words = header.iter().chain(&integer).flat_map(|word| word.to_le_bytes());
    words.chain(*b"\0int\0").collect()
}
