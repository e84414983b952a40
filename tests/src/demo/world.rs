//! Everything that a demo makes, from the network to the processes; dropped, it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use serde_json::Value;

use super::child::Speaker;
use super::leftovers::{self, Footprint};
use super::network::{Host, Network};
use super::objects::Objects;
use super::operator::Operator;
use super::program::{Daemon, Programs};
use super::run::Options;
use super::sabotage::Sabotage;
use super::{prefix, wait};
use crate::sandbox::cgroup2_mount;

/// What is broken on purpose is waited for this much shorter: still several times as long as it
/// takes where it is not broken.
const BROKEN_SHARE: u32 = 6;

/// Which half of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Only {
    /// What needs eBPF on cgroup v2.
    Network,
    /// What needs the controllers cpu, memory, io and pids in cgroup v2.
    Limits,
}

/// Which version of the agent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Version {
    /// This one.
    #[default]
    Ours,
    /// One of another ABI version.
    Next,
}

impl Version {
    const fn agent(self) -> &'static str {
        match self {
            Self::Ours => "bulkhead-agent",
            Self::Next => "bulkhead-agent-next",
        }
    }

    const fn object(self) -> &'static str {
        match self {
            Self::Ours => "bulkhead.bpf.o",
            Self::Next => "bulkhead-next.bpf.o",
        }
    }
}

/// Everything that a demo makes.
#[derive(Debug)]
pub(crate) struct World {
    // In the order in which they are dropped: who sends and who counts end before the rest.
    sessions: BTreeMap<Host, Speaker>,
    pub(crate) agent: Option<Daemon>,
    pub(crate) controller: Option<Daemon>,
    cgroups: CgroupRoot,
    pub(crate) network: Network,
    pub(crate) objects: Objects,
    pub(crate) operator: Operator,
    /// What was seen of ours in the kernel at any time.
    pub(crate) footprint: Footprint,
    home: Home,
    programs: Programs,
    /// What the daemons are told besides.
    pub(crate) extras: Extras,
    /// The agent that is started.
    pub(crate) version: Version,
    /// How many virtual clusters there are.
    pub(crate) virtual_clusters: usize,
    sabotage: Option<Sabotage>,
    patience: Duration,
}

/// What the daemons are told besides where things are.
#[derive(Clone, Default, Debug)]
pub(crate) struct Extras {
    /// Arguments of the agent.
    pub(crate) agent: Vec<String>,
    /// Environment of the agent.
    pub(crate) agent_env: BTreeMap<String, String>,
    /// Environment of the controller.
    pub(crate) controller_env: BTreeMap<String, String>,
}

impl World {
    /// Makes it, and returns when three virtual clusters stand on this node.
    pub(crate) fn new(options: &Options, sabotage: Option<Sabotage>) -> Result<Self> {
        let mut world = Self::prepare(options, sabotage)?;
        world.start_controller()?;
        world.start_agent()?;
        for host in Host::ALL {
            let session = world.start(host, "bh-traffic", "session")?;
            world.sessions.insert(host, session);
        }
        Ok(world)
    }

    /// Makes it, and starts nothing.
    ///
    /// The calling thread, which must be the only one, gets mounts of its own.
    pub(crate) fn prepare(options: &Options, sabotage: Option<Sabotage>) -> Result<Self> {
        ensure!(geteuid().is_root(), "the demo makes cgroups and namespaces: run it as root");
        let programs = Programs::find(&options.programs)?;
        let home = Home::create()?;
        let operator = Operator {
            bulkheadctl: programs.path("bulkheadctl"),
            server: unix(&home.0.join("operators.sock")),
            since: "1h",
        };
        Ok(Self {
            sessions: BTreeMap::new(),
            agent: None,
            controller: None,
            cgroups: CgroupRoot::choose()?,
            network: Network::new().context("make network namespaces")?,
            objects: Objects::create(home.0.join("objects"))?,
            operator,
            footprint: Footprint::default(),
            home,
            programs,
            extras: Extras::default(),
            version: Version::Ours,
            virtual_clusters: 3,
            sabotage,
            patience: options.patience,
        })
    }

