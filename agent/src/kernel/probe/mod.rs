//! What this node is: read, not decided. Texts come through [`Files`], which a test can point at
//! a directory of recorded files; making sense of them is in pure functions.

mod addresses;
mod error;
pub mod features;
pub mod mounts;
mod support;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bulkhead_core::amount::{Bytes, NanoCores, Pids};
use bulkhead_core::control::Device;
use bulkhead_core::{Capacities, NodeFacts, Support};
use nix::sys::stat::{SFlag, major, minor, stat};
use nix::unistd::{SysconfVar, sysconf};

pub use addresses::host_addresses;
pub use error::ProbeError;
pub use mounts::Cgroup2Mount;
pub use support::{ControlSupport, ControllerFacts, controls};

/// Nanocores of one CPU.
const ONE_CPU: u64 = 1_000_000_000;

/// Reads files of /proc and /sys, or of a directory that stands for /.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// This machine's.
    pub fn host() -> Self {
        Self::below(Path::new("/"))
    }

    /// Those below `root`, which stands for /.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, which must be there.
    fn need(&self, path: &'static str) -> Result<String, ProbeError> {
        std::fs::read_to_string(self.at(path)).map_err(|source| ProbeError::read(path, source))
    }

    /// As [`Self::need`], of a file with names that somebody else gave: they need not be text, and
    /// what is none in them is replaced.
    fn need_lossy(&self, path: &'static str) -> Result<String, ProbeError> {
        let bytes =
            std::fs::read(self.at(path)).map_err(|source| ProbeError::read(path, source))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's text; `None`: it is not there.
    fn find(&self, path: &str) -> Result<Option<String>, ProbeError> {
        match std::fs::read_to_string(self.at(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ProbeError::read(path, error)),
        }
    }

    fn is_there(&self, path: &str) -> bool {
        self.at(path).exists()
    }
}

/// What was found on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// As `uname -r` gives it.
    pub kernel_release: String,
    /// Random at each boot.
    pub boot_id: String,
    /// CPUs that are online.
    pub online_cpus: u32,
    /// `MemTotal`, bytes.
    pub memory_bytes: u64,
    /// `SwapTotal`, bytes.
    pub swap_bytes: u64,
    /// `kernel.pid_max`
    pub pid_max: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Where cgroup v2 is mounted; `None`: nowhere.
    pub cgroup2: Option<Cgroup2Mount>,
    /// Controllers, and what has them.
    pub controllers: ControllerFacts,
    /// Whether systemd is process 1 of this machine.
    pub systemd: bool,
    /// Active security modules; `None`: securityfs is not mounted.
    pub security_modules: Option<Vec<String>>,
    /// Whether the kernel's own types (BTF) can be read.
    pub btf: bool,
    /// Whether the kernel measures pressure (PSI).
    pub pressure: bool,
}

