//! Reading counters. Where the kernel can, an iterator tells most of them without a file
//! (`kernel::bpf::usage`); the rest comes from files that are kept open and read with pread(2), one
//! kind of file after the other (going from file to file within one cgroup is several times
//! slower on big hosts), and only where it can have changed.

mod files;
mod one;
mod refused;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use bulkhead_core::{CgroupCounters, CgroupId, VirtualClusterName};

use super::dir::{CgroupDir, system};
use super::error::{CgroupError, Operation};
use super::parse::Descendants;
use super::tree::{CgroupTree, unless_removed};
use super::whole::whole;
use crate::kernel::bpf::usage::{Field, NoIterator, UsageIterator};
use files::FILES;
use one::OpenCgroup;
use told::{Controllers, Telling};

const CONTROLLERS: &str = "cgroup.subtree_control";
const IO: &str = "io.stat";

/// Where the cgroups are of which counters are read.
pub trait Place {
    /// What they are known by.
    type Key: Ord + Clone;

    /// The directory that they are below.
    fn root(&self) -> &CgroupDir;

    /// The cgroups that are there now.
    fn list(&self) -> Result<Listing<Self::Key>, CgroupError>;
}

/// The cgroups of a place.
#[derive(Debug)]
pub struct Listing<K> {
    /// Those of which counters are read: what each is known by, and its path below the root.
    pub sampled: Vec<(K, String, CgroupId)>,
    /// All others of which the iterator may tell; `None`: it tells of more than anybody lists.
    pub others: Option<BTreeSet<CgroupId>>,
}

impl Place for CgroupTree {
    type Key = VirtualClusterName;

    fn root(&self) -> &CgroupDir {
        CgroupTree::root(self)
    }

    fn list(&self) -> Result<Listing<VirtualClusterName>, CgroupError> {
        let (mut sampled, mut others) = (Vec::new(), BTreeSet::new());
        for child in CgroupTree::root(self).children()? {
            match child.name.parse() {
                Ok(name) => sampled.push((name, child.name, child.id)),
                Err(_) => drop(others.insert(child.id)),
            }
        }
        Ok(Listing { sampled, others: Some(others) })
    }
}

/// One virtual cluster's, or pod's, counters, dead children included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CgroupReading {
    /// Its incarnation.
    pub id: CgroupId,
    /// What is counted there.
    pub counters: CgroupCounters,
    /// How many cgroups are below it.
    pub descendants: Descendants,
}

impl CgroupReading {
    fn nothing(id: CgroupId) -> Self {
        Self { id, counters: CgroupCounters::default(), descendants: Descendants::default() }
    }
}

/// One pass over all virtual clusters, or pods.
#[derive(Debug)]
pub struct SamplerPass<K = VirtualClusterName> {
    /// What was read.
    pub readings: BTreeMap<K, CgroupReading>,
    /// Those of which something could not be read: a gap in their coverage, never a zero.
    pub failed: BTreeMap<K, CgroupError>,
}

impl<K> Default for SamplerPass<K> {
    fn default() -> Self {
        Self { readings: BTreeMap::new(), failed: BTreeMap::new() }
    }
}

/// Where the counters come from.
#[derive(Debug)]
enum Source {
    /// The iterator, and files for what it does not tell.
    Iterator(Box<UsageIterator>),
    /// Files alone, for this reason.
    Files(String),
}

/// Reads the counters of every virtual cluster, or pod, pass after pass.
#[derive(Debug)]
pub struct Sampler<K = VirtualClusterName> {
    source: Source,
    open: BTreeMap<CgroupId, OpenCgroup<K>>,
    /// Directories that are no virtual clusters; `None`: they are not known.
    others: Option<BTreeSet<CgroupId>>,
    root: Root,
    buffer: Vec<u8>,
}

/// What is kept of the root.
#[derive(Debug, Default)]
struct Root {
    controllers_file: Option<File>,
    io_file: Option<File>,
    controllers: String,
    /// io.stat in the pass before: while it stays, nothing below did any I/O.
    io: Vec<u8>,
}

/// From files alone.
impl<K: Ord + Clone> Default for Sampler<K> {
    fn default() -> Self {
        Self::new(Err(NoIterator("nobody asked for the cgroup iterator".to_owned())))
    }
}

impl<K: Ord + Clone> Sampler<K> {
    /// Uses the iterator, or files alone where there is none.
    pub fn new(iterator: Result<UsageIterator, NoIterator>) -> Self {
        let source = match iterator {
            Ok(iterator) => Source::Iterator(Box::new(iterator)),
            Err(why) => Source::Files(why.to_string()),
        };
        let (open, others) = (BTreeMap::new(), None);
        Self { source, open, others, root: Root::default(), buffer: Vec::new() }
    }

    /// Why only files are read; `None`: the iterator is used.
    pub fn why_files(&self) -> Option<&str> {
        match &self.source {
            Source::Iterator(_) => None,
            Source::Files(why) => Some(why),
        }
    }

