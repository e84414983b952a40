//! A root with many cgroups, of which every second one has a process that burns.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_agent::kernel::cgroup::{CgroupReading, CgroupTree};
use bulkhead_core::{Controller, VirtualClusterName};
use bulkhead_tests::sandbox::cgroup2_mount;

use super::burner;
use super::ways::Ways;

/// How long processes may take to freeze, thaw or die.
const PATIENCE: Duration = Duration::from_mins(1);

/// The cgroups and the processes in them; dropped, all of it is gone.
pub(super) struct Scene {
    tree: Option<CgroupTree>,
    burners: Vec<Child>,
    busy: Vec<VirtualClusterName>,
}

impl Scene {
    pub(super) fn new(cgroups: usize, pinned: usize) -> Result<Self> {
        let root = cgroup2_mount()?.join(format!("bulkhead-test-bench-{}", std::process::id()));
        let tree = CgroupTree::create(&root).context("make a root for the benchmark")?;
        let mut scene = Self { tree: Some(tree), burners: Vec::new(), busy: Vec::new() };
        for (controller, reason) in scene.tree().enable(&BTreeSet::from(Controller::ALL)) {
            eprintln!("without {controller}: {reason}");
        }
        for index in 0..cgroups {
            let name: VirtualClusterName = format!("vc{index}").parse()?;
            scene.tree().create_virtual_cluster(&name).context("make a cgroup")?;
            if index % 2 == 0 {
                scene.start_burner(&name, pinned)?;
                scene.busy.push(name);
            }
        }
        scene.wait_until_all_burn()?;
        Ok(scene)
    }

    pub(super) fn tree(&self) -> &CgroupTree {
        self.tree.as_ref().expect("there until it is dropped")
    }

    fn start_burner(&mut self, name: &VirtualClusterName, pinned: usize) -> Result<()> {
        let mut command = Command::new(env::current_exe().context("find this program")?);
        command.arg("usage-burner").arg("--cgroup").arg(self.tree().path().join(name.as_str()));
        if burner::processors()? > 1 {
            command.args(["--off", &pinned.to_string()]);
        }
        let burner = command.stdin(Stdio::null()).spawn().context("start a burner")?;
        self.burners.push(burner);
        Ok(())
    }

    fn wait_until_all_burn(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.busy.iter().all(|name| self.has_burnt(name)) {
            ensure!(Instant::now() < deadline, "not every burner burns within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn has_burnt(&self, name: &VirtualClusterName) -> bool {
        let file: PathBuf = self.tree().path().join(name.as_str()).join("cpu.stat");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        first.split(' ').nth(1).is_some_and(|usage| usage.parse().unwrap_or(0_u64) > 1_000)
    }

    /// Freezes everything, compares every value with the file's, and thaws. Returns how many
    /// values were compared.
    pub(super) fn check(&self, ways: &mut Ways) -> Result<usize> {
        self.freeze(true)?;
        let compared = self.compare(ways);
        self.freeze(false)?;
        compared
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        let root = self.tree().path();
        let state = if frozen { "1" } else { "0" };
        std::fs::write(root.join("cgroup.freeze"), state).context("freeze or thaw")?;
        let deadline = Instant::now() + PATIENCE;
        let wanted = format!("frozen {state}");
        while !std::fs::read_to_string(root.join("cgroup.events"))?.contains(&wanted) {
            ensure!(Instant::now() < deadline, "not \"{wanted}\" within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn compare(&self, ways: &mut Ways) -> Result<usize> {
        let files = ways.read_files(self.tree())?;
        let told = ways.read_sampler(self.tree())?;
        ensure!(files.len() == told.len(), "{} in files, {} told", files.len(), told.len());
        for (name, expected) in &files {
            let told = told.get(name).with_context(|| format!("{name} was not told of"))?;
            ensure!(told == expected, "{name}: told {told:?}, but its files say {expected:?}");
        }
        for name in &self.busy {
            let usage = files.get(name).and_then(|reading| reading.counters.cpu);
            ensure!(usage.is_some_and(|cpu| cpu.usage_nanoseconds > 0), "{name} was not busy");
        }
        ways.compare_cpu(&files)?;
        Ok(files.values().map(values).sum())
    }
}

/// How many numbers a reading has.
fn values(reading: &CgroupReading) -> usize {
    let CgroupReading { counters, .. } = reading;
    let cpu = counters.cpu.map_or(0, |cpu| 3 + 2 * usize::from(cpu.throttled.is_some()));
    let memory = counters.memory.map_or(0, |memory| 2 + usize::from(memory.peak_bytes.is_some()));
    let io = counters.io.map_or(0, |_| 4);
    let pids = counters.pids.map_or(0, |pids| 2 + usize::from(pids.peak.is_some()));
    let pressure = counters.pressure.map_or(0, |_| 5);
    // And the cgroups below, living and dying.
    cpu + memory + io + pids + pressure + 2
}

impl Drop for Scene {
    fn drop(&mut self) {
        for burner in &mut self.burners {
            let _ = burner.kill();
        }
        // A frozen process dies, too, but what is frozen must not stay so if this was a panic.
        if let Err(error) = self.freeze(false) {
            eprintln!("left frozen: {error:#}");
        }
        for burner in &mut self.burners {
            let _ = burner.wait();
        }
        if let Some(tree) = self.tree.take()
            && let Err(error) = tree.kill_and_remove(PATIENCE)
        {
            eprintln!("left behind: {error}");
        }
    }
}

/// All readings of a pass, or why not.
pub(super) type Readings = BTreeMap<VirtualClusterName, CgroupReading>;

pub(super) fn whole(pass: bulkhead_agent::kernel::cgroup::SamplerPass) -> Result<Readings> {
    if let Some((name, error)) = pass.failed.into_iter().next() {
        bail!("{name}: {error}");
    }
    Ok(pass.readings)
}
