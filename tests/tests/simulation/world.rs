//! One history: everything that happens to one controller and its nodes, from a seed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use bulkhead_agent::journal::Limits;
use bulkhead_core::Snapshot;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::NAMES;
use crate::controller::{Controller, Disk};
use crate::driver::{Command, Seen};
use crate::ending;
use crate::kernel::SimKernel;
use crate::network::{Manner, Network, WORLD, Weather};
use crate::node::{Common, Node, Tail};
use crate::random::Random;
use crate::trace::Trace;
use crate::truth::Truth;
use crate::watcher::{Published, Watcher};

/// How long faults go on.
const CHAOS: Duration = Duration::from_secs(32);

/// How long the longest recovery may take after the last fault: a connection that is dead
/// without a word is found out after 40 s, a refusal by it is tried again after 10 s.
const RECOVERY: Duration = Duration::from_mins(3);

/// What is to be undone later.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Release(usize),
    StartNode(usize),
    StartController,
    GoodDisk,
}

/// The world of one history.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) truth: Truth,
    pub(crate) controller: Controller,
    pub(crate) nodes: Vec<Node>,
    published: Published,
    version: u64,
    undo: Vec<(Instant, Undo)>,
}

impl World {
    pub(crate) fn new(seed: u64, place: &Path, trace: &Trace) -> Self {
        let random = Random::new(seed);
        let weather = Weather { latency: random.between(0, 60), loss: random.below(5) };
        let network = Network::new(&random, weather);
        let truth = Truth::default();
        let published = Published::default();
        let controller =
            Controller::new(place.to_owned(), network.clone(), trace.clone(), random.branch());
        let small = random.chance(15);
        let nodes = (0..usize::try_from(random.between(1, 2)).unwrap_or(1)).map(|number| {
            let clock = crate::clock::Clock::new();
            let address = format!("10.0.0.{}", number + 1).parse().expect("an address");
            let common = Common {
                number,
                name: format!("node-{number}"),
                network: network.clone(),
                trace: trace.clone(),
                random: random.branch(),
                truth: truth.clone(),
                kernel: SimKernel::new(address, clock.wall()),
                clock,
                watcher: Watcher::new(
                    &published,
                    controller.versions(),
                    controller.ledger_file(),
                    controller.lineage(),
                ),
                pods: watch::Sender::default(),
                idle: Arc::default(),
            };
            let segment_bytes = random.one_of(&[1 << 10, 4 << 10, 16 << 10]);
            let limits = if small {
                Limits { max_bytes: 4 * segment_bytes, segment_bytes }
            } else {
                Limits::default()
            };
            Node::new(common, place.join(format!("node-{number}")), limits)
        });
        let nodes = nodes.collect();
        Self {
            random,
            trace: trace.clone(),
            network,
            truth,
            controller,
            nodes,
            published,
            version: 1_000,
            undo: Vec::new(),
        }
    }

    /// The whole history.
    pub(crate) async fn run(&mut self) -> Result<bool> {
        self.publish()?;
        self.change_cluster()?;
        self.controller.start()?;
        for node in &mut self.nodes {
            node.start()?;
        }
        let end = Instant::now() + CHAOS;
        while Instant::now() < end {
            let pause = Duration::from_millis(self.random.between(50, 2_400));
            self.wait_until(self.network.moment(WORLD, pause)).await?;
            self.fault().await?;
        }
        self.heal().await?;
        self.converge().await?;
        let exact = ending::check(self).await?;
        for node in &mut self.nodes {
            node.stop().await?;
        }
        self.controller.stop().await?;
        self.check_broken()?;
        Ok(exact)
    }

    fn check_broken(&self) -> Result<()> {
        match self.trace.broken() {
            Some(what) => bail!(what),
            None => Ok(()),
        }
    }

    /// Waits, and undoes what is due meanwhile.
    async fn wait_until(&mut self, end: Instant) -> Result<()> {
        loop {
            self.check_broken()?;
            let next = self.undo.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            match next.map(|(place, (at, _))| (place, *at)) {
                Some((place, at)) if at <= end => {
                    sleep_until(at).await;
                    let (_, undo) = self.undo.remove(place);
                    self.undo(undo)?;
                }
                _ => {
                    sleep_until(end).await;
                    return Ok(());
                }
            }
        }
    }

    fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Release(link) => {
                self.trace.say("network", format!("link {link} is back"));
                self.network.release(link);
            }
            Undo::StartNode(number) => {
                if !self.nodes[number].is_up() {
                    self.nodes[number].start()?;
                }
            }
            Undo::StartController => {
                if !self.controller.is_up() {
                    self.controller.start()?;
                }
            }
            Undo::GoodDisk => self.controller.set_disk(Disk::Good),
        }
        Ok(())
    }

    /// `undo` comes after a while of so many milliseconds at most.
    fn later(&mut self, most: u64, undo: Undo) {
        // Now and then it takes long.
        let most = if self.random.chance(15) { most * 8 } else { most };
        let wait = Duration::from_millis(self.random.between(1, most));
        self.undo.push((self.network.moment(WORLD, wait), undo));
    }

    /// Something happens.
    async fn fault(&mut self) -> Result<()> {
        if self.controller.has_died() {
            let manner = self.manner();
            self.controller.crash(manner).await?;
            self.later(5_000, Undo::StartController);
        }
        let number = usize::try_from(self.random.below(u64::try_from(self.nodes.len())?))?;
        match self.random.below(100) {
            0..14 => {
                self.trace.say("network", format!("link {number} is held"));
                self.network.hold(number);
                self.later(8_000, Undo::Release(number));
            }
            14..26 => {
                let manner = self.manner();
                self.trace.say("network", format!("link {number} is cut, {manner:?}"));
                self.network.cut(number, manner);
            }
            26..44 => self.end_node(number).await?,
            44..48 => {
                let name = &self.nodes[number].common.name;
                self.trace.say(name, "has new tables");
                let common = &self.nodes[number].common;
                common.kernel.new_network_epoch(common.clock.wall());
            }
            48..62 => self.end_controller().await?,
            62..68 => {
                let disk = self.random.one_of(&[Disk::DiesBefore, Disk::DiesAfter]);
                self.controller.set_disk(disk);
            }
            68..72 => {
                self.controller.set_disk(Disk::Slow);
                self.later(5_000, Undo::GoodDisk);
            }
            72..79 => self.publish()?,
            79..88 => self.change_cluster()?,
            88..92 => self.controller.back_up()?,
            92..98 => self.set_clock(number),
            _ => {
                let weather =
                    Weather { latency: self.random.between(0, 400), loss: self.random.below(30) };
                self.network.set_weather(weather);
            }
        }
        Ok(())
    }

    fn manner(&self) -> Manner {
        self.random.one_of(&[Manner::Close, Manner::Reset, Manner::Silence])
    }

    fn set_clock(&self, number: usize) {
        let off = i64::try_from(self.random.below(7_200_000)).unwrap_or(0) - 3_600_000;
        if self.random.chance(30) {
            self.trace.say("controller", format!("clock is off by {off} ms"));
            self.controller.clock.set_off(off);
        } else {
            let common = &self.nodes[number].common;
            self.trace.say(&common.name, format!("clock is off by {off} ms"));
            common.clock.set_off(off);
        }
    }

    async fn end_node(&mut self, number: usize) -> Result<()> {
        let manner = self.manner();
        let tail = match self.random.below(10) {
            0..3 => Tail::Torn,
            3 => Tail::Lost,
            _ => Tail::Whole,
        };
        let (graceful, reboots) = (self.random.chance(25), self.random.chance(25));
        let node = &mut self.nodes[number];
        if graceful {
            node.stop().await?;
        } else {
            node.crash(manner, tail).await?;
        }
        if reboots {
            node.reboot();
        }
        self.later(4_000, Undo::StartNode(number));
        Ok(())
    }

    async fn end_controller(&mut self) -> Result<()> {
        if self.random.chance(30) {
            self.controller.stop().await?;
        } else {
            let manner = self.manner();
            self.controller.crash(manner).await?;
        }
        if self.random.chance(12) {
            let backup = self.random.chance(70);
            self.trace.say("controller", format!("ledger is put back, backup: {backup}"));
            let (before, after) = self.controller.put_back(backup)?;
            self.truth.restored(&before, &after);
            // Long enough for what it had said to be heard.
            sleep(Duration::from_secs(2)).await;
        }
        self.later(6_000, Undo::StartController);
        Ok(())
    }

    /// Users write other objects.
    fn publish(&mut self) -> Result<()> {
        self.version += 1;
        let mut names: BTreeSet<String> = BTreeSet::new();
        while names.is_empty() {
            names = NAMES
                .iter()
                .filter(|_| self.random.chance(60))
                .map(|name| (*name).to_owned())
                .collect();
        }
        self.trace.say("users", format!("version {}: {names:?}", self.version));
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.insert(self.version, names.clone());
        drop(published);
        self.controller.write_objects(self.version, &names)
    }

    /// Pods come, go and move; nodes and controller hear of it in any order.
    fn change_cluster(&mut self) -> Result<()> {
        let told_first = self.random.chance(50);
        if told_first {
            self.controller.change_cluster(self.nodes.len())?;
        }
        let newest = self.controller.versions().newest();
        for node in &self.nodes {
            node.common.pods.send_replace(newest.local_pods(node.common.number));
        }
        if !told_first {
            self.controller.change_cluster(self.nodes.len())?;
        }
        self.trace.say("cluster", format!("{:?}", self.controller.versions().newest()));
        Ok(())
    }

    /// No more faults, and nothing is used any more.
    async fn heal(&mut self) -> Result<()> {
        self.trace.say("world", "heals");
        self.undo.clear();
        self.network.set_weather(Weather { latency: 5, loss: 0 });
        self.controller.set_disk(Disk::Good);
        for link in 0..self.nodes.len() {
            self.network.release(link);
        }
        if self.controller.has_died() {
            self.controller.crash(Manner::Reset).await?;
        }
        if !self.controller.is_up() {
            self.controller.start()?;
        }
        let newest = self.controller.versions().newest();
        for node in &mut self.nodes {
            node.common.pods.send_replace(newest.local_pods(node.common.number));
            node.set_idle();
            if !node.is_up() {
                node.start()?;
            }
        }
        Ok(())
    }

    /// What a node was told last.
    pub(crate) fn told(node: &Node) -> Option<Arc<Snapshot>> {
        seen(node).told
    }

    /// A node was told exactly what the controller would tell it now, its own pods included, and
    /// stands there.
    fn stands(&self, node: &Node) -> bool {
        let Seen { told, applied, .. } = seen(node);
        let Common { name, number, .. } = &node.common;
        let Some((told, now)) = told.zip(self.controller.told(name)) else { return false };
        let newest = self.controller.versions().newest();
        Snapshot { generation: told.generation, ..now } == *told
            && applied == told.generation
            && newest.is_told_whole(&told, *number)
    }

    /// Waits until every node stands where it should and has told everything.
    async fn converge(&mut self) -> Result<()> {
        let end = Instant::now() + RECOVERY;
        let turns: Vec<u64> = self.nodes.iter().map(|node| seen(node).turns).collect();
        loop {
            self.check_broken()?;
            sleep_until(self.network.moment(WORLD, Duration::from_millis(500))).await;
            let behind = self
                .nodes
                .iter()
                .zip(&turns)
                .find(|(node, turns)| !self.stands(node) || seen(node).turns < **turns + 3);
            let Some((node, _)) = behind else { break };
            if Instant::now() > end {
                bail!(
                    "{} stands at {:?} and not at {:?} {} s after the last fault",
                    node.common.name,
                    seen(node),
                    self.controller.told(&node.common.name),
                    RECOVERY.as_secs()
                );
            }
        }
        for node in &self.nodes {
            node.command(Command::Pause);
        }
        // What was held back of an older attempt can still end a stream, which then comes again.
        let is_behind = |node: &&Node| node.backlog() != Some(0) || !seen(node).connected;
        while let Some(node) = self.nodes.iter().find(is_behind) {
            self.check_broken()?;
            if Instant::now() > end {
                let (backlog, Seen { connected, .. }) = (node.backlog(), seen(node));
                bail!(
                    "{} still has {backlog:?} records to tell, connected: {connected}",
                    node.common.name
                );
            }
            sleep_until(self.network.moment(WORLD, Duration::from_millis(500))).await;
        }
        self.trace.say("world", "has settled");
        Ok(())
    }
}

fn seen(node: &Node) -> Seen {
    node.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
