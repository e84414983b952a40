//! Shapes of maps: aya takes a pinned map for granted, so we look first.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use bulkhead_abi::{
    Address, AllowKey, Config, Counters, FarEnd, Member, Placement, Prefix, capacity, maps,
};

use super::error::BpfError;

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// How many entries each table can hold. A pinned map keeps its own: to change it, detach first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// Virtual clusters' cgroups.
    pub members: u32,
    /// Exact addresses.
    pub addresses: u32,
    /// Prefixes.
    pub prefixes: u32,
    /// Pairs that may talk.
    pub allowed: u32,
    /// Cgroups that are counted.
    pub counters: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            members: capacity::MEMBERS,
            addresses: capacity::ADDRESSES,
            prefixes: capacity::PREFIXES,
            allowed: capacity::ALLOWED,
            counters: capacity::COUNTERS,
        }
    }
}

/// Type, sizes and flags of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapShape {
    name: String,
    kind: String,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
    flags: u32,
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, key_bytes, value_bytes, entries, flags } = self;
        write!(
            f,
            "{name} ({kind}, key {key_bytes} B, value {value_bytes} B, {entries} entries, flags \
             {flags:#x})"
        )
    }
}

impl MapShape {
    fn of<K, V>(
        name: &'static str,
        kind: MapType,
        entries: u32,
        flags: u32,
    ) -> (&'static str, Self) {
        let shape = Self {
            name: name.to_owned(),
            kind: format!("{kind:?}"),
            key_bytes: size_of::<K>(),
            value_bytes: size_of::<V>(),
            entries,
            flags,
        };
        (name, shape)
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    pub(super) fn pinned(path: &Path) -> io::Result<Self> {
        let info = MapInfo::from_pin(path).map_err(io::Error::other)?;
        Ok(Self {
            name: info.name_as_str().unwrap_or("?").to_owned(),
            kind: info
                .map_type()
                .map_or_else(|error| error.to_string(), |kind| format!("{kind:?}")),
            key_bytes: usize::try_from(info.key_size()).map_err(io::Error::other)?,
            value_bytes: usize::try_from(info.value_size()).map_err(io::Error::other)?,
            entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

/// What each map is, in the order of [`maps::ALL`].
pub(super) fn wanted(capacities: &Capacities) -> [(&'static str, MapShape); maps::ALL.len()] {
    let Capacities { members, addresses, prefixes, allowed, counters } = *capacities;
    let hash = NO_PREALLOC;
    [
        MapShape::of::<u32, Config>(maps::CONFIG, MapType::Array, 1, 0),
        MapShape::of::<u32, Placement>(maps::PLACEMENT, MapType::Array, 1, 0),
        MapShape::of::<u32, u64>(maps::GENERATION, MapType::Array, 1, MMAPABLE),
        MapShape::of::<u64, Member>(maps::MEMBERS, MapType::Hash, members, hash),
        MapShape::of::<Address, FarEnd>(maps::ADDRESSES, MapType::Hash, addresses, hash),
        MapShape::of::<Prefix, FarEnd>(maps::PREFIXES, MapType::LpmTrie, prefixes, hash),
        MapShape::of::<AllowKey, u32>(maps::ALLOWED, MapType::Hash, allowed, hash),
        MapShape::of::<u64, u32>(maps::SLOTS, MapType::Hash, counters, hash),
        // An array refuses the flag of hash tables: it is always preallocated.
        MapShape::of::<u32, Counters>(maps::CELLS, MapType::PerCpuArray, counters, 0),
    ]
}

/// The pinned maps of `dir`, every one of the wanted shape; changes nothing.
pub(super) fn check_pinned(
    dir: &Path,
    capacities: &Capacities,
) -> Result<Vec<&'static str>, BpfError> {
    let mut there = Vec::new();
    for (map, wanted) in wanted(capacities) {
        let path = dir.join(map);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            looked => looked.map_err(BpfError::file("look at pin", &path))?,
        };
        let pinned = MapShape::pinned(&path).map_err(BpfError::file("open pinned map", &path))?;
        if pinned != wanted {
            let (pinned, wanted) = (Box::new(pinned), Box::new(wanted));
            return Err(BpfError::MapShape { map, path, pinned, wanted });
        }
        there.push(map);
    }
    Ok(there)
}
