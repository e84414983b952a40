//! Checks what the controller tells an agent, at the moment when the agent is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use bulkhead_core::Snapshot;
use bulkhead_core::amount::{Amount, Pids};

use crate::cluster::Versions;
use crate::truth::{self, JournalKey};

/// What each version of the objects was. Clones are the same.
pub(crate) type Published = Arc<Mutex<BTreeMap<u64, BTreeSet<String>>>>;

/// Checks what one node is told. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    published: Published,
    versions: Versions,
    ledger: PathBuf,
    /// Counts how often the ledger was put back.
    lineage: Arc<AtomicU64>,
    told: Arc<Mutex<Told>>,
}

#[derive(Clone, Debug, Default)]
struct Told {
    /// The ledger's lineage when the connection was made.
    lineage: u64,
    /// The newest generation of that lineage.
    newest: (u64, u64),
    /// What each generation of each lineage was.
    contents: BTreeMap<(u64, u64), Arc<Snapshot>>,
}

impl Watcher {
    pub(crate) fn new(
        published: &Published,
        versions: Versions,
        ledger: PathBuf,
        lineage: Arc<AtomicU64>,
    ) -> Self {
        let published = Arc::clone(published);
        Self { published, versions, ledger, lineage, told: Arc::default() }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        self.told().lineage = self.lineage.load(Ordering::Relaxed);
    }

    /// A snapshot is one that was published, whole, and not older than the one before; and a
    /// generation is the same whenever and however it is told. Gives the versions of the objects
    /// and of the cluster that it is of.
    pub(crate) fn snapshot(
        &self,
        snapshot: &Arc<Snapshot>,
        node: usize,
    ) -> Result<(u64, Option<u32>)> {
        let versions: BTreeSet<Option<u64>> = snapshot
            .virtual_clusters
            .values()
            .map(|cluster| match cluster.limit.pids {
                Some(Amount::Absolute(Pids(version))) => Some(version),
                _ => None,
            })
            .collect();
        let generation = snapshot.generation;
        ensure!(versions.len() == 1, "snapshot {generation} mixes versions {versions:?}");
        let version = versions.first().copied().flatten().context("objects say their version")?;
        let names: BTreeSet<String> =
            snapshot.virtual_clusters.keys().map(ToString::to_string).collect();
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            published.get(&version) == Some(&names),
            "snapshot {generation} says {names:?}, which version {version} never was"
        );
        let cluster = self.versions.check(snapshot, node, (version, &names))?;
        let mut told = self.told();
        let now = (told.lineage, generation);
        ensure!(told.newest <= now, "snapshot {now:?} came after {:?}", told.newest);
        told.newest = now;
        let known = told.contents.entry(now).or_insert_with(|| Arc::clone(snapshot));
        ensure!(known == snapshot, "generation {now:?} was {known:?} and is {snapshot:?}");
        Ok((version, cluster))
    }

    /// What is acknowledged is on the controller's disk. Nothing can be said of what a ledger
    /// acknowledged that was put back since.
    pub(crate) fn acknowledged(&self, journal: &JournalKey, sequence: u64) -> Result<()> {
        if self.told().lineage != self.lineage.load(Ordering::Relaxed) {
            return Ok(());
        }
        let marks = truth::marks(&truth::look(&self.ledger)?)?;
        let mark = marks.get(journal).copied().unwrap_or(0);
        ensure!(mark >= sequence, "batch {sequence} is acknowledged, but only {mark} is durable");
        Ok(())
    }
}
