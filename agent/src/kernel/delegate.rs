//! Where our root is. Where systemd is process 1 it is the only writer of the hierarchy, so the
//! root is a unit whose inside it leaves to us; elsewhere it is a plain directory.
//!
//! The unit is a service that does nothing: its one process sleeps in a cgroup of its own beside
//! the virtual clusters', and holds the unit's cgroup, whatever happens to the agent. Without a
//! process systemd removes the cgroup (of a oneshot service that remains after its exit, too:
//! tried with 257); a scope would end with its last process; a slice cannot be delegated, so
//! systemd would take back the controllers that we enable below it. Should the sleeper be killed,
//! the unit lives on while any process of a virtual cluster does (`ExitType=cgroup`), and is
//! started again after that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zbus::blocking::{Connection, Proxy};
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

use super::cgroup::{CgroupError, CgroupTree, HOLDER};
use super::probe::Probe;

/// Our unit, where no other is asked for.
pub const UNIT: &str = "bulkhead-tenants.service";
/// Our directory, where systemd does not run.
pub const DIRECTORY: &str = "bulkhead";

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
/// Names the cgroup of the sleeper (254); older ones cannot start it again once the controllers
/// are enabled.
const LEAST_VERSION: u32 = 254;
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How long systemd may take for a job.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Where the virtual clusters' cgroups are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// A directory of our own.
    Directory(PathBuf),
    /// The inside of a unit of systemd's.
    DelegatedUnit {
        /// The unit's name.
        unit: String,
        /// Its cgroup's directory.
        path: PathBuf,
    },
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// There is no cgroup v2.
    #[error("cgroup v2 is not mounted on this node; mount it (`mount -t cgroup2 none DIR`)")]
    NotMounted,
    /// systemd cannot be reached or refused.
    #[error(
        "cannot {operation} unit {unit} over D-Bus; the agent needs root and the host's \
         /run/dbus/system_bus_socket"
    )]
    Bus {
        /// What was asked for.
        operation: &'static str,
        /// The unit.
        unit: String,
        /// The answer.
        #[source]
        source: Box<zbus::Error>,
    },
    /// systemd lacks what we need.
    #[error(
        "systemd {version} cannot keep processes of a delegated unit in a cgroup of their own \
         (DelegateSubgroup=, since 254); give a directory directly below the cgroup v2 mount \
         (--cgroup-root)"
    )]
    TooOld {
        /// Its version.
        version: String,
    },
    /// A unit of that name is not ours.
    #[error(
        "unit {unit} is there, and {problem}; stop it (`systemctl stop {unit}`) or give another \
         root (--cgroup-root)"
    )]
    Unusable {
        /// The unit.
        unit: String,
        /// What is wrong with it.
        problem: String,
    },
    /// systemd did not finish.
    #[error("unit {unit} is still {state} after {seconds} s; see `systemctl status {unit}`")]
    Timeout {
        /// The unit.
        unit: String,
        /// Its `ActiveState`.
        state: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The directory.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl Root {
    /// The root for this node: `asked` if a person gave a directory, else a unit where systemd
    /// runs, else a directory at the top of cgroup v2. Nothing is made yet.
    ///
    /// Call it, and everything here, from a plain thread: the D-Bus client blocks.
    pub fn choose(probe: &Probe, asked: Option<&Path>) -> Result<Self, DelegateError> {
        if let Some(directory) = asked {
            return Ok(Self::Directory(directory.to_owned()));
        }
        let mount = &probe.cgroup2.as_ref().ok_or(DelegateError::NotMounted)?.mount_point;
        Ok(if probe.systemd {
            Self::DelegatedUnit { unit: UNIT.to_owned(), path: mount.join(UNIT) }
        } else {
            Self::Directory(mount.join(DIRECTORY))
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::DelegatedUnit { path, .. } => path,
        }
    }

    /// Opens the root, and makes it where it is not there.
    pub fn make(&self) -> Result<CgroupTree, DelegateError> {
        match self {
            Self::Directory(path) => Ok(CgroupTree::create(path)?),
            Self::DelegatedUnit { unit, path } => {
                let systemd = Systemd::connect(unit)?;
                systemd.start()?;
                let group = systemd.control_group()?;
                let group = Path::new(group.trim_start_matches('/'));
                if group.as_os_str().is_empty() || !path.ends_with(group) {
                    let (group, path) = (group.display(), path.display());
                    let problem = format!("its cgroup is \"/{group}\", not that of {path}");
                    return Err(DelegateError::Unusable { unit: unit.clone(), problem });
                }
                Ok(CgroupTree::open(path)?)
            }
        }
    }

    /// Removes the root with everything in it; false: it was not there. While a process lives in
    /// it, nothing is removed.
    pub fn unmake(&self) -> Result<bool, DelegateError> {
        let tree = match CgroupTree::open(self.path()) {
            Err(CgroupError::System { errno: nix::errno::Errno::ENOENT, .. }) => None,
            other => Some(other?),
        };
        match (self, tree) {
            (Self::Directory(_), None) => Ok(false),
            (Self::Directory(_), Some(tree)) => tree.remove().map(|()| true).map_err(Into::into),
            (Self::DelegatedUnit { unit, .. }, tree) => {
                // Stopping a unit kills what lives in it: so first everything must be empty.
                if let Some(tree) = tree {
                    tree.remove_virtual_clusters()?;
                }
                Systemd::connect(unit)?.stop()
            }
        }
    }
}

/// systemd's manager, and one unit of it.
struct Systemd<'u> {
    bus: Connection,
    unit: &'u str,
}

impl<'u> Systemd<'u> {
    fn connect(unit: &'u str) -> Result<Self, DelegateError> {
        let bus = Connection::system().map_err(|error| bus_error("reach", unit, error))?;
        Ok(Self { bus, unit })
    }

    fn manager(&self, operation: &'static str) -> Result<Proxy<'static>, DelegateError> {
        Proxy::new(&self.bus, MANAGER, MANAGER_PATH, MANAGER_INTERFACE)
            .map_err(|error| bus_error(operation, self.unit, error))
    }

    /// The unit's object; `None`: systemd does not know such a unit.
    fn object(&self) -> Result<Option<OwnedObjectPath>, DelegateError> {
        match self.manager("find")?.call("GetUnit", &self.unit) {
            Ok(path) => Ok(Some(path)),
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == NO_SUCH_UNIT => Ok(None),
            Err(error) => Err(bus_error("find", self.unit, error)),
        }
    }

    fn property<T>(
        &self,
        interface: &'static str,
        name: &'static str,
    ) -> Result<Option<T>, DelegateError>
    where
        T: TryFrom<OwnedValue>,
        T::Error: Into<zbus::Error>,
    {
        let Some(object) = self.object()? else {
            return Ok(None);
        };
        let failed = |error| bus_error("read", self.unit, error);
        // Without a cache: nothing may be answered from before.
        let proxy = zbus::blocking::proxy::Builder::<Proxy<'_>>::new(&self.bus)
            .destination(MANAGER)
            .and_then(|builder| builder.path(object))
            .and_then(|builder| builder.interface(interface))
            .map(|builder| builder.cache_properties(zbus::proxy::CacheProperties::No))
            .and_then(zbus::blocking::proxy::Builder::build)
            .map_err(failed)?;
        proxy.get_property(name).map(Some).map_err(failed)
    }

    /// `ActiveState`; a unit that systemd does not know is "inactive".
    fn state(&self) -> Result<String, DelegateError> {
        let state = self.property(UNIT_INTERFACE, "ActiveState")?;
        Ok(state.unwrap_or_else(|| "inactive".to_owned()))
    }

    /// Starts the unit, or finds that it is active already.
    fn start(&self) -> Result<(), DelegateError> {
        let version: String = self
            .manager("prepare")?
            .get_property("Version")
            .map_err(|error| bus_error("prepare", self.unit, error))?;
        if major(&version).is_none_or(|major| major < LEAST_VERSION) {
            return Err(DelegateError::TooOld { version });
        }
        if self.state()? == "failed" {
            let reset: zbus::Result<()> =
                self.manager("reset")?.call("ResetFailedUnit", &self.unit);
            reset.map_err(|error| bus_error("reset", self.unit, error))?;
        }
        if self.state()? == "inactive" {
            let no_others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
            let arguments = (self.unit, "fail", properties(), no_others);
            let started: zbus::Result<OwnedObjectPath> =
                self.manager("start")?.call("StartTransientUnit", &arguments);
            started.map_err(|error| bus_error("start", self.unit, error))?;
        }
        self.wait_until("active")?;
        if self.property(SERVICE_INTERFACE, "Delegate")? == Some(true) {
            return Ok(());
        }
        let problem = "it is not delegated (Delegate=no)".to_owned();
        Err(DelegateError::Unusable { unit: self.unit.to_owned(), problem })
    }

    fn control_group(&self) -> Result<String, DelegateError> {
        Ok(self.property(SERVICE_INTERFACE, "ControlGroup")?.unwrap_or_default())
    }

    fn stop(&self) -> Result<bool, DelegateError> {
        if self.object()?.is_none() {
            return Ok(false);
        }
        let stopped: zbus::Result<OwnedObjectPath> =
            self.manager("stop")?.call("StopUnit", &(self.unit, "replace"));
        stopped.map_err(|error| bus_error("stop", self.unit, error))?;
        self.wait_until("inactive")?;
        Ok(true)
    }

    fn wait_until(&self, wanted: &str) -> Result<(), DelegateError> {
        let start = Instant::now();
        loop {
            let state = self.state()?;
            if state == wanted {
                return Ok(());
            }
            if state == "failed" || start.elapsed() > PATIENCE {
                let seconds = start.elapsed().as_secs();
                return Err(DelegateError::Timeout { unit: self.unit.to_owned(), state, seconds });
            }
            std::thread::sleep(POLL);
        }
    }
}

fn bus_error(operation: &'static str, unit: &str, source: zbus::Error) -> DelegateError {
    DelegateError::Bus { operation, unit: unit.to_owned(), source: Box::new(source) }
}

/// "257.13-1~deb13u1" is 257.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the unit is.
fn properties() -> Vec<(&'static str, Value<'static>)> {
    let sleep = ("/bin/sleep", vec!["/bin/sleep", "infinity"], false);
    vec![
        ("Description", "Cgroups of virtual clusters (Bulkhead)".into()),
        ("Type", "exec".into()),
        ("ExecStart", Value::from(vec![sleep])),
        ("ExitType", "cgroup".into()),
        ("Restart", "always".into()),
        ("Delegate", true.into()),
        ("DelegateSubgroup", HOLDER.into()),
        ("OOMScoreAdjust", (-1_000).into()),
        // At the top, so that no slice's limits and weights come in between.
        ("Slice", "-.slice".into()),
        ("CPUAccounting", true.into()),
        ("MemoryAccounting", true.into()),
        ("IOAccounting", true.into()),
        ("TasksAccounting", true.into()),
        ("TasksMax", u64::MAX.into()),
        // A process that runs out of its virtual cluster's memory must not end all the others.
        ("OOMPolicy", "continue".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::probe::{Cgroup2Mount, Files};

    fn probe(systemd: bool, mount: Option<&str>) -> Probe {
        let mut probe = Probe::read(&Files::host()).unwrap();
        probe.systemd = systemd;
        probe.cgroup2 = mount.map(|mount| Cgroup2Mount { mount_point: mount.into(), whole: true });
        probe
    }

    #[test]
    fn systemd_keeps_its_tree_and_elsewhere_a_directory_does() {
        let unit = Root::choose(&probe(true, Some("/sys/fs/cgroup")), None).unwrap();
        let path = "/sys/fs/cgroup/bulkhead-tenants.service".into();
        assert_eq!(unit, Root::DelegatedUnit { unit: UNIT.to_owned(), path });
        let hybrid = probe(false, Some("/sys/fs/cgroup/unified"));
        let plain = Root::choose(&hybrid, None).unwrap();
        assert_eq!(plain, Root::Directory("/sys/fs/cgroup/unified/bulkhead".into()));
        let asked = Path::new("/sys/fs/cgroup/mine");
        let given = Root::choose(&probe(true, Some("/sys/fs/cgroup")), Some(asked)).unwrap();
        assert_eq!(given.path(), asked);
        let nowhere = Root::choose(&probe(true, None), None).unwrap_err();
        assert!(nowhere.to_string().contains("cgroup v2 is not mounted"));
    }

    #[test]
    fn versions_are_compared_by_their_first_number() {
        assert_eq!(major("257.13-1~deb13u1"), Some(257));
        assert_eq!(major("254"), Some(254));
        assert_eq!(major("v254"), None);
    }

    #[test]
    fn the_command_has_the_type_that_systemd_takes() {
        let command = properties().into_iter().find(|(name, _)| *name == "ExecStart").unwrap().1;
        assert_eq!(command.value_signature().to_string(), "a(sasb)");
    }
}
