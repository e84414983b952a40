//! Agents of other versions: what they left beside our pins, and what we take over of it.
//!
//! Links go on with our programs ([`super::links`]). Maps of the shape that we would make are
//! pinned a second time, so that both versions have the same tables and counters. Counters of
//! another shape are made anew, with an epoch of their own; what the other version has counted is
//! read until its last value is in the journal, and only then forgotten.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use bulkhead_abi::{Config, Counters, maps};

use super::counters;
use super::error::BpfError;
use super::links::{self, Root};
use super::load;
use super::pins::{self, Pins};
use super::shape::{self, Capacities, MapShape};
use super::sys;

/// What another version has counted, and counts no more once its programs are replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// Its ABI version.
    pub version: u32,
    /// Whether programs of it still count.
    pub is_linked: bool,
    /// When its counters began at zero: nanoseconds since the Unix epoch.
    pub epoch: u64,
    /// Each cgroup's counters, added over CPUs, as far as this version knows them: a later one
    /// only ever appends to [`Counters`].
    pub counters: Vec<(u64, Counters)>,
}

/// The directories of other versions, the newest first.
pub(super) fn others(own: &Pins) -> Result<Vec<(u32, Pins)>, BpfError> {
    let Some(bpffs) = own.dir.parent() else {
        return Ok(Vec::new());
    };
    let mut others = Vec::new();
    for dir in pins::existing_children(bpffs)? {
        if let Some(version) = pins::version(&dir)
            && dir != own.dir
        {
            others.push((version, Pins::new(&dir)?));
        }
    }
    others.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    Ok(others)
}

/// Ends a take-over of ours that was cut short: programs of another version run at the root, none
/// of ours do, and of our maps only some are there. Which of them are ours alone, and which the
/// other version still counts in, nobody can say; so their pins are removed. Says whether it did.
pub(super) fn end_cut_short(
    own: &Pins,
    root: &Root,
    there: &[&'static str],
) -> Result<bool, BpfError> {
    let is_whole = there.is_empty() || there.len() == maps::ALL.len();
    if is_whole || links::any_linked(&own.links, root) {
        return Ok(false);
    }
    let judges = |(_, pins): &(u32, Pins)| links::any_linked(&pins.links, root);
    if !others(own)?.iter().any(judges) {
        return Ok(false);
    }
    for map in there {
        let path = own.maps.join(map);
        fs::remove_file(&path).map_err(BpfError::file("remove pin", path))?;
    }
    Ok(true)
}

/// Pins maps of the version that judges now a second time for us: those that are not `there`
/// and are of the shape that we want. Returns which.
pub(super) fn carry_over(
    own: &Pins,
    root: &Root,
    capacities: &Capacities,
    there: &[&'static str],
) -> Result<Vec<&'static str>, BpfError> {
    let others = others(own)?;
    let judges = others.iter().find(|(_, pins)| links::any_linked(&pins.links, root));
    let Some((_, from)) = judges else {
        return Ok(Vec::new());
    };
    let mut fitting = Vec::new();
    for (map, wanted) in shape::wanted(capacities) {
        let path = from.maps.join(map);
        if !there.contains(&map) && path.exists() {
            let pinned = MapShape::pinned(&path);
            if pinned.map_err(BpfError::file("open pinned map", &path))? == wanted {
                fitting.push(map);
            }
        }
    }
    // Programs that still judge by tables which we change must be told of it.
    if from.maps.join(maps::GENERATION).exists() && !fitting.contains(&maps::GENERATION) {
        return Ok(Vec::new());
    }
    // The epoch in CONFIG is that of CELLS, and SLOTS says whose they are.
    let together = [maps::CONFIG, maps::SLOTS, maps::CELLS];
    if !together.iter().all(|map| fitting.contains(map)) {
        fitting.retain(|map| !together.contains(map));
    }
    for (at, map) in fitting.iter().enumerate() {
        if let Err(error) = pin_again(from, own, map) {
            load::unpin(own, &fitting[..at]);
            return Err(error);
        }
    }
    Ok(fitting)
}

fn pin_again(from: &Pins, own: &Pins, map: &str) -> Result<(), BpfError> {
    let to = own.maps.join(map);
    let fd = load::open_map(from, map)?;
    sys::pin(fd.as_fd(), &to).map_err(BpfError::file("pin map of another version", to))
}

/// The keys of the counters of the version that judges now: what it counts, we must count from
/// our first packet on.
pub(super) fn counted(own: &Pins, root: &Root) -> Result<Vec<u64>, BpfError> {
    let mut ids = Vec::new();
    for (_, pins) in others(own)? {
        if links::any_linked(&pins.links, root) && counters_of(&pins).is_some() {
            ids.extend(read_counters(&pins)?.into_iter().map(|(id, _)| id));
        }
    }
    Ok(ids)
}

/// What other versions have counted in maps that are not ours, too.
pub(super) fn foreign(own: &Pins, root: &Root) -> Result<Vec<Foreign>, BpfError> {
    let mut foreign = Vec::new();
    for (version, pins) in others(own)? {
        if !has_counters_of_its_own(own, &pins)? {
            continue;
        }
        // Before the counters are read: what is off then has counted its last.
        let is_linked = links::any_linked(&pins.links, root);
        let epoch = epoch(&pins)?;
        foreign.push(Foreign { version, is_linked, epoch, counters: read_counters(&pins)? });
    }
    Ok(foreign)
}

/// Takes off what is still attached of other versions; removes the pins of those that have
/// counted in our maps, or nowhere.
pub(super) fn take_off(own: &Pins) -> Result<Vec<PathBuf>, BpfError> {
    let mut taken_off = Vec::new();
    for (_, pins) in others(own)? {
        for link in pins::existing_children(&pins.links)? {
            super::detach::detach_link(&link).map_err(BpfError::file("detach", &link))?;
            taken_off.push(link);
        }
        if !has_counters_of_its_own(own, &pins)? {
            remove(&pins)?;
        }
    }
    Ok(taken_off)
}

/// Removes the pins of a version whose last counts are in the journal.
pub(super) fn forget(own: &Pins, version: u32) -> Result<(), BpfError> {
    let others = others(own)?;
    let found = others.into_iter().find(|(other, _)| *other == version);
    found.map_or(Ok(()), |(_, pins)| remove(&pins))
}

fn remove(pins: &Pins) -> Result<(), BpfError> {
    for map in pins::existing_children(&pins.maps)? {
        fs::remove_file(&map).map_err(BpfError::file("remove pin", &map))?;
    }
    for dir in [&pins.maps, &pins.links, &pins.dir] {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(BpfError::file("remove directory", dir))?,
        }
    }
    Ok(())
}

