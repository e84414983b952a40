//! The kernel programs and their tables: the only code of the agent that calls bpf(2).
//!
//! Links and maps are pinned, so that judging and counting go on while the agent does not run.
//! [`Bpf::open`] takes over what is there, or makes it; [`Bpf::attach_all`] puts the programs to
//! work, once the tables are filled; [`detach`] takes everything off.

mod counters;
mod detach;
mod error;
mod generation;
mod grace;
mod links;
mod load;
mod object;
mod pins;
mod raw_map;
mod shape;
mod sys;
mod table;
pub mod usage;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bulkhead_abi::{
    ABI_VERSION, Address, AllowKey, Config, FarEnd, Member, Placement, Prefix, maps,
};

pub use counters::CounterTable;
pub use detach::{Detached, detach};
pub use error::BpfError;
pub use links::Attached;
pub use shape::{Capacities, MapShape};
pub use table::Table;
pub use versions::Foreign;

use generation::Generation;
use links::{Loaded, Root};
use pins::Pins;

/// What [`Bpf::open`] needs to know.
#[derive(Clone, Debug)]
pub struct BpfOptions {
    /// The object that `cargo xtask build-ebpf` makes.
    pub object: PathBuf,
    /// Where links and maps are pinned: `<bpffs>/v<ABI version>`.
    pub pin_dir: PathBuf,
    /// The root of the hierarchy, where the programs are attached.
    pub cgroup_root: PathBuf,
    /// Depth of a virtual cluster's cgroup below the cgroup v2 mount (the mount itself is 0).
    pub ancestor_level: u32,
    /// Another depth at which a cgroup can be a virtual cluster's; 0: there is none, and cgroups
    /// of nobody are dropped.
    pub upper_level: u32,
    /// How many entries the tables can hold.
    pub capacities: Capacities,
    /// When the counters begin at zero, if they are new: nanoseconds since the Unix epoch.
    pub epoch_if_new: u64,
}

/// What [`Bpf::open`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Maps that were there, with what they hold.
    pub taken_over: Vec<&'static str>,
    /// Maps of an agent of another version, with what they hold; it has them, too.
    pub carried_over: Vec<&'static str>,
    /// Maps that were made, empty.
    pub created: Vec<&'static str>,
    /// When the counters began at zero: nanoseconds since the Unix epoch.
    pub epoch: u64,
}

/// The loaded programs and the tables that they use.
#[derive(Debug)]
pub struct Bpf {
    pins: Pins,
    root: Root,
    ancestor_level: u32,
    upper_level: u32,
    epoch: u64,
    loaded: Vec<Loaded>,
    config: load::ConfigMap,
    placement: load::PlacementMap,
    generation: Generation,
    tables: Tables,
}

/// What the programs look things up in, and what they count in.
#[derive(Debug)]
pub struct Tables {
    /// Which cgroup is which virtual cluster.
    pub members: Table<u64, Member>,
    /// Exact addresses.
    pub addresses: Table<Address, FarEnd>,
    /// Prefixes.
    pub prefixes: Table<Prefix, FarEnd>,
    /// Pairs of virtual clusters that may talk.
    pub allowed: Table<AllowKey, u32>,
    /// What each cgroup sent and received.
    pub counters: CounterTable,
}

impl Bpf {
    /// Loads the programs and opens their tables: pinned ones with what they hold, missing ones
    /// empty. Nothing is attached and nothing that is attached changes. After an error
    /// everything stands as before.
    pub fn open(options: &BpfOptions) -> Result<(Self, Opened), BpfError> {
        let object = object::read(&options.object)?;
        let pins = Pins::new(&options.pin_dir)?;
        let root = load::open_root(&options.cgroup_root)?;
        let mut taken_over = shape::check_pinned(&pins.maps, &options.capacities)?;
        if versions::end_cut_short(&pins, &root, &taken_over)? {
            taken_over.clear();
        }
        pins.create_dirs()?;
        let carried_over = versions::carry_over(&pins, &root, &options.capacities, &taken_over)?;
        // Both are unpinned after a failure.
        let new: Vec<_> = maps::ALL.into_iter().filter(|map| !taken_over.contains(map)).collect();
        let created: Vec<_> =
            new.iter().copied().filter(|map| !carried_over.contains(map)).collect();
        let begins_anew = |map| created.contains(map);
        if [maps::SLOTS, maps::CELLS].iter().any(begins_anew) && taken_over.contains(&maps::CONFIG)
        {
            // New counters must not carry an old epoch, even if we die on the way.
            let config = load::open_config(&pins)?;
            load::write_config(&config, Config { epoch: 0, ..load::read_config(&config)? })?;
        }
        let opened = load::load(options, &pins, &object)
            .and_then(|loaded| Self::assemble(options, pins.clone(), root, loaded))
            .and_then(|bpf| {
                bpf.count_what_others_count()?;
                Ok(bpf)
            });
        match opened {
            Ok(bpf) => {
                let epoch = bpf.epoch;
                Ok((bpf, Opened { taken_over, carried_over, created, epoch }))
            }
            Err(error) => {
                load::unpin(&pins, &new);
                Err(error)
            }
        }
    }

