//! Loading: from the object's bytes to programs and pinned maps in the kernel.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use bulkhead_abi::{Config, Placement, maps};

use super::error::BpfError;
use super::generation::Generation;
use super::grace::GracePeriod;
use super::links::{ATTACH_TYPES, Loaded, Root};
use super::pins::{self, Pins};
use super::raw_map::RawMap;
use super::shape::{self, Capacities};
use super::table::Table;
use super::{BpfOptions, sys};
use crate::faults::{self, Point};

/// The map CONFIG.
pub(super) type ConfigMap = RawMap<u32, Config>;
/// The map PLACEMENT.
pub(super) type PlacementMap = RawMap<u32, Placement>;

/// Opens the cgroup that the programs are attached to.
pub(super) fn open_root(path: &Path) -> Result<Root, BpfError> {
    pins::check_cgroup(path)?;
    let dir = File::open(path).map_err(BpfError::file("open", path))?;
    // On a 64-bit kernel, the inode number of a cgroup is its id.
    let id = dir.metadata().map_err(BpfError::file("look at", path))?.ino();
    Ok(Root { fd: dir.into(), id })
}

/// Loads the programs, with the maps that are pinned or new ones, which it pins.
pub(super) fn load(
    options: &BpfOptions,
    pins: &Pins,
    object: &[u8],
) -> Result<Vec<Loaded>, BpfError> {
    let mut loader = EbpfLoader::new();
    for (map, wanted) in shape::wanted(&options.capacities) {
        loader.map_pin_path(map, pins.maps.join(map));
        loader.map_max_entries(map, wanted.entries());
    }
    faults::pass(Point::BpfLoad);
    let mut ebpf = loader.load(object).map_err(|source| {
        let path = options.object.clone();
        BpfError::Load { path, source: Box::new(source) }
    })?;
    faults::pass(Point::BpfLoaded);
    // An object can carry our version and still be another.
    let there = shape::check_pinned(&pins.maps, &options.capacities)?;
    if let Some(map) = maps::ALL.iter().find(|map| !there.contains(map)) {
        let (path, what) = (options.object.clone(), format!("it has no map {map}"));
        return Err(BpfError::Object { path, what });
    }
    ATTACH_TYPES
        .into_iter()
        .map(|(name, attach_type)| load_program(options, &mut ebpf, name, attach_type))
        .collect()
}

fn load_program(
    options: &BpfOptions,
    ebpf: &mut Ebpf,
    name: &'static str,
    attach_type: u32,
) -> Result<Loaded, BpfError> {
    let wrong = |what: &str| {
        let (path, what) = (options.object.clone(), format!("{what} program {name}"));
        BpfError::Object { path, what }
    };
    let failed = |source: ProgramError| BpfError::Program { program: name, source: source.into() };
    let program = ebpf.program_mut(name).ok_or_else(|| wrong("it has no"))?;
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => return Err(wrong("it has another kind of")),
    }
    .map_err(failed)?;
    let id = program.info().map_err(failed)?.id();
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(BpfError::file("duplicate the descriptor of program", name))?;
    Ok(Loaded { name, attach_type, id, fd })
}

/// Removes the pins of maps that a failed start has made.
pub(super) fn unpin(pins: &Pins, created: &[&'static str]) {
    for map in created {
        let path = pins.maps.join(map);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(map = %path.display(), %error, "cannot remove a new pin");
            }
            _ => {}
        }
    }
}

pub(super) fn open_map(pins: &Pins, map: &str) -> Result<OwnedFd, BpfError> {
    let path = pins.maps.join(map);
    sys::open_pin(&path).map_err(BpfError::file("open pinned map", path))
}

/// Opens the pinned GENERATION map, whose shape has been checked, and begins a new generation.
#[expect(unsafe_code, reason = "a file descriptor becomes typed memory")]
pub(super) fn open_generation(pins: &Pins) -> Result<Generation, BpfError> {
    let map = open_map(pins, maps::GENERATION)?;
    // SAFETY: `shape::check_pinned` has seen that it is such a map.
    let generation = unsafe { Generation::map(&map) };
    generation.map_err(BpfError::map("map into memory", maps::GENERATION))
}

/// Opens the pinned CONFIG map, whose shape has been checked.
#[expect(unsafe_code, reason = "a file descriptor becomes a typed map")]
pub(super) fn open_config(pins: &Pins) -> Result<ConfigMap, BpfError> {
    let map = open_map(pins, maps::CONFIG)?;
    // SAFETY: `shape::check_pinned` has seen these types.
    Ok(unsafe { RawMap::new(map, 1) })
}

/// Opens the pinned PLACEMENT map, whose shape has been checked.
#[expect(unsafe_code, reason = "a file descriptor becomes a typed map")]
pub(super) fn open_placement(pins: &Pins) -> Result<PlacementMap, BpfError> {
    let map = open_map(pins, maps::PLACEMENT)?;
    // SAFETY: `shape::check_pinned` has seen these types.
    Ok(unsafe { RawMap::new(map, 1) })
}

pub(super) fn read_placement(map: &PlacementMap) -> Result<Placement, BpfError> {
    let entry = map.lookup(&0).map_err(BpfError::map("read", maps::PLACEMENT))?;
    Ok(entry.and_then(|values| values.first().copied()).unwrap_or_default())
}

/// As with CONFIG, a new generation begins with it.
pub(super) fn write_placement(map: &PlacementMap, placement: Placement) -> Result<(), BpfError> {
    map.write(&0, &[placement], false).map_err(BpfError::map("write to", maps::PLACEMENT))
}

pub(super) fn read_config(map: &ConfigMap) -> Result<Config, BpfError> {
    let entry = map.lookup(&0).map_err(BpfError::map("read", maps::CONFIG))?;
    Ok(entry.and_then(|values| values.first().copied()).unwrap_or_default())
}

/// The programs keep verdicts: who changes what they judge by also begins a new generation.
pub(super) fn write_config(map: &ConfigMap, config: Config) -> Result<(), BpfError> {
    map.write(&0, &[config], false).map_err(BpfError::map("write to", maps::CONFIG))
}

/// Opens every other table; their shapes have been checked.
#[expect(unsafe_code, reason = "file descriptors become typed maps")]
pub(super) fn open_tables(
    pins: &Pins,
    capacities: &Capacities,
    generation: &Generation,
) -> Result<super::Tables, BpfError> {
    let cpus =
        aya::util::nr_cpus().map_err(|(path, source)| BpfError::file("read", path)(source))?;
    let Capacities { members, addresses, prefixes, allowed, counters } = *capacities;
    let open = |map| open_map(pins, map);
    let grace_period = GracePeriod::new().map_err(BpfError::map("make for", maps::CELLS))?;
    Ok(super::Tables {
        // SAFETY: `shape::check_pinned` has seen these types; so below.
        members: unsafe { Table::new(maps::MEMBERS, members, generation, open(maps::MEMBERS)?) },
        // SAFETY: as above.
        addresses: unsafe {
            Table::new(maps::ADDRESSES, addresses, generation, open(maps::ADDRESSES)?)
        },
        // SAFETY: as above.
        prefixes: unsafe {
            Table::new(maps::PREFIXES, prefixes, generation, open(maps::PREFIXES)?)
        },
        // SAFETY: as above.
        allowed: unsafe { Table::new(maps::ALLOWED, allowed, generation, open(maps::ALLOWED)?) },
        // SAFETY: as above; `cpus` is the number of possible CPUs.
        counters: unsafe {
            let both = [open(maps::SLOTS)?, open(maps::CELLS)?];
            super::CounterTable::new(counters, cpus, generation, grace_period, both)
        },
    })
}