impl Probe {
    /// Reads everything.
    pub fn read(files: &Files) -> Result<Self, ProbeError> {
        let memory = files.need("/proc/meminfo")?;
        let modules = files.find("/sys/kernel/security/lsm")?;
        let (cgroup2, controllers) = controllers(files)?;
        Ok(Self {
            kernel_release: files.need("/proc/sys/kernel/osrelease")?.trim_end().to_owned(),
            boot_id: files.need("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned(),
            online_cpus: text::cpu_list(&files.need("/sys/devices/system/cpu/online")?)?,
            memory_bytes: text::meminfo(&memory, "MemTotal")?,
            swap_bytes: text::meminfo(&memory, "SwapTotal")?,
            pid_max: text::number(
                "/proc/sys/kernel/pid_max",
                &files.need("/proc/sys/kernel/pid_max")?,
            )?,
            page_bytes: page_bytes(),
            cgroup2,
            controllers,
            systemd: files.is_there("/run/systemd/system"),
            security_modules: modules.map(|list| text::comma_list(&list)),
            btf: files.is_there("/sys/kernel/btf/vmlinux"),
            pressure: files.is_there("/proc/pressure/cpu"),
        })
    }

    /// Which controls can be enforced below a root. `root_files`: the names of the files in our
    /// root's directory once it is there with its controllers enabled.
    pub fn controls(&self, root_files: Option<&BTreeSet<String>>) -> Vec<ControlSupport> {
        controls(self.cgroup2.as_ref(), &self.controllers, root_files)
    }

    /// What deciding needs. `devices`: block devices that objects name.
    pub fn node_facts(
        &self,
        controls: &[ControlSupport],
        addresses: BTreeSet<IpAddr>,
        devices: &BTreeSet<PathBuf>,
        capacities: Capacities,
    ) -> NodeFacts {
        let missing = controls
            .iter()
            .filter_map(|support| Some((support.control, support.result.as_ref().err()?.clone())));
        NodeFacts {
            cpu: NanoCores(u64::from(self.online_cpus) * ONE_CPU),
            memory: Bytes(self.memory_bytes),
            pids: Pids(self.pid_max),
            page_bytes: self.page_bytes,
            addresses,
            devices: block_devices(devices),
            support: Support { missing: missing.collect() },
            capacities,
            placement: bulkhead_core::Placement::Directory,
        }
    }
}

/// For people: one fact on each line.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is: bool| if is { "yes" } else { "no" };
        writeln!(f, "kernel             {}", self.kernel_release)?;
        writeln!(f, "boot id            {}", self.boot_id)?;
        writeln!(f, "CPUs online        {}", self.online_cpus)?;
        writeln!(f, "memory             {} bytes", self.memory_bytes)?;
        writeln!(f, "swap               {} bytes", self.swap_bytes)?;
        writeln!(f, "pid_max            {}", self.pid_max)?;
        match &self.cgroup2 {
            Some(mount) => writeln!(f, "cgroup v2          {}", mount.mount_point.display())?,
            None => writeln!(f, "cgroup v2          not mounted")?,
        }
        let list = |names: Vec<&str>| {
            if names.is_empty() { "none".into() } else { names.join(" ") }
        };
        let v2 = self.controllers.available.iter().map(String::as_str).collect();
        let v1 = self.controllers.bound_to_v1.iter().map(String::as_str).collect();
        writeln!(f, "  controllers      {}", list(v2))?;
        writeln!(f, "  bound to v1      {}", list(v1))?;
        writeln!(f, "systemd is PID 1   {}", yes(self.systemd))?;
        match &self.security_modules {
            Some(modules) => writeln!(f, "security modules   {}", modules.join(","))?,
            None => writeln!(f, "security modules   unknown: securityfs is not mounted")?,
        }
        writeln!(f, "BTF                {}", yes(self.btf))?;
        writeln!(f, "pressure (PSI)     {}", yes(self.pressure))
    }
}

fn controllers(files: &Files) -> Result<(Option<Cgroup2Mount>, ControllerFacts), ProbeError> {
    let mounts = mounts::parse(&files.need_lossy("/proc/self/mountinfo")?)?;
    let cgroup2 = mounts::cgroup2(&mounts);
    let in_mount = |file: &str| match &cgroup2 {
        Some(mount) => files.find(&mount.mount_point.join(file).to_string_lossy()),
        None => Ok(None),
    };
    let available = in_mount("cgroup.controllers")?.unwrap_or_default();
    // Absent on kernels built without cgroup v1.
    let table = files.find("/proc/cgroups")?.unwrap_or_default();
    let mut bound_to_v1 = text::bound_to_v1(&table)?;
    bound_to_v1.extend(mounts::v1_controllers(&mounts));
    let facts = ControllerFacts {
        available: available.split_ascii_whitespace().map(str::to_owned).collect(),
        bound_to_v1,
        disabled: text::disabled(&table)?,
        io_cost: in_mount("io.cost.qos")?.is_some_and(|text| text::io_cost_enabled(&text)),
    };
    Ok((cgroup2, facts))
}

fn page_bytes() -> u64 {
    // Linux never fails to tell its page size; 4 KiB is the least it has.
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u64::try_from(page).ok()).unwrap_or(4_096)
}

/// Those of the paths that are block devices now.
pub fn block_devices(paths: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Device> {
    let device = |path: &PathBuf| {
        let status = stat(path).ok()?;
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        let number = |part: u64| u32::try_from(part).ok();
        let (major, minor) = (number(major(status.st_rdev))?, number(minor(status.st_rdev))?);
        (kind == SFlag::S_IFBLK).then_some((path.clone(), Device { major, minor }))
    };
    paths.iter().filter_map(device).collect()
}

#[cfg(test)]
mod tests;
