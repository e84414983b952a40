//! Starting a command inside a virtual cluster from its first instruction.

mod image;
mod spawn;
mod wait;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use bulkhead_core::control::Max;
use bulkhead_core::{Control, ControlValue, VirtualClusterName};
use nix::errno::Errno;

use super::cgroup::{CgroupDir, CgroupError, CgroupTree};
use image::Image;
use spawn::{SpawnError, Stage};

pub use wait::Exit;

/// What to start, and where.
#[derive(Debug)]
pub struct ExecOptions<'t> {
    /// The node's virtual clusters.
    pub tree: &'t CgroupTree,
    /// Into which of them.
    pub virtual_cluster: VirtualClusterName,
    /// The program and its arguments. Without a slash, the program is searched in PATH.
    pub command: Vec<OsString>,
}

/// Why a command was not started, or how waiting for it failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no command.
    #[error("no command was given, or it has a zero byte; give one after `--`")]
    NoCommand,
    /// The cgroup is not there or cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The command cannot be executed.
    #[error("cannot execute \"{command}\"; {}", execution_mend(*errno))]
    Execute {
        /// Its first word.
        command: String,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The virtual cluster has as many tasks as it may have.
    #[error(
        "virtual cluster \"{virtual_cluster}\" has reached its pids.max of {limit} tasks on this \
         node; end some of them, or raise perNode.limit.pids of the virtual cluster"
    )]
    PidsMax {
        /// Its name.
        virtual_cluster: VirtualClusterName,
        /// pids.max
        limit: u64,
    },
    /// The kernel did not start a process in the cgroup.
    #[error("cannot start a process in {}; {}", path.display(), start_mend(*errno))]
    Start {
        /// The leaf.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The process could not be waited for or signals not be forwarded.
    #[error("cannot {operation} for \"{command}\", which runs on; it is in {}", path.display())]
    Wait {
        /// What failed.
        operation: &'static str,
        /// The command's first word.
        command: String,
        /// Its leaf.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
}

/// A leaf may be swept away between its making and the clone, if the clone is very late.
const ATTEMPTS: usize = 3;

/// Starts the command in a new leaf of its virtual cluster, forwards signals to it, waits for its
/// end and removes the leaf, unless processes that it left behind live there.
///
/// Call it while this process has one thread: signals that another thread takes are not
/// forwarded.
pub fn run(options: &ExecOptions<'_>) -> Result<Exit, ExecError> {
    let image = Image::new(&options.command).ok_or(ExecError::NoCommand)?;
    let forwarder = wait::Forwarder::begin().map_err(|errno| ExecError::Wait {
        operation: "block signals",
        command: first_word(options),
        path: options.tree.path().to_owned(),
        errno,
    })?;
    let mut attempts_left = ATTEMPTS;
    loop {
        attempts_left -= 1;
        let leaf = options.tree.create_leaf(&options.virtual_cluster)?;
        match spawn::spawn(leaf.as_fd(), &image, forwarder.mask_before()) {
            Ok(spawned) => {
                let exit = forwarder.wait(&spawned).map_err(|errno| ExecError::Wait {
                    operation: "wait",
                    command: first_word(options),
                    path: leaf.path().to_owned(),
                    errno,
                });
                remove(options, &leaf)?;
                return exit;
            }
            Err(SpawnError::Clone(Errno::ENODEV)) if attempts_left > 0 => {}
            Err(error) => {
                let error = explain(options, &leaf, error);
                remove(options, &leaf)?;
                return Err(error);
            }
        }
    }
}

fn first_word(options: &ExecOptions<'_>) -> String {
    options.command.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned())
}

fn remove(options: &ExecOptions<'_>, leaf: &CgroupDir) -> Result<(), ExecError> {
    let Some(name) = leaf.path().file_name().and_then(|name| name.to_str()) else {
        return Ok(());
    };
    match options.tree.remove_leaf(&options.virtual_cluster, name) {
        // The virtual cluster itself may be gone by now.
        Ok(_) | Err(CgroupError::UnknownVirtualCluster { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn explain(options: &ExecOptions<'_>, leaf: &CgroupDir, error: SpawnError) -> ExecError {
    let (SpawnError::Pipe(errno) | SpawnError::Clone(errno) | SpawnError::Child(_, errno)) = error;
    match error {
        SpawnError::Child(Stage::Exec, errno) => {
            ExecError::Execute { command: first_word(options), errno }
        }
        SpawnError::Clone(Errno::EAGAIN) => match pids_max(options) {
            Some(limit) => {
                ExecError::PidsMax { virtual_cluster: options.virtual_cluster.clone(), limit }
            }
            None => ExecError::Start { path: leaf.path().to_owned(), errno },
        },
        _ => ExecError::Start { path: leaf.path().to_owned(), errno },
    }
}

/// pids.max, if that is what stood in the way.
fn pids_max(options: &ExecOptions<'_>) -> Option<u64> {
    let limit = options.tree.read(&options.virtual_cluster, Control::PidsMax).ok()??;
    let ControlValue::Max(Max::At(limit)) = limit else {
        return None;
    };
    let tasks = options.tree.tasks(&options.virtual_cluster).ok()??;
    (tasks >= limit).then_some(limit)
}

const fn execution_mend(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "there is no such program: give its path, or one that is in PATH",
        Errno::EACCES => "it is no program that may be executed: see its mode and its mount",
        Errno::ENOEXEC => "it is of no format that this kernel executes: a script needs a #! line",
        Errno::E2BIG => "arguments and environment are too long together",
        _ => "see the kernel's answer",
    }
}

const fn start_mend(errno: Errno) -> &'static str {
    match errno {
        Errno::EAGAIN => "a limit on tasks above the virtual cluster, or RLIMIT_NPROC, is reached",
        Errno::ENOMEM => "the node or the virtual cluster is out of memory",
        Errno::ENOSYS | Errno::E2BIG | Errno::EINVAL => {
            "clone3 with CLONE_INTO_CGROUP and close_range need Linux 5.11 and no filter (seccomp)"
        }
        Errno::EBUSY => "a controller is enabled in the leaf's cgroup.subtree_control: clear it",
        Errno::EOPNOTSUPP => "the cgroup is threaded: someone changed its cgroup.type",
        Errno::EACCES | Errno::EPERM => "run as root",
        _ => "see the kernel's answer",
    }
}