    /// How long to wait for what should come.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// How long to wait in the check that `sabotage` turns red: what it broke never comes.
    pub(crate) fn patience_unless(&self, sabotage: Sabotage) -> Duration {
        if self.broken(sabotage) { self.patience / BROKEN_SHARE } else { self.patience }
    }

    /// Whether this is to be broken.
    pub(crate) fn broken(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// The root of the virtual clusters' cgroups.
    pub(crate) fn cgroup_root(&self) -> &Path {
        &self.cgroups.0
    }

    /// A file of a virtual cluster's cgroup.
    pub(crate) fn cgroup_file(&self, virtual_cluster: &str, file: &str) -> PathBuf {
        self.cgroups.0.join(virtual_cluster).join(file)
    }

    /// Where the agent pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.home.bpffs().join("bulkhead")
    }

    /// A file beside everything else.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.0.join(name)
    }

    /// The controller's ledger.
    pub(crate) fn controller_data(&self) -> PathBuf {
        self.home.0.join("controller")
    }

    /// The agent's journal, and what the controller said last.
    pub(crate) fn agent_state(&self) -> PathBuf {
        self.home.0.join("state")
    }

    /// Starts the controller.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        let mut command = self.command("bulkhead-controller");
        command.arg("--config").arg(self.objects.dir());
        command.arg("--data-dir").arg(self.controller_data());
        command.arg("--agents-listen").arg(unix(&self.home.0.join("agents.sock")));
        command.arg("--operators-listen").arg(&self.operator.server);
        command.envs(&self.extras.controller_env);
        self.controller = Some(Daemon::start("bulkhead-controller", command, &self.home.0)?);
        Ok(())
    }

    /// Starts the agent, and returns when everything stands and the controller knows.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        // What the controller remembers of an agent before this one says nothing.
        let since = jiff::Timestamp::now();
        self.spawn_agent()?;
        self.wait_until_applied(since)?;
        self.footprint.add(&self.pins())
    }

    /// Starts the agent, and waits for nothing.
    pub(crate) fn spawn_agent(&mut self) -> Result<()> {
        let mut command = self.agent_command();
        command.arg("run").args(["--node", "demo", "--sample-interval", "1s", "--window", "1s"]);
        command.arg("--controller").arg(unix(&self.home.0.join("agents.sock")));
        command.arg("--state-dir").arg(self.agent_state());
        command.arg("--bpf-object").arg(self.programs.path(self.version.object()));
        command.args(&self.extras.agent).envs(&self.extras.agent_env);
        self.agent = Some(Daemon::start("bulkhead-agent", command, &self.home.0)?);
        Ok(())
    }

    /// Waits until the agent has said, after `since`, that it stands where the controller wants.
    pub(crate) fn wait_until_applied(&mut self, since: jiff::Timestamp) -> Result<()> {
        let (operator, patience, count) =
            (self.operator.clone(), self.patience, self.virtual_clusters);
        let (agent, controller) = (&mut self.agent, &mut self.controller);
        wait::until("the agent has applied what the controller wants", patience, |note| {
            for daemon in [&mut *agent, &mut *controller].into_iter().flatten() {
                daemon.check()?;
            }
            // Until the controller listens, asking it fails.
            let node = match operator.node() {
                Ok(Some(node)) => node,
                Ok(None) => return Ok(None),
                Err(error) => {
                    *note = format!("{error:#}");
                    return Ok(None);
                }
            };
            *note = format!("{node:?}");
            let stands = |state: &str| state == "Applied" || state == "Degraded";
            let applied = node.connection == "Connected"
                && node.last_seen.is_some_and(|seen| seen > since)
                && node.wanted_generation > 0
                && node.applied_generation == node.wanted_generation
                && node.virtual_clusters.len() == count
                && node.virtual_clusters.iter().all(|standing| stands(&standing.state));
            Ok(applied.then_some(()))
        })
    }

    /// Runs a line of `bh-traffic` to its end in the process that lives in `host` all the time.
    pub(crate) fn say(&mut self, host: Host, line: &str) -> Result<Value> {
        let session = self.sessions.get_mut(&host).context("the session has ended")?;
        session.ask(line)
    }

    /// Starts a program of ours inside the virtual cluster of `host`, in its namespace.
    pub(crate) fn start(&self, host: Host, program: &str, line: &str) -> Result<Speaker> {
        let mut command = self.exec(host.virtual_cluster());
        let namespace = self.network.host(host).path();
        command.arg("nsenter").arg(format!("--net={}", namespace.display()));
        command.arg(self.programs.path(program)).args(line.split_whitespace());
        let what = format!("{program} {line} in {}", host.name());
        Speaker::start(command, what, self.patience)
    }

    /// Starts a server in `host`, and returns when it is ready.
    pub(crate) fn serve(&self, host: Host, line: &str) -> Result<Speaker> {
        let mut server = self.start(host, "bh-traffic", line)?;
        server.next()?;
        Ok(server)
    }

    /// `bulkhead-agent exec` into a virtual cluster; the command follows.
    pub(crate) fn exec(&self, virtual_cluster: &str) -> Command {
        let mut command = self.agent_command();
        command.args(["exec", "--virtual-cluster", virtual_cluster, "--"]);
        command
    }

    /// `bulkhead-agent`, told where things are; a subcommand follows.
    pub(crate) fn agent_command(&self) -> Command {
        let mut command = self.command(self.version.agent());
        command.arg("--cgroup-root").arg(self.cgroup_root());
        command.arg("--bpffs").arg(self.pins());
        command.arg("--run-dir").arg(self.home.0.join("run"));
        command
    }

    /// The path of a program of ours.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// A program of ours.
    pub(crate) fn command(&self, program: &str) -> Command {
        Command::new(self.programs.path(program))
    }

    /// Ends what runs inside the virtual clusters.
    pub(crate) fn end_workloads(&mut self) -> Result<()> {
        self.sessions.clear();
        self.cgroups.kill()
    }

    /// Ends both daemons: whose, whether well, and with which status.
    pub(crate) fn end_daemons(&mut self) -> Result<Vec<(&'static str, bool, ExitStatus)>> {
        let daemons = [("agent", self.agent.take()), ("controller", self.controller.take())];
        let end = |(name, daemon): (&'static str, Option<Daemon>)| {
            let status = daemon.with_context(|| format!("the {name} does not run"))?;
            let status = status.end(self.patience)?;
            Ok((name, status.success(), status))
        };
        daemons.into_iter().map(end).collect()
    }
}

