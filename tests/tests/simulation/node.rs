//! A node: a kernel that lives on, and an agent that starts, ends and crashes. The agent's code
//! is the real one, but for its thread: its owner is driven from here.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_agent::cycle::Settings;
use bulkhead_agent::journal::{Journal, Limits, Reader};
use bulkhead_agent::kernel::seam::Kernel;
use bulkhead_agent::owner::{Owner, Reports};
use bulkhead_agent::report::{self, Pace, ReportOptions};
use bulkhead_agent::status;
use bulkhead_core::LocalPods;
use bulkhead_proto::{Endpoint, v1};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::dialer::Dialer;
use crate::driver::{Command, Driver, Seen, unacknowledged};
use crate::kernel::SimKernel;
use crate::network::{Manner, Network, Side};
use crate::random::Random;
use crate::trace::Trace;
use crate::truth::{JournalKey, Reopened, Truth};
use crate::watcher::Watcher;

/// What a crash does to the end of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    Whole,
    /// It comes in the middle of an append.
    Torn,
    /// The disk loses what was durable.
    Lost,
}

/// What all parts of a node have.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) random: Random,
    pub(crate) truth: Truth,
    pub(crate) clock: Clock,
    pub(crate) kernel: SimKernel,
    /// Checks what the controller says.
    pub(crate) watcher: Watcher,
    /// What its runtime shows.
    pub(crate) pods: watch::Sender<Arc<LocalPods>>,
    /// Nothing is used any more.
    pub(crate) idle: Arc<AtomicBool>,
}

/// The node.
pub(crate) struct Node {
    pub(crate) common: Common,
    directory: PathBuf,
    limits: Limits,
    /// The journal as it was last, and how many batches a fault may have taken from it.
    journal: Option<(JournalKey, usize)>,
    running: Option<Running>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

struct Running {
    reader: Reader,
    commands: mpsc::UnboundedSender<Command>,
    stop: watch::Sender<bool>,
    driver: JoinHandle<usize>,
    report: JoinHandle<()>,
}

impl Node {
    pub(crate) fn new(common: Common, directory: PathBuf, limits: Limits) -> Self {
        Self { common, directory, limits, journal: None, running: None, seen: Arc::default() }
    }