    /// Puts the programs to work, to be called when the tables are filled. Links that are there
    /// go on with our programs, without a gap; missing ones are made. After an error the links
    /// stand as before. Called again, it mends what is no longer attached.
    pub fn attach_all(&self) -> Result<Attached, BpfError> {
        let before = load::read_config(&self.config)?;
        // The programs judge from their first packet on.
        let (abi_version, ancestor_level) = (ABI_VERSION, self.ancestor_level);
        let ready = Config { abi_version, ancestor_level, epoch: self.epoch };
        let placement = self.place(load::read_placement(&self.placement)?);
        if before != ready || !self.is_placed()? {
            let _changing = self.generation.change();
            load::write_placement(&self.placement, placement)?;
            load::write_config(&self.config, ready)?;
        }
        links::attach_all(&self.pins.links, &self.other_links()?, &self.root, &self.loaded)
            .or_else(|error| self.configure(before).and(Err(error)))
    }

    /// What programs of another version count, ours must count from their first packet on. What
    /// finds no room is not counted once they are ours, and coverage says so.
    fn count_what_others_count(&self) -> Result<(), BpfError> {
        for cgroup in versions::counted(&self.pins, &self.root)? {
            match self.tables.counters.create(cgroup) {
                Err(full @ BpfError::TableFull { .. }) => {
                    tracing::warn!(cgroup, error = %full, "the version before counts what we cannot");
                }
                done => done.map(drop)?,
            }
        }
        Ok(())
    }

    fn configure(&self, config: Config) -> Result<(), BpfError> {
        let _changing = self.generation.change();
        load::write_config(&self.config, config)
    }

    /// Where other versions pin their links.
    fn other_links(&self) -> Result<Vec<PathBuf>, BpfError> {
        let others = versions::others(&self.pins)?;
        Ok(others.into_iter().map(|(_, pins)| pins.links).collect())
    }

    /// Whether each program is attached, as the kernel has it now.
    pub fn attached(&self) -> Result<BTreeMap<&'static str, bool>, BpfError> {
        self.loaded
            .iter()
            .map(|program| {
                let attached = links::is_attached(&self.pins.links, &self.root, program)?;
                Ok((program.name, attached))
            })
            .collect()
    }

    /// Whether CONFIG holds what the programs need to judge: our version, level and epoch.
    pub fn configured(&self) -> Result<bool, BpfError> {
        let (abi_version, ancestor_level) = (ABI_VERSION, self.ancestor_level);
        let ready = Config { abi_version, ancestor_level, epoch: self.epoch };
        Ok(load::read_config(&self.config)? == ready && self.is_placed()?)
    }

    /// PLACEMENT as it has to be; below our own root, what is nobody's is dropped.
    fn place(&self, now: Placement) -> Placement {
        let unknown = if self.upper_level == 0 { Placement::DROP } else { now.unknown };
        Placement { upper_level: self.upper_level, unknown }
    }

    fn is_placed(&self) -> Result<bool, BpfError> {
        let now = load::read_placement(&self.placement)?;
        Ok(now == self.place(now))
    }

    /// What the programs do with cgroups of nobody: [`Placement::DROP`] or [`Placement::PASS`].
    pub fn unknown(&self) -> Result<u32, BpfError> {
        Ok(load::read_placement(&self.placement)?.unknown)
    }

    /// Says what the programs do with cgroups of nobody.
    pub fn set_unknown(&self, unknown: u32) -> Result<(), BpfError> {
        let placement = load::read_placement(&self.placement)?;
        let _changing = self.generation.change();
        load::write_placement(&self.placement, Placement { unknown, ..placement })
    }

    /// Whether some version of every program runs at our root: from the links' first attachment
    /// on, also while those of the agent before are not replaced yet.
    pub fn is_linked(&self) -> Result<bool, BpfError> {
        let others = self.other_links()?;
        for program in &self.loaded {
            if !links::is_linked(&self.pins.links, &others, &self.root, program)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether every table still has its pin: without, another agent could not take it over.
    pub fn is_pinned(&self) -> bool {
        maps::ALL.iter().all(|map| self.pins.maps.join(map).exists())
    }

    /// Takes off what agents of another version have left attached beside ours, to be called
    /// when ours are; says what. Their pins go, too, but for counters that we do not share.
    pub fn detach_other_versions(&self) -> Result<Vec<PathBuf>, BpfError> {
        versions::take_off(&self.pins)
    }

    /// What agents of other versions have counted in maps that we do not share.
    pub fn foreign(&self) -> Result<Vec<Foreign>, BpfError> {
        versions::foreign(&self.pins, &self.root)
    }

    /// Removes the pins of a version whose last counts are in the journal.
    pub fn forget(&self, version: u32) -> Result<(), BpfError> {
        versions::forget(&self.pins, version)
    }

    /// What the programs look things up in, and what they count in.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// When the counters began at zero: nanoseconds since the Unix epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn assemble(
        options: &BpfOptions,
        pins: Pins,
        root: Root,
        loaded: Vec<Loaded>,
    ) -> Result<Self, BpfError> {
        let config = load::open_config(&pins)?;
        let mut held = load::read_config(&config)?;
        if held.epoch == 0 {
            held.epoch = options.epoch_if_new;
            load::write_config(&config, held)?;
        }
        let generation = load::open_generation(&pins)?;
        Ok(Self {
            tables: load::open_tables(&pins, &options.capacities, &generation)?,
            generation,
            ancestor_level: options.ancestor_level,
            upper_level: options.upper_level,
            placement: load::open_placement(&pins)?,
            epoch: held.epoch,
            config,
            loaded,
            root,
            pins,
        })
    }
}
