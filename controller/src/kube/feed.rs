//! From what the watches hear to what agents are told: one thread owns the index and does
//! everything in the order in which it was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::Standing;
use bulkhead_api::membership::{Bound, Memberships, Namespace};
use bulkhead_core::{Bindings, Unknown};
use tokio::sync::{mpsc, watch};

use super::index::told::Key;
use super::index::{Index, Rules};
use super::links::Links;
use super::objects::Written;
use super::picture::Picture;
use super::watch::Heard;
use crate::ledger::{Ledger, LedgerError};
use crate::state::{Findings, State};

/// Most that is taken in before agents are told.
const MOST: usize = 4_096;

/// What operators are told before everything was listed.
const WAITING: &str = "the API server has not told everything yet: agents keep what they have";

/// What comes so soon after something else is told together with it.
const TOGETHER: Duration = Duration::from_millis(5);

/// The owner of all that is known of the cluster.
#[derive(Debug)]
pub(crate) struct Feed {
    ledger: Arc<Ledger>,
    state: Arc<State>,
    index: Index,
    written: Written,
    standing: Standing,
    /// What became of each namespace.
    bounds: BTreeMap<String, Bound>,
    rules: Rules,
    links: Links,
    /// What operators are told; sent only when something was heard since.
    picture: watch::Sender<Arc<Picture>>,
    heard_since: bool,
    /// Something could not be stored or told: all of it is tried again.
    again: bool,
    told_objects: bool,
}

impl Feed {
    /// Knows what was remembered. Blocks.
    pub(crate) fn new(ledger: Arc<Ledger>, state: Arc<State>) -> Result<Self, LedgerError> {
        let written = Written::new(&ledger.good_files()?);
        Ok(Self {
            ledger,
            state,
            index: Index::default(),
            written,
            standing: Standing::default(),
            bounds: BTreeMap::new(),
            rules: Rules::default(),
            links: Links::default(),
            picture: watch::Sender::default(),
            heard_since: true,
            again: false,
            told_objects: false,
        })
    }

    /// Tells of what operators should know.
    pub(crate) fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.subscribe()
    }

    /// Takes in what is heard until nobody can say anything any more. Blocks.
    pub(crate) fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        let mut batch = Vec::new();
        while heard.blocking_recv_many(&mut batch, MOST) > 0 {
            let mut ticked = self.take_all(&mut batch);
            if !ticked {
                std::thread::sleep(TOGETHER);
                while let Ok(more) = heard.try_recv() {
                    batch.push(more);
                    if batch.len() == MOST {
                        break;
                    }
                }
                ticked = self.take_all(&mut batch);
            }
            if let Err(error) = self.settle() {
                let error = crate::reason::chain(&error);
                tracing::error!(error, "what the cluster says could not be taken in; again soon");
                self.index.tell_again();
                self.again = true;
            }
            if ticked {
                self.report();
            }
        }
    }

    /// Whether time has passed.
    fn take_all(&mut self, batch: &mut Vec<Heard>) -> bool {
        let mut ticked = false;
        for heard in batch.drain(..) {
            self.heard_since |= !matches!(heard, Heard::Tick);
            match heard {
                Heard::Tick => ticked = true,
                Heard::Cluster(event) => self.index.apply(event),
                Heard::Object(heard) => self.written.apply(heard),
                Heard::Ranges(ranges) => {
                    self.again |= self.rules.ranges != ranges;
                    self.rules.ranges = ranges;
                }
                Heard::Link(kind, Ok(())) => self.links.works(kind),
                Heard::Link(kind, Err(why)) => self.links.fails(kind, why, Instant::now()),
            }
        }
        ticked
    }

    /// Tells agents what changed; nothing before everything was listed once.
    fn settle(&mut self) -> Result<(), LedgerError> {
        if !(self.written.is_complete() && self.index.is_complete()) {
            return Ok(());
        }
        let again = std::mem::take(&mut self.again);
        let objects = self.written.changed() || again;
        if objects {
            let (standing, remember) = self.written.standing();
            self.standing = standing;
            if let Some(files) = remember.or_else(|| again.then(|| self.written.remembered())) {
                self.ledger.remember_files(&files)?;
            }
        }
        let namespaces = self.index.namespaces_changed();
        if objects || !namespaces.is_empty() {
            let only = (!objects).then_some(namespaces);
            self.bind(only.as_ref());
            self.index.set_rules(self.rules.clone());
        }
        // A virtual cluster is known before its pods are, and agents are told nothing at all
        // before both are.
        if objects && self.told_objects {
            self.state.set_objects(&self.standing.catalogue, "kubernetes")?;
        }
        if let Some(change) = self.index.take() {
            self.state.change_cluster(change)?;
        }
        if objects && !self.told_objects {
            self.state.set_objects(&self.standing.catalogue, "kubernetes")?;
            self.told_objects = true;
        }
        Ok(())
    }

    /// Decides whose the pods of namespaces are: of all, or only of some.
    fn bind(&mut self, only: Option<&BTreeSet<String>>) {
        let catalogue = &self.standing.catalogue;
        let memberships = Memberships::new(catalogue.virtual_clusters.values());
        let namespaces = self.index.namespaces();
        let of = |name: &str| match namespaces.get(name) {
            Some(namespace) => memberships.of(namespace),
            None => memberships.of(&Namespace::named(name)),
        };
        if let Some(only) = only {
            for name in only {
                self.bounds.insert(name.clone(), of(name));
            }
        } else {
            let names = namespaces.keys().map(String::as_str).chain(memberships.named());
            self.bounds = names.map(|name| (name.to_owned(), of(name))).collect();
        }
        self.bounds.retain(|_, bound| *bound != Bound::default());
        let bound = self.bounds.iter().filter(|(_, bound)| !bound.bindings.is_empty());
        let bindings = bound.map(|(name, bound)| (name.clone(), bound.bindings.clone()));
        self.rules.bindings = Arc::new(Bindings(bindings.collect()));
        self.rules.policy = catalogue.policy;
        let all = catalogue.virtual_clusters.values();
        let closed = all.filter(|it| it.network.unknown == Unknown::Deny);
        self.rules.closed = closed.map(|it| it.name.clone()).collect();
        let services = catalogue.shared_services.iter();
        self.rules.shared_services =
            services.map(|it| Key::new(it.namespace.as_str(), it.name.as_str())).collect();
    }

    /// Says what operators should know.
    fn report(&mut self) {
        let away = self.links.problems(Instant::now());
        // What fails on the way is logged where it fails.
        let told = self.standing.problems.values().flatten().map(ToString::to_string);
        let mut problems: Vec<String> = told.collect();
        let wrong = problems.len();
        problems.extend(away);
        let warnings = self.standing.catalogue.warnings.iter().map(ToString::to_string);
        let mut findings = Findings { problems, warnings: warnings.collect() };
        if self.told_objects {
            if std::mem::take(&mut self.heard_since) {
                let picture = Picture::of(&self.index, &self.written, &self.standing, &self.bounds);
                self.picture.send_replace(Arc::new(picture));
            }
            findings.warnings.extend(self.picture.borrow().warnings.iter().cloned());
        } else {
            findings.problems.push(WAITING.to_owned());
        }
        let before = Arc::clone(&self.state.findings().borrow());
        if *before != findings {
            let wrong = findings.problems.iter().take(wrong);
            let news = wrong.filter(|it| !before.problems.contains(it));
            news.for_each(|problem| tracing::error!("{problem}"));
            self.state.found(findings);
        }
    }
}