    /// What the iterator does not tell, and why.
    pub fn missing(&self) -> &[(Field, String)] {
        match &self.source {
            Source::Iterator(iterator) => iterator.missing(),
            Source::Files(_) => &[],
        }
    }

    /// The iterator, if it is used.
    pub fn iterator(&mut self) -> Option<&mut UsageIterator> {
        match &mut self.source {
            Source::Iterator(iterator) => Some(iterator),
            Source::Files(_) => None,
        }
    }

    /// Reads the counters of every cgroup of the place. What is removed meanwhile is left out.
    pub fn sample(&mut self, place: &impl Place<Key = K>) -> Result<SamplerPass<K>, CgroupError> {
        let mut pass = SamplerPass::default();
        let io_stands = self.read_root(place.root())?;
        if let Err(error) = self.walk() {
            let why = format!("the cgroup iterator failed: {error}");
            tracing::warn!(why, "usage is read from files from now on");
            self.source = Source::Files(why);
        }
        if !self.knows_all() {
            self.reopen(place, &mut pass)?;
        }
        self.take_told();
        self.read_files(io_stands);
        for cgroup in self.open.values_mut() {
            cgroup.conclude(&mut pass, &mut self.buffer);
        }
        Ok(pass)
    }

    /// Reads what the root says for all: which controllers its children have, and whether
    /// anything below did I/O since the pass before.
    fn read_root(&mut self, root: &CgroupDir) -> Result<bool, CgroupError> {
        let Root { controllers_file, io_file, controllers, io } = &mut self.root;
        if controllers_file.is_none() {
            *controllers_file = root.open_file(CONTROLLERS)?;
        }
        let text = read_root_file(root, CONTROLLERS, controllers_file.as_ref(), &mut self.buffer)?;
        if text != controllers.as_bytes() {
            *controllers = String::from_utf8_lossy(text).into_owned();
            self.open.clear();
            *io_file = None;
        }
        if !Controllers::of(controllers).io {
            return Ok(false);
        }
        if io_file.is_none() {
            *io_file = root.open_file(IO)?;
        }
        if io_file.is_none() {
            return Ok(false);
        }
        let text = read_root_file(root, IO, io_file.as_ref(), &mut self.buffer)?;
        let stands = text == io.as_slice();
        if !stands {
            text.clone_into(io);
        }
        Ok(stands)
    }

    /// Lets the iterator tell, after everything that it copies was brought up to date.
    fn walk(&mut self) -> std::io::Result<()> {
        let Source::Iterator(iterator) = &mut self.source else {
            return Ok(());
        };
        if iterator.tells(Field::Pressure) {
            for cgroup in self.open.values_mut() {
                cgroup.refresh_pressure(&mut self.buffer);
            }
        }
        iterator.flush()?;
        iterator.walk()
    }

    /// Whether the walk saw exactly the cgroups that are known.
    fn knows_all(&self) -> bool {
        let (Source::Iterator(iterator), Some(others)) = (&self.source, &self.others) else {
            return false;
        };
        let told = iterator.told();
        let known = |id| self.open.contains_key(&id) || others.contains(&id);
        told.len() == self.open.len() + others.len()
            && told.iter().all(|entry| known(CgroupId(entry.id)))
    }

    /// Opens what is new; closes what is gone.
    fn reopen(
        &mut self,
        place: &impl Place<Key = K>,
        pass: &mut SamplerPass<K>,
    ) -> Result<(), CgroupError> {
        let mut before = std::mem::take(&mut self.open);
        let listing = place.list()?;
        self.others = listing.others;
        for (key, path, id) in listing.sampled {
            let cgroup = match before.remove(&id) {
                Some(cgroup) if cgroup.is_known_by(&key) => Some(cgroup),
                _ => match unless_removed(OpenCgroup::open(place.root(), &path, &key)) {
                    Ok(opened) => opened,
                    Err(error) => {
                        pass.failed.insert(key, error);
                        None
                    }
                },
            };
            self.open.extend(cgroup.map(|cgroup| (cgroup.id(), cgroup)));
        }
        Ok(())
    }

    /// Takes in what the iterator told; what it did not, files must.
    fn take_told(&mut self) {
        for cgroup in self.open.values_mut() {
            cgroup.begin();
        }
        let Source::Iterator(iterator) = &self.source else {
            return;
        };
        let telling = Telling::new(iterator, Controllers::of(&self.root.controllers));
        for entry in iterator.told() {
            if let Some(cgroup) = self.open.get_mut(&CgroupId(entry.id)) {
                cgroup.take_told(&telling, entry);
            }
        }
    }

    fn read_files(&mut self, io_stands: bool) {
        for index in 0..FILES.len() {
            for cgroup in self.open.values_mut() {
                cgroup.read(index, io_stands, &mut self.buffer);
            }
        }
    }
}

fn read_root_file<'b>(
    root: &CgroupDir,
    name: &str,
    file: Option<&File>,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8], CgroupError> {
    let failed = |errno| system(Operation::Read, &root.path().join(name), errno);
    whole(file.ok_or_else(|| failed(nix::errno::Errno::ENOENT))?, buffer).map_err(failed)
}
