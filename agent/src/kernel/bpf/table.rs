//! The tables that the agent fills. A change is written whole or not at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::os::fd::OwnedFd;

use aya::Pod;

use super::error::BpfError;
use super::generation::Generation;
use super::raw_map::RawMap;

/// Up to so many keys are looked up one by one; for more, the whole table is read.
const FEW: usize = 512;

/// One of the tables that the programs look things up in. Every change begins a new generation.
#[derive(Debug)]
pub struct Table<K, V> {
    name: &'static str,
    capacity: u32,
    generation: Generation,
    raw: RawMap<K, V>,
}

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> {
    /// Takes a map's file descriptor.
    ///
    /// # Safety
    ///
    /// The map's keys are `K`, its values `V`, and it is not a per-CPU map.
    #[expect(unsafe_code, reason = "passes on what RawMap asks for")]
    pub(super) unsafe fn new(
        name: &'static str,
        capacity: u32,
        generation: &Generation,
        map: OwnedFd,
    ) -> Self {
        // SAFETY: the caller's.
        let raw = unsafe { RawMap::new(map, 1) };
        Self { name, capacity, generation: generation.clone(), raw }
    }

    /// How many entries it can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The entry of a key, or, of a table of prefixes, of the longest that covers it.
    pub fn get(&self, key: &K) -> Result<Option<V>, BpfError> {
        let found = self.raw.lookup(key).map_err(BpfError::map("read", self.name))?;
        Ok(found.and_then(|values| values.first().copied()))
    }

    /// Every entry, in no order.
    pub fn read_all(&self) -> Result<Vec<(K, V)>, BpfError> {
        let (keys, values) = self.raw.read_all().map_err(BpfError::map("read", self.name))?;
        Ok(keys.into_iter().zip(values).collect())
    }

    /// Adds and changes entries: all of them, or after an error none.
    pub fn put(&self, entries: &[(K, V)]) -> Result<(), BpfError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
        let before = self.before(&keys).map_err(BpfError::map("read", self.name))?;
        let _changing = self.generation.change();
        let Err(write) = self.raw.write_many(&keys, &values) else {
            return Ok(());
        };
        if let Err(source) = self.take_back(&keys, &before) {
            return Err(BpfError::HalfWritten { map: self.name, write, source });
        }
        Err(if is_full(&write) {
            let (map, capacity) = (self.name, self.capacity);
            BpfError::TableFull { map, capacity, wanted: entries.len() }
        } else {
            BpfError::map("write to", self.name)(write)
        })
    }

    /// Removes entries; one that is not there is no error.
    pub fn remove(&self, keys: &[K]) -> Result<(), BpfError> {
        let _changing = self.generation.change();
        self.raw.delete_many(keys).map_err(BpfError::map("remove from", self.name))
    }

    /// What those keys hold now.
    fn before(&self, keys: &[K]) -> io::Result<HashMap<K, V>> {
        if keys.len() > FEW {
            let (keys, values) = self.raw.read_all()?;
            return Ok(keys.into_iter().zip(values).collect());
        }
        let mut before = HashMap::new();
        for key in keys {
            if let Some(&[value]) = self.raw.lookup(key)?.as_deref() {
                before.insert(*key, value);
            }
        }
        Ok(before)
    }

    /// What was new goes first: it may be in the way of what was changed.
    fn take_back(&self, keys: &[K], before: &HashMap<K, V>) -> io::Result<()> {
        let new: Vec<K> = keys.iter().filter(|key| !before.contains_key(key)).copied().collect();
        self.raw.delete_many(&new)?;
        let changed = keys.iter().filter_map(|key| Some((*key, *before.get(key)?)));
        let (keys, values): (Vec<K>, Vec<V>) = changed.unzip();
        if keys.is_empty() {
            return Ok(());
        }
        self.raw.write_many(&keys, &values)
    }
}

/// `E2BIG`: a hash table is full; `ENOSPC`: a trie is; `ENOMEM`: the kernel is.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM))
}
