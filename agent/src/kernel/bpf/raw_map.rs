//! Typed access to one map by file descriptor: single, and in batches where the kernel can.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use aya::Pod;

use super::sys::{Command, address, bpf, number};

/// Entries that one batch reads at first.
const BATCH_ENTRIES: usize = 4096;

/// Bytes that one batch of large values reads at first.
const BATCH_BYTES: usize = 1 << 20;

/// A write that finds no memory is tried again after pauses, each twice as long, up to this one.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The kernel's own `ENOTSUPP`, which escapes from map types without batches.
const ENOTSUPP: i32 = 524;

/// A map of keys `K`, and of `V` or, in a per-CPU map, one `V` for each possible CPU.
#[derive(Debug)]
pub(super) struct RawMap<K, V> {
    fd: OwnedFd,
    /// Values of one entry.
    lanes: usize,
    types: PhantomData<fn(K) -> V>,
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    /// Of the value, or of the next key.
    value: u64,
    flags: u64,
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
    element_flags: u64,
    flags: u64,
}

impl<K: Pod, V: Pod> RawMap<K, V> {
    /// Takes a map's file descriptor.
    ///
    /// # Safety
    ///
    /// The map's keys are `K` and its values are `V`, in a per-CPU map one for each of `lanes`
    /// possible CPUs (`lanes` is 1 elsewhere); `V` is a multiple of 8 bytes in a per-CPU map.
    pub(super) unsafe fn new(fd: OwnedFd, lanes: usize) -> Self {
        const { assert!(size_of::<K>() > 0 && size_of::<V>() > 0) }
        Self { fd, lanes, types: PhantomData }
    }

    /// The values of `key`, one for each lane.
    pub(super) fn lookup(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = self.room(1);
        let value = address(values.as_mut_ptr());
        let mut attr = ElementAttr { value, ..self.element(key) };
        // SAFETY: key and values have the map's sizes, see `new`.
        let found = absent_is_none(unsafe { bpf(Command::MapLookup, &mut attr) })?;
        Ok(found.map(|()| values))
    }

    /// Writes one entry, `values` holding one for each lane. With `only_new` an entry that is
    /// there is an error (`EEXIST`).
    pub(super) fn write(&self, key: &K, values: &[V], only_new: bool) -> io::Result<()> {
        assert_eq!(values.len(), self.lanes, "one value for each lane");
        let value = address(values.as_ptr());
        let flags = u64::from(only_new);
        let mut attr = ElementAttr { value, flags, ..self.element(key) };
        // SAFETY: key and values have the map's sizes, see `new`.
        patiently(|| unsafe { bpf(Command::MapUpdate, &mut attr) }.map(drop))
    }

    /// Removes an entry; says whether there was one.
    pub(super) fn delete(&self, key: &K) -> io::Result<bool> {
        let mut attr = self.element(key);
        // SAFETY: the key has the map's size, see `new`.
        let found = absent_is_none(unsafe { bpf(Command::MapDelete, &mut attr) })?;
        Ok(found.is_some())
    }

    /// Writes entries of a map with one lane. After an error any part of them may be written.
    pub(super) fn write_many(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        assert_eq!((keys.len(), self.lanes), (values.len(), 1), "one value for each key");
        let written = patiently(|| {
            let mut attr = BatchAttr { values: address(values.as_ptr()), ..self.batch(keys)? };
            // SAFETY: `count` keys and values of the map's sizes, see `new`.
            unsafe { bpf(Command::MapUpdateBatch, &mut attr) }.map(drop)
        });
        match written {
            Err(error) if unsupported(&error) => {
                let mut entries = keys.iter().zip(values);
                entries.try_for_each(|(key, value)| {
                    self.write(key, std::slice::from_ref(value), false)
                })
            }
            done => done,
        }
    }

