//! What agents must know: the objects, numbered, and every node's addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_api::Catalogue;
use bulkhead_core::{AddressBlock, VirtualCluster, VirtualClusterName};
use tokio::sync::watch;

use crate::faults::{self, Point};
use crate::ledger::{Ledger, LedgerError};

/// Everything that agents must know, of one generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) virtual_clusters: BTreeMap<VirtualClusterName, Known>,
    pub(crate) shared: BTreeSet<AddressBlock>,
    pub(crate) cluster_ranges: BTreeSet<AddressBlock>,
    pub(crate) node_addresses: BTreeSet<IpAddr>,
}

/// A virtual cluster, and what only operators want to know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) cluster: VirtualCluster,
    pub(crate) class: String,
    pub(crate) source: String,
}

/// What is wrong, or odd, with the objects as they are written now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    /// While there is anything, what was valid last stands.
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Holds the newest snapshot, and makes the next.
#[derive(Debug)]
pub(crate) struct State {
    ledger: Arc<Ledger>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    findings: watch::Sender<Arc<Findings>>,
    /// Held while a snapshot is made of the one before.
    change: Mutex<()>,
}

impl State {
    /// Knows of nodes only, as generation 0, which no agent is told.
    pub(crate) fn new(ledger: Arc<Ledger>, node_addresses: BTreeSet<IpAddr>) -> Self {
        let snapshot = Snapshot { node_addresses, ..Snapshot::default() };
        Self {
            ledger,
            snapshot: watch::Sender::new(Arc::new(snapshot)),
            findings: watch::Sender::default(),
            change: Mutex::default(),
        }
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Tells of new snapshots.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// What is wrong with the objects now; tells of changes.
    pub(crate) fn findings(&self) -> watch::Receiver<Arc<Findings>> {
        self.findings.subscribe()
    }

    /// Says what is wrong with the objects now.
    pub(crate) fn found(&self, findings: Findings) {
        self.findings.send_replace(Arc::new(findings));
    }

    /// Takes in what users wrote. Blocks: new names get numbers, which must be durable first.
    pub(crate) fn set_catalogue(&self, catalogue: &Catalogue) -> Result<(), LedgerError> {
        let names = catalogue.virtual_clusters.keys().cloned().collect();
        let numbers = self.ledger.numbers(&names)?;
        let known = catalogue.virtual_clusters.iter().filter_map(|(name, definition)| {
            let known = Known {
                cluster: definition.numbered(*numbers.get(name)?),
                class: definition.class.clone().unwrap_or_default(),
                source: format!("file:{}", definition.source),
            };
            Some((name.clone(), known))
        });
        let virtual_clusters = known.collect();
        self.change(|snapshot| {
            snapshot.virtual_clusters = virtual_clusters;
            snapshot.shared.clone_from(&catalogue.shared);
            snapshot.cluster_ranges.clone_from(&catalogue.cluster_ranges);
        })
    }

    /// Takes in every node's addresses. Blocks.
    pub(crate) fn set_node_addresses(
        &self,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<(), LedgerError> {
        self.change(|snapshot| snapshot.node_addresses = addresses)
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) -> Result<(), LedgerError> {
        // Nothing is half done after a panic: the snapshot is replaced whole.
        let _one_at_a_time = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let mut next = Snapshot::clone(&before);
        change(&mut next);
        if next == *before && before.generation != 0 {
            return Ok(());
        }
        next.generation = self.ledger.next_generation()?;
        faults::pass(Point::GenerationCounted);
        tracing::info!(
            generation = next.generation,
            virtual_clusters = next.virtual_clusters.len(),
            "what agents must know has changed"
        );
        self.snapshot.send_replace(Arc::new(next));
        Ok(())
    }
}