/// An address with a port.
pub(crate) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// The directory of everything that has a path, with a BPF file system that only this process
/// and its children see: when they end, it is gone, and with it whatever is pinned.
#[derive(Debug)]
struct Home(PathBuf);

impl Home {
    fn create() -> Result<Self> {
        let path = leftovers::home(std::process::id());
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let home = Self(path);
        unshare(CloneFlags::CLONE_NEWNS).context("get mounts of our own")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .context("keep our mounts to ourselves")?;
        let bpffs = home.bpffs();
        fs::create_dir(&bpffs).with_context(|| format!("create {}", bpffs.display()))?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF file system at {}", bpffs.display()))?;
        Ok(home)
    }

    fn bpffs(&self) -> PathBuf {
        self.0.join("bpf")
    }
}

/// What is mounted below a directory, the newest first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = paths.filter(|path| path.starts_with(dir)).collect();
    below.reverse();
    below
}

impl Drop for Home {
    fn drop(&mut self) {
        for path in mounts_below(&self.0) {
            if let Err(error) = umount2(&path, MntFlags::MNT_DETACH) {
                eprintln!("left behind: {}: {error}", path.display());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// The root of the virtual clusters' cgroups, which the agent makes.
#[derive(Debug)]
struct CgroupRoot(PathBuf);

impl CgroupRoot {
    fn choose() -> Result<Self> {
        Ok(Self(cgroup2_mount()?.join(format!("{}{}", prefix(), std::process::id()))))
    }

    /// Kills what runs below it.
    fn kill(&self) -> Result<()> {
        leftovers::kill_cgroup(&self.0)
    }
}

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove_cgroup(&self.0) {
            eprintln!("left behind: {error:#}");
        }
    }
}
