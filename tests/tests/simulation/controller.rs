//! The controller as a program that starts, ends and crashes. Its code is the real one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_controller::{Blocking, Config, Outside, Parts};
use bulkhead_core::Snapshot;
use bulkhead_proto::Endpoint;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::cluster::{Versions, allowed};
use crate::network::{Manner, Network, Side};
use crate::random::Random;
use crate::trace::Trace;
use crate::truth::{self, Marks};

pub(crate) const AGENTS: &str = "agents";
pub(crate) const OPERATORS: &str = "operators";

/// What is to go wrong with the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disk {
    Good,
    /// Everything takes seconds.
    Slow,
    /// The program dies at the next work on it, before it is done.
    DiesBefore,
    /// After it is done, and before anybody is told.
    DiesAfter,
}

/// The controller.
pub(crate) struct Controller {
    place: PathBuf,
    network: Network,
    trace: Trace,
    random: Random,
    pub(crate) clock: Clock,
    disk: Arc<Mutex<Disk>>,
    /// Counts how often the ledger was put back.
    lineage: Arc<AtomicU64>,
    versions: Versions,
    running: Option<Running>,
}

struct Running {
    life: Arc<Life>,
    parts: Parts,
    serving: JoinHandle<()>,
}

/// One process.
#[derive(Debug)]
struct Life {
    alive: AtomicBool,
    place: PathBuf,
    network: Network,
}

/// What a process takes from outside.
#[derive(Debug)]
struct World {
    life: Arc<Life>,
    clock: Clock,
    random: Random,
    disk: Arc<Mutex<Disk>>,
    trace: Trace,
    chunk_bytes: usize,
}

impl Life {
    /// The process is no more. What it had written is kept as it is at this moment; nothing that
    /// it still does is seen by anybody.
    fn end(&self, manner: Manner) {
        if !self.alive.swap(false, Ordering::Relaxed) {
            return;
        }
        self.network.close(AGENTS);
        self.network.close(OPERATORS);
        self.network.sever(Side::Server, None, manner);
        copy(&self.place.join("data"), &self.place.join("crashed"));
    }
}

/// Copies the ledger's files.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a directory can be made");
    for name in ["ledger.db", "ledger.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("a file can be copied");
        }
    }
}

impl Outside for World {
    fn now(&self) -> u64 {
        self.clock.wall()
    }

    /// In this thread, after the time that a disk takes.
    fn block(&self, work: Blocking) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, life) = (*disk, Arc::clone(&self.life));
        if matches!(now, Disk::DiesBefore | Disk::DiesAfter) {
            *disk = Disk::Good;
        }
        // Of a length that leaves everybody in a millisecond of his own.
        let takes = 4 * match now {
            Disk::Slow => self.random.between(100, 1_000),
            _ => self.random.below(3),
        };
        let manner = self.random.one_of(&[Manner::Close, Manner::Reset, Manner::Silence]);
        let trace = self.trace.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(takes)).await;
            if now == Disk::DiesBefore {
                trace.say("controller", "dies before it writes");
                life.end(manner);
            }
            if !life.alive.load(Ordering::Relaxed) {
                return;
            }
            work();
            if now == Disk::DiesAfter {
                trace.say("controller", "dies after it wrote");
                life.end(manner);
            }
        });
    }

    fn random(&self) -> u64 {
        self.random.next()
    }

    fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }
}

impl Controller {
    pub(crate) fn new(place: PathBuf, network: Network, trace: Trace, random: Random) -> Self {
        Self {
            place,
            network,
            trace,
            random,
            clock: Clock::new(),
            disk: Arc::new(Mutex::new(Disk::Good)),
            lineage: Arc::default(),
            versions: Versions::default(),
            running: None,
        }
    }