    /// Whether its journal is so small that it is coarsened.
    fn coarsens(&self) -> bool {
        self.limits != Limits::default()
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn backlog(&self) -> Option<u64> {
        Some(self.running.as_ref()?.reader.backlog_records())
    }

    pub(crate) fn command(&self, command: Command) {
        if let Some(running) = &self.running {
            let _ = running.commands.send(command);
        }
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let Common { name, random, kernel, clock, .. } = self.common.clone();
        let boot_id = kernel.boot_id();
        let directory = self.directory.join("journal");
        let (journal, recovered) =
            Journal::open(&directory, self.limits, &boot_id).context("open the journal")?;
        let noticed = recovered.truncated.is_some() || !recovered.damaged.is_empty();
        self.compare(&journal, noticed)?;
        let window = Duration::from_secs(random.one_of(&[2, 5, 7]));
        let settings = Settings {
            boot_id: boot_id.clone(),
            window_nanoseconds: NonZeroU64::new(u64::try_from(window.as_nanos())?)
                .context("a window has a length")?,
            longest_gap_nanoseconds: 30_000_000_000,
        };
        let found = kernel.clone().node(&BTreeSet::new()).context("find out what this node is")?;
        let (to_status, status) = watch::channel(v1::NodeStatus::default());
        let facts = status::node_facts(&found, &boot_id, "simulated");
        let (to_facts, facts) = watch::channel(facts);
        let reports = Reports {
            node: name.clone(),
            boot_id,
            kernel_release: "simulated".to_owned(),
            snapshot_file: self.directory.join("snapshot"),
            status: to_status,
            facts: to_facts,
            kubernetes: None,
        };
        let reader = journal.reader();
        let (stop, stopped) = watch::channel(false);
        let options = ReportOptions {
            endpoint: Endpoint::parse("127.0.0.1:1").context("name an endpoint")?,
            node: name,
            started_unix_nanoseconds: clock.wall(),
            facts,
            status,
            pods: self.common.pods.subscribe(),
            journal: reader.clone(),
            stop: stopped,
            pace: self.pace(),
            outside: Arc::new(Dialer::new(&self.common)),
        };
        let owner = Owner::resume(kernel.clone(), (journal, &recovered), settings, reports);
        let (events, inbox) = mpsc::channel(64);
        let report = tokio::spawn(report::run(options, events));
        let (commands, orders) = mpsc::unbounded_channel();
        // The stream of the process before went with it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).connected = false;
        let driver = Driver::new(self.common.clone(), owner, Arc::clone(&self.seen));
        let driver = tokio::spawn(driver.run(inbox, orders, self.directory.join("journal")));
        self.running = Some(Running { reader, commands, stop, driver, report });
        self.common.trace.say(&self.common.name, format!("starts, windows of {window:?}"));
        Ok(())
    }

    fn pace(&self) -> Pace {
        let random = &self.common.random;
        let window_batches = usize::try_from(random.between(1, 8)).unwrap_or(1);
        let window_bytes = usize::try_from(random.between(256, 8_192)).unwrap_or(256);
        Pace { window_batches, window_bytes, ..Pace::default() }
    }

    /// What the journal holds is what was put into it. `noticed`: it says that it lacks something.
    fn compare(&mut self, journal: &Journal, noticed: bool) -> Result<()> {
        let Common { truth, trace, number, name, .. } = &self.common;
        let reader = journal.reader();
        let key = (*number, reader.journal_id().to_string());
        let there = unacknowledged(&reader, reader.acknowledged())?;
        let there: Vec<u64> = there.iter().map(|(_, batch)| batch.sequence).collect();
        let Some((before, may_lack)) = self.journal.replace((key.clone(), 0)) else {
            return Ok(());
        };
        if self.coarsens() {
            return Ok(());
        }
        let found = if before == key {
            Reopened { there: &there, may_lack, last: journal.last().0, noticed }
        } else {
            // Nothing of it could be read, so it is another now, with numbers of its own.
            Reopened { there: &[], may_lack, last: u64::MAX, noticed }
        };
        let gone = truth.reopened(&before, found)?;
        let again = if before == key { "the same journal" } else { "another journal" };
        trace.say(name, format!("{again} up to {}, {gone} batches gone", journal.last()));
        Ok(())
    }

    /// Ends the agent as SIGTERM does.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        self.common.trace.say(&self.common.name, "ends");
        running.stop.send_replace(true);
        let _ = running.commands.send(Command::Shutdown);
        running.driver.await.context("the agent's owner")?;
        running.report.await.context("the agent's reporting")?;
        self.common.network.sever(Side::Client, Some(self.common.number), Manner::Close);
        Ok(())
    }

    pub(crate) async fn crash(&mut self, manner: Manner, tail: Tail) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let tail = if self.coarsens() { Tail::Whole } else { tail };
        self.common.trace.say(&self.common.name, format!("dies, {manner:?}, journal {tail:?}"));
        let mut may_lack = 0;
        if tail == Tail::Torn {
            let _ = running.commands.send(Command::Tear);
            may_lack = running.driver.await.context("the agent's owner")?;
        } else {
            running.driver.abort();
            let _ = running.driver.await;
        }
        running.report.abort();
        let _ = running.report.await;
        self.common.network.sever(Side::Client, Some(self.common.number), manner);
        if tail == Tail::Lost {
            self.lose_tail()?;
            may_lack = usize::MAX;
        }
        if let Some((_, lack)) = &mut self.journal {
            *lack = may_lack;
        }
        Ok(())
    }

    /// Cuts some bytes off the journal that it had been told are durable.
    fn lose_tail(&self) -> Result<()> {
        let Some(path) = last_segment(&self.directory.join("journal"))? else { return Ok(()) };
        let length = fs::metadata(&path).context("look at a segment")?.len();
        let lost = self.common.random.between(1, 3_000);
        let file = fs::OpenOptions::new().write(true).open(&path).context("open a segment")?;
        file.set_len(length.saturating_sub(lost)).context("cut a segment")
    }

    /// The machine is started anew. Its agent must be down.
    pub(crate) fn reboot(&self) {
        self.common.trace.say(&self.common.name, "is a new boot");
        self.common.kernel.reboot(self.common.clock.wall());
    }

    pub(crate) fn set_idle(&self) {
        self.common.idle.store(true, Ordering::Relaxed);
    }
}

/// The segment that is written.
pub(crate) fn last_segment(journal: &std::path::Path) -> Result<Option<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(journal).context("list the journal")? {
        let path = entry.context("list the journal")?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".segment") {
            segments.push(path);
        }
    }
    Ok(segments.into_iter().max())
}
