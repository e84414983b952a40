//! Waiting until every program that runs now has ended.
//!
//! Programs run inside read-side sections of RCU, so they have ended after a grace period. The
//! kernel waits for one whenever an entry of a map of maps was updated, on every configuration and
//! before the update returns (`maybe_wait_bpf_programs`, since 4.20). Not so `membarrier(2)`: it
//! returns at once where one CPU is online, although a program can have been preempted there, and
//! it is refused where some CPUs run without ticks.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::raw_map::RawMap;
use super::sys::{Command, bpf, number, own};

/// Kinds of `enum bpf_map_type`.
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

/// A map of one map, known to no program.
#[derive(Debug)]
pub(super) struct GracePeriod {
    outer: RawMap<u32, u32>,
    inner: OwnedFd,
}

#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
}

impl GracePeriod {
    pub(super) fn new() -> io::Result<Self> {
        let of_one = |kind, inner_map| {
            let (key_bytes, value_bytes, entries, flags) = (4, 4, 1, 0);
            create(CreateAttr { kind, key_bytes, value_bytes, entries, flags, inner_map })
        };
        let inner = of_one(ARRAY, 0)?;
        let outer = of_one(ARRAY_OF_MAPS, number(inner.as_fd()))?;
        // SAFETY: keys and values (descriptors of maps) are 4 bytes; just made.
        Ok(Self { outer: unsafe { RawMap::new(outer, 1) }, inner })
    }

    /// Returns when every program that runs now has ended.
    pub(super) fn wait(&self) -> io::Result<()> {
        self.outer.write(&0, &[number(self.inner.as_fd())], false)
    }
}

fn create(mut attr: CreateAttr) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { bpf(Command::MapCreate, &mut attr) }.map(own)
}
