//! What happens to the agent: death, sleep, and the loss of its programs.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::leftovers::Footprint;
use super::sabotage::Sabotage;
use super::wait;
use super::world::World;

/// The agent, stopped; goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        // Fails only when the agent was killed meanwhile.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

impl World {
    /// Kills the agent (SIGKILL), and returns when it is dead.
    pub(crate) fn kill_agent(&mut self) -> Result<()> {
        let patience = self.patience();
        self.agent.take().context("the agent does not run")?.kill(patience)
    }

    /// Stops the agent, if this is to be broken.
    pub(crate) fn freeze_agent_if(&self, sabotage: Sabotage) -> Result<Option<Frozen>> {
        self.broken(sabotage).then(|| self.freeze_agent()).transpose()
    }

    /// Stops the agent.
    pub(crate) fn freeze_agent(&self) -> Result<Frozen> {
        let agent = self.agent.as_ref().context("the agent does not run")?;
        agent.signal(Signal::SIGSTOP)?;
        let pid = Pid::from_raw(i32::try_from(agent.id())?);
        // All its threads have to stop, and a thread may be in the kernel.
        thread::sleep(Duration::from_millis(20));
        Ok(Frozen(pid))
    }

    /// Takes programs off that a dead agent left in place, and returns when they are off.
    pub(crate) fn take_off(&self, programs: &[&str]) -> Result<()> {
        ensure!(self.agent.is_none(), "a living agent would keep its links");
        let mut links = Footprint::default();
        for program in programs {
            let link = self.link(program)?;
            links.add_link(&link)?;
            fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
        }
        // The kernel lets go of a link some time after its last name.
        let what = "programs whose links have no name any more are off";
        wait::until(what, self.patience(), |_| Ok((!links.may_run()).then_some(())))
    }

    /// If this is to be broken: kills the agent and takes programs off. [`Self::mend`] follows.
    pub(crate) fn break_programs_if(
        &mut self,
        sabotage: Sabotage,
        programs: &[&str],
    ) -> Result<()> {
        if self.broken(sabotage) {
            self.kill_agent()?;
            self.take_off(programs)?;
        }
        Ok(())
    }

    /// Starts the agent where it does not run: it puts everything in place again.
    pub(crate) fn mend(&mut self) -> Result<()> {
        if self.agent.is_none() {
            self.start_agent()?;
        }
        Ok(())
    }

    /// Writes a control file of a virtual cluster behind the agent's back.
    pub(crate) fn meddle(&self, virtual_cluster: &str, file: &str, value: &str) -> Result<()> {
        let path = self.cgroup_file(virtual_cluster, file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }

    /// Reads a control file of a virtual cluster.
    pub(crate) fn control(&self, virtual_cluster: &str, file: &str) -> Result<String> {
        let path = self.cgroup_file(virtual_cluster, file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    fn link(&self, program: &str) -> Result<PathBuf> {
        let pins = self.pins();
        let versions = fs::read_dir(&pins).with_context(|| format!("list {}", pins.display()))?;
        versions
            .filter_map(|version| Some(version.ok()?.path().join("links").join(program)))
            .find(|link| link.exists())
            .with_context(|| format!("no link of {program} below {}", pins.display()))
    }
}