    pub(crate) fn lineage(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lineage)
    }

    /// What the cluster was.
    pub(crate) fn versions(&self) -> Versions {
        self.versions.clone()
    }

    /// The cluster changes, and a controller that runs hears of it.
    pub(crate) fn change_cluster(&self, nodes: usize) -> Result<()> {
        let change = self.versions.advance(&self.random, nodes);
        if let Some(running) = &self.running
            && !self.has_died()
        {
            running.parts.change_cluster(change).context("change the cluster")?;
        }
        Ok(())
    }

    /// What it tells a node now.
    pub(crate) fn told(&self, node: &str) -> Option<Snapshot> {
        Some(self.running.as_ref()?.parts.told(node))
    }

    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.place.join("data/ledger.db")
    }

    pub(crate) fn set_disk(&self, disk: Disk) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = disk;
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its process died by itself.
    pub(crate) fn has_died(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.life.alive.load(Ordering::Relaxed))
    }

    /// Writes the objects anew; each says which version it is of.
    pub(crate) fn write_objects(&self, version: u64, names: &BTreeSet<String>) -> Result<()> {
        let objects = self.place.join("objects");
        let _ = fs::remove_dir_all(&objects);
        fs::create_dir_all(&objects).context("make the directory of the objects")?;
        for name in names {
            let text = format!(
                "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\n\
                 metadata: {{name: {name}}}\nspec: {{perNode: {{limit: {{pids: {version}}}}}, \
                 network: {{allow: [{{virtualCluster: {allowed}}}]}}}}\n",
                allowed = allowed(version, name)
            );
            fs::write(objects.join(format!("{name}.yaml")), text).context("write an object")?;
        }
        if let Some(running) = &self.running
            && !self.has_died()
        {
            running.parts.reload();
        }
        Ok(())
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let endpoint = Endpoint::parse("127.0.0.1:1").context("name an endpoint")?;
        let config = Config {
            objects: self.place.join("objects").into(),
            data: self.place.join("data"),
            agents: endpoint.clone(),
            operators: endpoint,
            trust: None,
            ledger_page_limit: None,
        };
        let (place, network) = (self.place.clone(), self.network.clone());
        let life = Arc::new(Life { alive: AtomicBool::new(true), place, network });
        let outside = World {
            life: Arc::clone(&life),
            clock: self.clock.clone(),
            random: self.random.clone(),
            disk: Arc::clone(&self.disk),
            trace: self.trace.clone(),
            // Most often so few that every snapshot has several, and most changes fit.
            chunk_bytes: self.random.one_of(&[96, 256, 1 << 20]),
        };
        let parts = Parts::open(&config, Arc::new(outside)).context("open the controller")?;
        parts.change_cluster(self.versions.newest().whole()).context("list the cluster")?;
        let agents = self.network.listen(AGENTS);
        let operators = self.network.listen(OPERATORS);
        let (for_agents, for_operators) = (parts.for_agents(), parts.for_operators()?);
        let ending = || {
            let mut ending = parts.ending();
            async move {
                let _ = ending.wait_for(|ending| *ending).await;
            }
        };
        let (first, second) = (ending(), ending());
        let serving = tokio::spawn(async move {
            let _ = tokio::join!(
                for_agents.serve_with_incoming_shutdown(agents, first),
                for_operators.serve_with_incoming_shutdown(operators, second),
            );
        });
        self.running = Some(Running { life, parts, serving });
        self.trace.say("controller", "starts");
        Ok(())
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        self.trace.say("controller", "ends");
        let Running { life, parts, mut serving } = running;
        parts.end();
        if timeout(Duration::from_secs(5), &mut serving).await.is_err() {
            serving.abort();
        }
        self.network.close(AGENTS);
        self.network.close(OPERATORS);
        self.network.sever(Side::Server, None, Manner::Close);
        gone(life, parts).await
    }

    /// It dies; or what is left of it, if it has died, is taken away.
    pub(crate) async fn crash(&mut self, manner: Manner) -> Result<()> {
        let Some(Running { life, parts, serving }) = self.running.take() else { return Ok(()) };
        self.trace.say("controller", format!("dies, {manner:?}"));
        life.end(manner);
        serving.abort();
        gone(life, parts).await?;
        // What its tasks did after the end was not done.
        let _ = fs::remove_dir_all(self.place.join("data"));
        fs::rename(self.place.join("crashed"), self.place.join("data"))
            .context("put back what was written")
    }

    /// Copies the ledger, as a backup does.
    pub(crate) fn back_up(&self) -> Result<()> {
        if !self.ledger_file().exists() {
            return Ok(());
        }
        let backup = self.place.join("backup.db");
        let _ = fs::remove_file(&backup);
        let ledger = truth::look(&self.ledger_file())?;
        let text = backup.to_string_lossy().into_owned();
        ledger.execute("VACUUM INTO ?1", [text]).context("back the ledger up")?;
        Ok(())
    }

    /// Puts the backup in place of the ledger; where there is none, or none is wanted, nothing.
    /// Gives the marks before and after. It must be down.
    pub(crate) fn put_back(&self, backup: bool) -> Result<(Marks, Marks)> {
        // It may have been taken away before, and nothing have begun another since.
        let before = if self.ledger_file().exists() {
            truth::marks(&truth::look(&self.ledger_file())?)?
        } else {
            Marks::new()
        };
        let data = self.place.join("data");
        let _ = fs::remove_dir_all(&data);
        let kept = self.place.join("backup.db");
        let mut after = Marks::new();
        if backup && kept.exists() {
            fs::create_dir(&data).context("make the data directory")?;
            fs::copy(&kept, self.ledger_file()).context("restore the ledger")?;
            after = truth::marks(&truth::look(&self.ledger_file())?)?;
        }
        self.lineage.fetch_add(1, Ordering::Relaxed);
        Ok((before, after))
    }
}

/// Waits until nothing of a process is left: then its files are free.
async fn gone(life: Arc<Life>, parts: Parts) -> Result<()> {
    drop(parts);
    for _ in 0..5_000 {
        if Arc::strong_count(&life) == 1 {
            return Ok(());
        }
        sleep(Duration::from_millis(4)).await;
    }
    ensure!(Arc::strong_count(&life) == 1, "a task of the controller outlives it");
    Ok(())
}
