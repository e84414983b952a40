//! The ways in which usage is read.

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bulkhead_agent::kernel::bpf::usage::{Field, Level, Previous, UsageIterator};
use bulkhead_agent::kernel::cgroup::{CgroupTree, Sampler, parse};
use cgroupfs::CgroupReader;

use super::scene::{Readings, whole};

/// One way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The agent's sampler with the iterator, every field.
    Sampler,
    /// The agent's sampler from files alone, every field.
    FilesAll,
    /// The crate, the same fields as far as it knows them.
    CrateAll,
    /// The iterator, CPU times alone.
    IteratorCpu,
    /// cpu.stat kept open.
    FilesCpu,
    /// The crate's cpu.stat.
    CrateCpu,
}

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::Sampler,
        Self::FilesAll,
        Self::CrateAll,
        Self::IteratorCpu,
        Self::FilesCpu,
        Self::CrateCpu,
    ];

    /// How many passes are measured at once.
    pub(super) const fn passes(self) -> u32 {
        match self {
            Self::Sampler => 10,
            Self::IteratorCpu => 40,
            Self::FilesAll | Self::FilesCpu | Self::CrateCpu => 4,
            Self::CrateAll => 2,
        }
    }
}

/// Everything that is kept from pass to pass.
pub(super) struct Ways {
    sampler: Sampler,
    files: Sampler,
    iterator: UsageIterator,
    /// In the order in which the iterator tells, which stays: no cgroup comes or goes.
    previous: Vec<Previous>,
    cpu_stats: Vec<(PathBuf, File)>,
    readers: Vec<CgroupReader>,
    reads: CrateReads,
    text: Vec<u8>,
}

/// Which of the crate's readers have something to read here.
#[derive(Clone, Copy)]
struct CrateReads {
    memory: bool,
    io: bool,
    pids: bool,
}

impl Ways {
    pub(super) fn open(object: &Path, tree: &CgroupTree) -> Result<Self> {
        let level = Level::Only(tree.virtual_cluster_level());
        let open = |fields: &[Field]| UsageIterator::open(object, tree.as_fd(), level, fields);
        let sampler = Sampler::new(open(&Field::ALL));
        ensure!(sampler.why_files().is_none(), "no iterator: {:?}", sampler.why_files());
        let names = tree.observe().context("list the cgroups")?.cgroups;
        let paths: Vec<PathBuf> =
            names.keys().map(|name| tree.path().join(name.as_str())).collect();
        let first = paths.first().context("there is a cgroup")?;
        let has = |file: &str| first.join(file).exists();
        let reads = CrateReads {
            memory: has("memory.current"),
            io: has("io.stat"),
            pids: has("pids.current"),
        };
        let cpu_stats = paths.iter().map(|path| {
            let path = path.join("cpu.stat");
            let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            Ok((path, file))
        });
        let readers = paths.iter().map(|path| {
            CgroupReader::new(path.clone()).with_context(|| format!("open {}", path.display()))
        });
        Ok(Self {
            sampler,
            files: Sampler::default(),
            iterator: open(&[Field::CpuTimes])?,
            previous: Vec::new(),
            cpu_stats: cpu_stats.collect::<Result<_>>()?,
            readers: readers.collect::<Result<_>>()?,
            reads,
            text: vec![0; 4_096],
        })
    }

    pub(super) fn describe(tree: &CgroupTree) -> String {
        let controllers = std::fs::read_to_string(tree.path().join("cgroup.subtree_control"));
        let controllers = controllers.unwrap_or_default();
        let controllers = controllers.trim();
        let controllers = if controllers.is_empty() { "none" } else { controllers };
        format!("controllers: {controllers}")
    }

    /// Reads every cgroup once.
    pub(super) fn pass(&mut self, way: Way, tree: &CgroupTree) -> Result<()> {
        match way {
            Way::Sampler => drop(black_box(self.sampler.sample(tree)?)),
            Way::FilesAll => drop(black_box(self.files.sample(tree)?)),
            Way::IteratorCpu => self.iterate()?,
            Way::FilesCpu => {
                for (path, file) in &self.cpu_stats {
                    let length = file.read_at(&mut self.text, 0)?;
                    let text = std::str::from_utf8(&self.text[..length])?;
                    let cpu = parse::cpu_stat(text);
                    black_box(cpu.with_context(|| format!("read {}", path.display()))?);
                }
            }
            Way::CrateCpu => {
                for reader in &self.readers {
                    black_box(reader.read_cpu_stat()?);
                }
            }
            Way::CrateAll => {
                for reader in &self.readers {
                    read_all(reader, self.reads)?;
                }
            }
        }
        Ok(())
    }

    fn iterate(&mut self) -> Result<()> {
        self.iterator.flush().context("flush")?;
        self.iterator.walk().context("walk")?;
        let told = self.iterator.told();
        self.previous.resize(told.len(), Previous::default());
        for (entry, previous) in told.iter().zip(&mut self.previous) {
            let cpu = self.iterator.cpu(entry, previous);
            black_box(cpu.context("somebody wrote while it was read")?);
        }
        Ok(())
    }

    pub(super) fn read_files(&mut self, tree: &CgroupTree) -> Result<Readings> {
        whole(self.files.sample(tree)?)
    }

    pub(super) fn read_sampler(&mut self, tree: &CgroupTree) -> Result<Readings> {
        whole(self.sampler.sample(tree)?)
    }

    /// Compares the CPU times that the iterator alone tells.
    pub(super) fn compare_cpu(&mut self, files: &Readings) -> Result<()> {
        self.iterate()?;
        for reading in files.values() {
            let mut told = self.iterator.told().iter().zip(&mut self.previous);
            let found = told.find(|(entry, _)| entry.id == reading.id.0);
            let (entry, previous) =
                found.with_context(|| format!("{:?} was not told of", reading.id))?;
            let told = self.iterator.cpu(entry, previous).context("it was being written")?;
            let expected = reading.counters.cpu.context("every cgroup has CPU times")?;
            let throttled = expected.throttled;
            let told = bulkhead_core::sample::CpuCounters { throttled, ..told };
            ensure!(told == expected, "{:?}: told {told:?}, file {expected:?}", reading.id);
        }
        Ok(())
    }
}

/// One kind of file after the other would be kinder, but this is how the crate is used.
fn read_all(reader: &CgroupReader, reads: CrateReads) -> Result<()> {
    black_box(reader.read_cpu_stat()?);
    black_box(reader.read_pressure()?);
    black_box(reader.read_cgroup_stat()?);
    if reads.memory {
        black_box(reader.read_memory_current()?);
        black_box(reader.read_memory_events()?);
    }
    if reads.io {
        black_box(reader.read_io_stat()?);
    }
    if reads.pids {
        black_box(reader.read_pids_current()?);
    }
    Ok(())
}
