//! A controller, an agent, and what they have to look after.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_agent::kernel::cgroup::CgroupTree;
use bulkhead_tests::sandbox::cgroup2_mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::Process;

/// How long all that may take to stand, and to end.
const PATIENCE: Duration = Duration::from_mins(3);
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Everything that this benchmark makes; dropped, it is gone.
pub(super) struct Scene {
    burners: Vec<Child>,
    daemons: Vec<(Child, PathBuf)>,
    home: PathBuf,
    root: PathBuf,
    /// Whether the kernel measured its programs before.
    statistics: String,
    peak_at_start: u64,
}

impl Scene {
    pub(super) fn new(programs: &Path, virtual_clusters: usize, leaves: usize) -> Result<Self> {
        let programs = fs::canonicalize(programs).context("find the programs")?;
        let name = format!("bulkhead-test-footprint-{}", std::process::id());
        let statistics = fs::read_to_string(STATISTICS).context("read bpf_stats_enabled")?;
        let home = env::temp_dir().join(&name);
        fs::create_dir(&home).with_context(|| format!("create {}", home.display()))?;
        let root = cgroup2_mount()?.join(&name);
        let (burners, daemons) = (Vec::new(), Vec::new());
        let mut scene = Self { burners, daemons, home, root, statistics, peak_at_start: 0 };
        fs::write(STATISTICS, "1").context("let the kernel measure its programs")?;
        scene.mount_bpffs()?;
        scene.write_objects(virtual_clusters)?;
        scene.start(&programs, "bulkhead-controller")?;
        scene.start(&programs, "bulkhead-agent")?;
        scene.wait_for(virtual_clusters)?;
        scene.fill(virtual_clusters, leaves)?;
        Ok(scene)
    }

    pub(super) fn agent_id(&self) -> u32 {
        self.daemons.last().map_or(0, |(child, _)| child.id())
    }

    /// The agent's largest `RssAnon` until everything stood.
    pub(super) fn peak_at_start(&self) -> u64 {
        self.peak_at_start
    }

    pub(super) fn controllers(&self) -> Result<String> {
        let text = fs::read_to_string(self.root.join("cgroup.subtree_control"))?;
        let text = text.trim();
        Ok(if text.is_empty() { "none".to_owned() } else { text.to_owned() })
    }

    /// In mounts that only this process and its children see.
    fn mount_bpffs(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("get mounts of our own")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("keep mounts")?;
        let bpffs = self.home.join("bpf");
        fs::create_dir(&bpffs).with_context(|| format!("create {}", bpffs.display()))?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mount a BPF file system")
    }

    fn write_objects(&self, virtual_clusters: usize) -> Result<()> {
        let dir = self.home.join("objects");
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let mut text = "apiVersion: bulkhead.dev/v1alpha1\nkind: BulkheadConfig\nmetadata:\n  \
                        name: bulkhead\nspec:\n  clusterRanges: [\"198.18.0.0/16\"]\n"
            .to_owned();
        for index in 0..virtual_clusters {
            write!(
                text,
                "---\napiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata:\n  \
                 name: vc{index}\nspec:\n  members:\n    addresses: [\"198.18.{}.{}\"]\n  \
                 network:\n    mode: Enforce\n",
                index / 250,
                index % 250 + 1
            )?;
        }
        let file = dir.join("all.yaml");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    fn start(&mut self, programs: &Path, name: &'static str) -> Result<()> {
        let at = |file: &str| self.home.join(file);
        let socket = |file: &str| format!("unix:{}", at(file).display());
        let mut command = Command::new(programs.join(name));
        if name == "bulkhead-controller" {
            command.arg("--config").arg(at("objects")).arg("--data-dir").arg(at("data"));
            command.args(["--agents-listen", &socket("agents.sock")]);
            command.args(["--operators-listen", &socket("operators.sock")]);
        } else {
            command.arg("--cgroup-root").arg(&self.root);
            command.arg("--bpffs").arg(at("bpf/bulkhead")).arg("--run-dir").arg(at("run"));
            command.args(["run", "--node", "bench", "--sample-interval", "1s"]);
            command.args(["--controller", &socket("agents.sock")]);
            command.arg("--state-dir").arg(at("state"));
            command.arg("--bpf-object").arg(programs.join("bulkhead.bpf.o"));
        }
        let log = at(&format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let daemon = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.daemons.push((daemon, log));
        Ok(())
    }

    fn wait_for(&mut self, virtual_clusters: usize) -> Result<()> {
        let agent = Process::new(self.agent_id());
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (daemon, log) in &mut self.daemons {
                if let Some(status) = daemon.try_wait()? {
                    let text = fs::read_to_string(&*log).unwrap_or_default();
                    bail!("{} ended with {status}:\n{text}", log.display());
                }
            }
            self.peak_at_start = self.peak_at_start.max(agent.anonymous_bytes()?);
            let there = (0..virtual_clusters)
                .filter(|index| self.root.join(format!("vc{index}")).is_dir())
                .count();
            if there == virtual_clusters {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{there} virtual clusters within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn fill(&mut self, virtual_clusters: usize, leaves: usize) -> Result<()> {
        let program = env::current_exe().context("find this program")?;
        let all = (0..virtual_clusters).flat_map(|cluster| (0..leaves).map(move |l| (cluster, l)));
        for (number, (cluster, leaf)) in all.enumerate() {
            let dir = self.root.join(format!("vc{cluster}")).join(format!("leaf{leaf}"));
            fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
            if number % 2 == 0 {
                let mut command = Command::new(&program);
                command.arg("usage-burner").arg("--cgroup").arg(&dir);
                command.args(["--burn", "50", "--pause", "1000", "--send", "2"]);
                let burner = command.stdin(Stdio::null()).spawn().context("start a burner")?;
                self.burners.push(burner);
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        for burner in &mut self.burners {
            let _ = burner.kill();
            let _ = burner.wait();
        }
        for (daemon, _) in self.daemons.iter_mut().rev() {
            if let Ok(id) = i32::try_from(daemon.id()) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            let _ = daemon.wait();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end();
        if let Err(error) = fs::write(STATISTICS, &self.statistics) {
            eprintln!("{STATISTICS} stays at 1: {error}");
        }
        // Unmounted, the pins are gone, and the programs with them.
        let _ = umount2(&self.home.join("bpf"), MntFlags::MNT_DETACH);
        if let Ok(tree) = CgroupTree::open(&self.root)
            && let Err(error) = tree.kill_and_remove(PATIENCE)
        {
            eprintln!("left behind: {error}");
        }
        if let Err(error) = fs::remove_dir_all(&self.home) {
            eprintln!("left behind: {}: {error}", self.home.display());
        }
    }
}
