//! Objects as Kubernetes holds them: one that is wrong does not stop the others.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{AddressBlock, VirtualClusterName};
use kube::ResourceExt;

use super::define::{self, Config};
use super::{Catalogue, Definition, conflicts, warnings};
use crate::document::{Document, Object};
use crate::object::{BulkheadConfig, VirtualCluster, VirtualClusterClass};
use crate::problem::Problem;
use crate::rules;

/// The name that the one BulkheadConfig has.
pub const CONFIG: &str = "default";

/// Where these objects come from, as problems and operators name it.
const SOURCE: &str = "Kubernetes";

/// All objects, by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Objects {
    /// Virtual clusters.
    pub virtual_clusters: BTreeMap<String, VirtualCluster>,
    /// Their classes.
    pub classes: BTreeMap<String, VirtualClusterClass>,
    /// What holds for the whole installation; one has the right name.
    pub configs: BTreeMap<String, BulkheadConfig>,
}

/// An object that something is said about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A virtual cluster of this name.
    VirtualCluster(String),
    /// A class of this name.
    VirtualClusterClass(String),
    /// A configuration of this name.
    BulkheadConfig(String),
}

/// Addresses that two virtual clusters name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Overlap {
    /// Who has them: the older object.
    pub keeper: VirtualClusterName,
    /// What it names.
    pub kept: AddressBlock,
    /// Who names them, too.
    pub loser: VirtualClusterName,
    /// What it names, and is left out.
    pub lost: AddressBlock,
}

/// What stands, of objects that Kubernetes holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Standing {
    /// What agents are told.
    pub catalogue: Catalogue,
    /// The form in which each object is in effect: to be kept, also over a restart, and given to
    /// [`Standing::of`] the next time.
    pub kept: Objects,
    /// What is wrong with objects as they are now. Where there is a form of one in
    /// [`Standing::kept`], that form stands.
    pub problems: BTreeMap<Subject, Vec<Problem>>,
    /// Addresses that two name.
    pub overlaps: Vec<Overlap>,
}

impl Standing {
    /// What stands now. Of an object that is wrong, the form stands that was valid last, as
    /// `kept` says; where its class is gone, that class as it was last.
    pub fn of(now: &Objects, kept: &Objects) -> Self {
        let mut standing = Self::default();
        let config = standing.config(now, kept);
        standing.classes(now, kept);
        let mut definitions = standing.virtual_clusters(now, kept, &config);
        standing.overlaps = overlaps(&mut definitions);
        let sourced: Vec<(&Document, Definition)> =
            definitions.iter().map(|(document, it)| (document, it.clone())).collect();
        let warnings = warnings(&sourced, &config);
        standing.catalogue = Catalogue::of(sourced, config, warnings);
        standing.keep_classes_in_use(kept);
        standing
    }

    fn config(&mut self, now: &Objects, kept: &Objects) -> Config {
        for (name, object) in now.configs.iter().filter(|(name, _)| *name != CONFIG) {
            let document = Document::new(Object::BulkheadConfig(object.clone()), SOURCE);
            let problem = document.problem("metadata.name", rules::ONE_CONFIG.message);
            self.problems.insert(Subject::BulkheadConfig(name.clone()), vec![problem]);
        }
        let Some(object) = now.configs.get(CONFIG) else {
            return Config::default();
        };
        let subject = Subject::BulkheadConfig(CONFIG.to_owned());
        let forms = forms(object, kept.configs.get(CONFIG));
        let read = self.first_valid(&subject, &forms, |object| {
            let document = Document::new(Object::BulkheadConfig((*object).clone()), SOURCE);
            Config::of(&document, &object.spec)
        });
        let Some((object, config)) = read else {
            return Config::default();
        };
        self.kept.configs.insert(CONFIG.to_owned(), object.clone());
        config
    }