    /// Removes entries; one that is not there is no error.
    pub(super) fn delete_many(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let mut attr = self.batch(rest)?;
            // SAFETY: `count` keys of the map's size, see `new`.
            match unsafe { bpf(Command::MapDeleteBatch, &mut attr) } {
                Ok(_) => return Ok(()),
                Err(error) if unsupported(&error) => {
                    return rest.iter().try_for_each(|key| self.delete(key).map(drop));
                }
                // The batch stopped at an entry that is not there: go on behind it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    let done = usize::try_from(attr.count).map_err(io::Error::other)?;
                    rest = rest.get(done + 1..).unwrap_or_default();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every entry, with its values one lane after the other.
    pub(super) fn read_all(&self) -> io::Result<(Vec<K>, Vec<V>)> {
        match self.read_in_batches() {
            Err(error) if unsupported(&error) => self.read_one_by_one(),
            read => read,
        }
    }

    fn read_in_batches(&self) -> io::Result<(Vec<K>, Vec<V>)> {
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        let entry_bytes = size_of::<K>() + self.lanes * size_of::<V>();
        let mut entries = (BATCH_BYTES / entry_bytes).clamp(1, BATCH_ENTRIES);
        // Where the next batch begins: a bucket's number or a key, as the map type likes.
        let mut position = vec![0_u8; size_of::<K>().max(8)];
        let mut begun = false;
        loop {
            let mut keys = vec![zeroed::<K>(); entries];
            let mut values = self.room(entries);
            let place = address(position.as_mut_ptr());
            let mut attr = BatchAttr {
                in_batch: if begun { place } else { 0 },
                out_batch: place,
                values: address(values.as_mut_ptr()),
                ..self.batch(&keys)?
            };
            attr.keys = address(keys.as_mut_ptr());
            // SAFETY: room for `count` keys and values of the map's sizes, see `new`; the
            // position is as large as a key and as a bucket's number.
            let read = unsafe { bpf(Command::MapLookupBatch, &mut attr) };
            let end = match read {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket holds more than we have room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    entries = entries.saturating_mul(2);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = usize::try_from(attr.count).map_err(io::Error::other)?;
            all_keys.extend_from_slice(&keys[..count]);
            all_values.extend_from_slice(&values[..count * self.lanes]);
            if end {
                return Ok((all_keys, all_values));
            }
            begun = true;
        }
    }

    fn read_one_by_one(&self) -> io::Result<(Vec<K>, Vec<V>)> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut last = None;
        while let Some(key) = self.next_key(last.as_ref())? {
            if let Some(lanes) = self.lookup(&key)? {
                keys.push(key);
                values.extend(lanes);
            }
            last = Some(key);
        }
        Ok((keys, values))
    }

    fn next_key(&self, last: Option<&K>) -> io::Result<Option<K>> {
        let mut next = zeroed::<K>();
        let mut attr = ElementAttr {
            map: number(&self.fd),
            key: last.map_or(0, |key| address(std::ptr::from_ref(key))),
            value: address(&raw mut next),
            ..ElementAttr::default()
        };
        // SAFETY: both keys have the map's size, see `new`; no key means the first.
        let found = absent_is_none(unsafe { bpf(Command::MapNextKey, &mut attr) })?;
        Ok(found.map(|()| next))
    }

    fn element(&self, key: &K) -> ElementAttr {
        let key = address(std::ptr::from_ref(key));
        ElementAttr { map: number(&self.fd), key, ..ElementAttr::default() }
    }

    fn batch(&self, keys: &[K]) -> io::Result<BatchAttr> {
        Ok(BatchAttr {
            map: number(&self.fd),
            keys: address(keys.as_ptr()),
            count: u32::try_from(keys.len()).map_err(io::Error::other)?,
            ..BatchAttr::default()
        })
    }

    /// Room for the values of that many entries.
    fn room(&self, entries: usize) -> Vec<V> {
        vec![zeroed::<V>(); entries * self.lanes]
    }
}

/// Tries a write again while the kernel is short of memory. Entries of maps that are not
/// preallocated come from a small stock, which the kernel fills up in the background: many at
/// once can empty it for a moment.
fn patiently(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && pause < LONGEST_PAUSE => {
                thread::sleep(pause);
                pause *= 2;
            }
            done => return done,
        }
    }
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: plain old data, for which every pattern of bytes is a value.
    unsafe { std::mem::zeroed() }
}

fn absent_is_none(done: io::Result<i32>) -> io::Result<Option<()>> {
    match done {
        Ok(_) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the kernel cannot do this in batches for this type of map.
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}
