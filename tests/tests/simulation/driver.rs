//! Drives the agent's owner as its thread does, in simulated time, and checks each turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_agent::edge::for_the_owner;
use bulkhead_agent::journal::{Reader, Sequence};
use bulkhead_agent::owner::{After, Event, Owner};
use bulkhead_agent::report::ReportEvent;
use bulkhead_core::{Fact, Snapshot};
use bulkhead_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::kernel::SimKernel;
use crate::node::{Common, last_segment};
use crate::truth::{JournalKey, check_turn};

/// What the world has the driver do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// A last turn, and the end.
    Shutdown,
    /// A turn whose append is cut anywhere, and the end.
    Tear,
    /// No turns but those that somebody asks for.
    Pause,
}

/// What is known of the node from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What the node was told last.
    pub(crate) told: Option<Arc<Snapshot>>,
    pub(crate) applied: u64,
    pub(crate) turns: u64,
    /// Whether there is a stream.
    pub(crate) connected: bool,
}

/// The driver of one agent process.
pub(crate) struct Driver {
    common: Common,
    owner: Owner<SimKernel>,
    reader: Reader,
    journal: JournalKey,
    seen: Arc<Mutex<Seen>>,
    connect: watch::Sender<bool>,
    /// When the next turn is due; none: it is not.
    next: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(common: Common, mut owner: Owner<SimKernel>, seen: Arc<Mutex<Seen>>) -> Self {
        let reader = owner.cycle().journal().reader();
        let journal = (common.number, reader.journal_id().to_string());
        let connect = watch::Sender::new(false);
        let mut driver = Self { common, owner, reader, journal, seen, connect, next: None };
        driver.next = Some(driver.after(500));
        driver
    }

    /// A moment of this node within so many milliseconds.
    fn after(&self, most: u64) -> Instant {
        let wait = Duration::from_millis(self.common.random.below(most));
        self.common.network.moment(self.common.number, wait)
    }

    /// Runs until it is told to end. Gives how many batches may be torn.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<ReportEvent>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        directory: PathBuf,
    ) -> usize {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return 0,
                    Some(Command::Shutdown) => {
                        self.turn();
                        return 0;
                    }
                    Some(Command::Tear) => return self.tear(&directory),
                    Some(Command::Pause) => self.next = None,
                },
                Some(event) = events.recv() => {
                    // The other thread must wake up first.
                    sleep_until(self.after(30)).await;
                    self.hear(event);
                }
                () = due(self.next) => {
                    self.turn();
                    self.next = Some(self.after(4_000));
                }
            }
        }
    }

    fn hear(&mut self, event: ReportEvent) {
        if let Err(error) = self.try_hear(event) {
            self.common.trace.broke(format!("{}: {error:#}", self.common.name));
        }
    }

    fn try_hear(&mut self, event: ReportEvent) -> Result<()> {
        let Common { trace, name, watcher, truth, .. } = &self.common;
        if let ReportEvent::Unreadable(what) = &event {
            anyhow::bail!("the journal cannot be read: {what}");
        }
        let Some(event) = for_the_owner(event, &self.connect) else {
            let connected = *self.connect.borrow();
            trace.say(name, format!("connected: {connected}"));
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).connected = connected;
            return Ok(());
        };
        let mut renumbered = false;
        match &event {
            Event::Learn(Fact::Snapshot(snapshot)) => {
                let (version, cluster) = watcher.snapshot(snapshot, self.common.number)?;
                let generation = snapshot.generation;
                trace.say(
                    name,
                    format!("generation {generation}, version {version}, cluster {cluster:?}"),
                );
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.told = Some(Arc::clone(snapshot));
            }
            Event::Acknowledged(sequence) => {
                trace.say(name, format!("acknowledged {sequence}"));
                watcher.acknowledged(&self.journal, sequence.0)?;
                truth.acknowledged(&self.journal, sequence.0);
            }
            Event::ContinueAfter(sequence) => {
                trace.say(name, format!("goes on after {sequence}"));
                renumbered = *sequence > self.reader.last();
            }
            _ => {}
        }
        let last = self.reader.last();
        let after = self.owner.take(event);
        if renumbered {
            let there = unacknowledged(&self.reader, last)?;
            truth.renumbered(&self.journal, there)?;
        }
        if after == After::Turn {
            self.turn();
        }
        Ok(())
    }

    fn turn(&mut self) -> usize {
        match self.try_turn() {
            Ok(batches) => batches,
            Err(error) => {
                self.common.trace.broke(format!("{}: {error:#}", self.common.name));
                0
            }
        }
    }

    fn try_turn(&mut self) -> Result<usize> {
        let Common { trace, name, random, clock, kernel, truth, idle, .. } = &self.common;
        if !idle.load(Ordering::Relaxed) {
            kernel.grow(random);
        }
        let before = self.reader.last();
        self.owner.turn(clock.now());
        let report = self.owner.cycle().report();
        let appended = unacknowledged(&self.reader, before)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.applied = report.applied_generation;
            seen.turns += 1;
        }
        let sampled = kernel.take_sampled();
        let batches: Vec<_> = appended.iter().map(|(_, batch)| batch.clone()).collect();
        if batches.is_empty() {
            for reason in &report.reasons {
                trace.say(name, format!("nothing is counted: {}", reason.subject));
            }
            return Ok(0);
        }
        trace.say(name, format!("counts up to batch {}", self.reader.last()));
        let count = appended.len();
        for (boot, batch) in appended {
            truth.journaled(&self.journal, &boot, batch);
        }
        check_turn(&sampled, &batches)?;
        Ok(count)
    }

    /// The machine loses power in the middle of an append.
    fn tear(&mut self, directory: &Path) -> usize {
        let begin = last_segment(directory).ok().flatten();
        let begin = begin.and_then(|path| Some((fs::metadata(&path).ok()?.len(), path)));
        let batches = self.turn();
        let torn = begin.and_then(|(length, path)| {
            let now = fs::metadata(&path).ok()?.len();
            let file = fs::OpenOptions::new().write(true).open(&path).ok()?;
            file.set_len(length + self.common.random.below(now.checked_sub(length)?.max(1))).ok()
        });
        if torn.is_some() { batches } else { 0 }
    }
}

/// Every batch behind that one, with its boot.
pub(crate) fn unacknowledged(
    reader: &Reader,
    mut after: Sequence,
) -> Result<Vec<(String, v1::UsageBatch)>> {
    let mut found = Vec::new();
    loop {
        let chunk = reader.read_after(after, 1 << 20).context("read the journal")?;
        let Some(last) = chunk.batches.last() else { return Ok(found) };
        after = Sequence(last.sequence);
        found.extend(chunk.batches.into_iter().map(|batch| (chunk.boot.clone(), batch)));
    }
}

async fn due(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}