    fn classes(&mut self, now: &Objects, kept: &Objects) {
        for (name, object) in &now.classes {
            let subject = Subject::VirtualClusterClass(name.clone());
            let forms = forms(object, kept.classes.get(name));
            let read = self.first_valid(&subject, &forms, |object| {
                let document =
                    Document::new(Object::VirtualClusterClass((*object).clone()), SOURCE);
                let problems = define::class_problems(&document, &object.spec);
                if problems.is_empty() { Ok(()) } else { Err(problems) }
            });
            if let Some((object, ())) = read {
                self.kept.classes.insert(name.clone(), object.clone());
            }
        }
    }

    fn virtual_clusters(
        &mut self,
        now: &Objects,
        kept: &Objects,
        config: &Config,
    ) -> Vec<(Document, Definition)> {
        let mut built = Vec::new();
        let classes = self.kept.classes.clone();
        for (name, object) in &now.virtual_clusters {
            let subject = Subject::VirtualCluster(name.clone());
            let forms = forms(object, kept.virtual_clusters.get(name));
            let read = self.first_valid(&subject, &forms, |form| {
                let document =
                    Document::new(Object::VirtualCluster(Box::new((*form).clone())), SOURCE);
                // A class that is gone, or never was right, is missed only by the newest form.
                let is_newest = std::ptr::eq(*form, object);
                let class = form.spec.class.as_ref().map(|class| {
                    let last = kept.classes.get(class).filter(|_| !is_newest);
                    classes.get(class).or(last).map(|class| &class.spec).ok_or(())
                });
                let built = define::definition(&document, form, class, config.default_mode)?;
                Ok((document, built))
            });
            if let Some((object, definition)) = read {
                self.kept.virtual_clusters.insert(name.clone(), object.clone());
                built.push(definition);
            }
        }
        built
    }

    /// The first form that is valid; what is wrong with the first of all is noted.
    fn first_valid<'a, O, T>(
        &mut self,
        subject: &Subject,
        forms: &[&'a O],
        mut read: impl FnMut(&&'a O) -> Result<T, Vec<Problem>>,
    ) -> Option<(&'a O, T)> {
        for (index, form) in forms.iter().enumerate() {
            match read(form) {
                Ok(value) => return Some((form, value)),
                Err(problems) if index == 0 => {
                    self.problems.insert(subject.clone(), problems);
                }
                Err(_) => {}
            }
        }
        None
    }

    /// A class that is gone stays known while what stands was made with it.
    fn keep_classes_in_use(&mut self, kept: &Objects) {
        let used = self.kept.virtual_clusters.values().filter_map(|it| it.spec.class.clone());
        for class in used.collect::<BTreeSet<_>>() {
            if let (false, Some(last)) =
                (self.kept.classes.contains_key(&class), kept.classes.get(&class))
            {
                self.kept.classes.insert(class, last.clone());
            }
        }
    }
}

/// An object as it is, and as it was valid last, where that was the same one.
fn forms<'a, O: ResourceExt>(now: &'a O, kept: Option<&'a O>) -> Vec<&'a O> {
    let same = kept.filter(|kept| kept.uid() == now.uid());
    std::iter::once(now).chain(same).collect()
}

/// Takes addresses from the younger of two that name them.
fn overlaps(built: &mut [(Document, Definition)]) -> Vec<Overlap> {
    let blocks: Vec<(usize, AddressBlock)> = built
        .iter()
        .enumerate()
        .flat_map(|(index, (_, it))| it.addresses.iter().map(move |block| (index, *block)))
        .collect();
    let mut found = Vec::new();
    for conflict in conflicts(&blocks) {
        let rank = |index: usize| (&built[index].1.age, &built[index].1.name);
        let (wider, narrower) = (conflict.wider, conflict.narrower);
        let (older, younger) =
            if rank(wider.0) < rank(narrower.0) { (wider, narrower) } else { (narrower, wider) };
        found.push(Overlap {
            keeper: built[older.0].1.name.clone(),
            kept: older.1,
            loser: built[younger.0].1.name.clone(),
            lost: younger.1,
        });
    }
    found.sort();
    for Overlap { loser, lost, .. } in &found {
        let built = built.iter_mut().find(|(_, it)| it.name == *loser);
        built.map(|(_, it)| it.addresses.remove(lost));
    }
    found
}