fn has_counters_of_its_own(own: &Pins, other: &Pins) -> Result<bool, BpfError> {
    let Some(theirs) = counters_of(other) else {
        return Ok(false);
    };
    let theirs = map_info(&other.maps.join(theirs))?.id();
    Ok(theirs != map_info(&own.maps.join(maps::CELLS))?.id())
}

/// The name of the map that a version counts in. `None`: it has none yet, or never got as far as
/// to count in it, because it has no epoch.
fn counters_of(pins: &Pins) -> Option<&'static str> {
    let there = |map: &&str| pins.maps.join(map).exists();
    let counters = [maps::CELLS, maps::COUNTERS_UP_TO_2].into_iter().find(there);
    counters.filter(|_| there(&maps::CONFIG))
}

fn map_info(path: &Path) -> Result<MapInfo, BpfError> {
    let info = MapInfo::from_pin(path).map_err(io::Error::other);
    info.map_err(BpfError::file("ask about map", path))
}

fn read_counters(pins: &Pins) -> Result<Vec<(u64, Counters)>, BpfError> {
    let any =
        |map| Ok::<_, BpfError>((map_info(&pins.maps.join(map))?, load::open_map(pins, map)?));
    let Some(counters) = counters_of(pins) else {
        return Ok(Vec::new());
    };
    let has_slots = counters == maps::CELLS && pins.maps.join(maps::SLOTS).exists();
    let slots = has_slots.then(|| any(maps::SLOTS)).transpose()?;
    let read = counters::read_any(any(counters)?, slots);
    read.map_err(BpfError::file("read counters of", pins.maps.join(counters)))
}

fn epoch(pins: &Pins) -> Result<u64, BpfError> {
    let path = pins.maps.join(maps::CONFIG);
    if map_info(&path)?.value_size() as usize != size_of::<Config>() {
        let what = "CONFIG of another version has another size".to_owned();
        return Err(BpfError::file("read", path)(io::Error::other(what)));
    }
    load::read_config(&load::open_config(pins)?).map(|config| config.epoch)
}
