//! Seeing what stands, turn after turn, without reading what cannot have changed.
//!
//! The iterator shows the words in which the kernel keeps most controls: while they stay, so do the
//! control files, whoever might write them and by whichever mount. Controls that it does not show
//! are read from files that are kept open. Besides, every turn some virtual clusters are read as
//! if nothing were known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use bulkhead_abi::{CONTROLS, CgroupUsage};
use bulkhead_core::{CgroupId, Control, ObservedCgroup, VirtualClusterName};
use nix::errno::Errno;

use super::dir::{CgroupDir, system};
use super::error::{CgroupError, Operation, ShapeError};
use super::leaves::Leaf;
use super::tree::{CgroupTree, HOLDER, TreeObservation, unless_removed};
use super::whole::whole;
use crate::kernel::bpf::usage::{Field, UsageIterator};

/// Every virtual cluster is read as if nothing were known of it once in so many turns.
const TURNS: u64 = 60;
/// Controls whose words the iterator does not show.
const IN_FILES: [Control; 2] = [Control::IoWeight, Control::IoMax];

/// Remembers what was read, and what would show that it changed.
#[derive(Debug, Default)]
pub struct Observer {
    known: BTreeMap<CgroupId, Known>,
    /// Directories below the root that are no virtual clusters, and the names of those that are
    /// not ours either.
    others: BTreeSet<CgroupId>,
    unknown: Vec<String>,
    /// `cgroup.subtree_control`
    controllers: Vec<u8>,
    turn: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    name: VirtualClusterName,
    dir: CgroupDir,
    files: Vec<OpenControl>,
    seen: ObservedCgroup,
    leaves: Vec<Leaf>,
    /// What the iterator showed before it was read; `None`: it is to be read in any case.
    signs: Option<Signs>,
}

/// A control file that is kept open.
#[derive(Debug)]
struct OpenControl {
    control: Control,
    file: File,
    /// What was read last, if its value is the one that is known.
    text: Option<Vec<u8>>,
}

/// What shows a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Signs {
    controls: [u64; CONTROLS],
    present: u32,
    descendants: u32,
    empty_children: u32,
    empty_children_mark: u32,
}

impl Signs {
    const fn of(entry: &CgroupUsage) -> Self {
        Self {
            controls: entry.controls,
            present: entry.present,
            descendants: entry.descendants,
            empty_children: entry.empty_children,
            empty_children_mark: entry.empty_children_mark,
        }
    }
}

impl Observer {
    /// Gives what [`CgroupTree::observe`] gives; of leaves with processes, it may not know which
    /// have some.
    pub fn observe(
        &mut self,
        tree: &CgroupTree,
        iterator: Option<&mut UsageIterator>,
    ) -> Result<TreeObservation, CgroupError> {
        let shows = |iterator: &&mut UsageIterator| {
            iterator.tells(Field::Controls)
                && iterator.tells(Field::Populated)
                && iterator.tells(Field::Descendants)
        };
        let Some(iterator) = iterator.filter(shows) else {
            return tree.observe();
        };
        if let Err(error) = iterator.walk() {
            tracing::debug!(%error, "everything is read from files in this turn");
            return tree.observe();
        }
        self.turn += 1;
        let told = iterator.told();
        let controllers = tree.root().read("cgroup.subtree_control")?;
        if controllers.as_bytes() != self.controllers || !self.knows_exactly(told) {
            self.controllers = controllers.into_bytes();
            self.list(tree)?;
        }
        for entry in told {
            let (id, due) = (CgroupId(entry.id), (entry.id + self.turn).is_multiple_of(TURNS));
            let Some(known) = self.known.get_mut(&id) else { continue };
            if unless_removed(known.look(tree, entry, due, &mut self.buffer))?.is_none() {
                self.known.remove(&id);
            }
        }
        Ok(self.concluded())
    }

    fn knows_exactly(&self, told: &[CgroupUsage]) -> bool {
        let known = |id| self.known.contains_key(&id) || self.others.contains(&id);
        told.len() == self.known.len() + self.others.len()
            && told.iter().all(|entry| known(CgroupId(entry.id)))
    }

    /// Lists the root and begins anew.
    fn list(&mut self, tree: &CgroupTree) -> Result<(), CgroupError> {
        self.known.clear();
        self.others.clear();
        self.unknown.clear();
        for child in tree.root().children()? {
            let Ok(name) = child.name.parse::<VirtualClusterName>() else {
                self.others.insert(child.id);
                if child.name != HOLDER {
                    self.unknown.push(child.name);
                }
                continue;
            };
            if let Some(known) = unless_removed(Known::open(tree, name))? {
                self.known.insert(known.seen.id, known);
            }
        }
        Ok(())
    }

    fn concluded(&self) -> TreeObservation {
        let known = self.known.values();
        let cgroups = known.clone().map(|known| (known.name.clone(), known.seen.clone()));
        let leaves = known.map(|known| (known.name.clone(), known.leaves.clone()));
        let unknown = self.unknown.clone();
        TreeObservation { cgroups: cgroups.collect(), leaves: leaves.collect(), unknown }
    }
}

impl Known {
    fn open(tree: &CgroupTree, name: VirtualClusterName) -> Result<Self, CgroupError> {
        let dir = tree.virtual_cluster(&name)?;
        let (seen, leaves) = tree.observe_one(&name)?;
        let mut files = Vec::new();
        for control in IN_FILES {
            let file = dir.open_file(control.file())?;
            files.extend(file.map(|file| OpenControl { control, file, text: None }));
        }
        Ok(Self { name, dir, files, seen, leaves, signs: None })
    }

    /// Takes in what the iterator shows, and reads what can have changed.
    fn look(
        &mut self,
        tree: &CgroupTree,
        entry: &CgroupUsage,
        due: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<(), CgroupError> {
        let signs = Signs::of(entry);
        let failed = entry.present & CgroupUsage::FAILED != 0;
        if due || failed || self.signs != Some(signs) {
            // The signs are older than what is read now: a change in between shows next time.
            self.signs = None;
            (self.seen, self.leaves) = tree.observe_one(&self.name)?;
            self.files.iter_mut().for_each(|open| open.text = None);
            self.signs = (!failed).then_some(signs);
        } else {
            self.seen.populated = entry.populated != 0;
        }
        self.read_files(buffer)
    }

    fn read_files(&mut self, buffer: &mut Vec<u8>) -> Result<(), CgroupError> {
        for OpenControl { control, file, text } in &mut self.files {
            let path = || self.dir.path().join(control.file());
            let failed = |errno| system(Operation::Read, &path(), errno);
            let read = whole(file, buffer).map_err(failed)?;
            if text.as_deref() == Some(read) {
                continue;
            }
            let parsed = std::str::from_utf8(read).map_err(|_| failed(Errno::EILSEQ))?;
            let value = control.parse(parsed).map_err(|source| CgroupError::Shape {
                path: path(),
                source: ShapeError::Control(source),
            })?;
            self.seen.controls.insert(*control, value);
            *text = Some(read.to_vec());
        }
        Ok(())
    }
}
