//! The one process that a running cluster hangs on: parent of etcd, the control plane and the
//! virtual machines.
//!
//! The kernel ends them when it ends, however that happens, so there is nothing to sweep. It
//! holds a lock on the cluster's directory for as long as it lives, starts what ends, and leaves
//! ended what a file `NAME.stopped` is there for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{Cmd, find};

/// How often processes are looked at, and how long one that ended stays so.
const POLL: Duration = Duration::from_millis(200);
const BEFORE_RESTART: Duration = Duration::from_secs(1);

/// How long the end of a keeper, or of a process of its, is waited for.
const ENDING: Duration = Duration::from_secs(20);

/// The API server's way into the cluster, below the cluster's directory: all that comes through
/// this socket goes to the loopback port in the file `egress.port`.
pub(super) const EGRESS: &str = "egress.sock";

/// Writes down a process for the keeper that will be started.
pub(super) fn plan(dir: &Path, name: &str, words: &[String]) -> Result<()> {
    let text = serde_json::to_string(words).context("write a command as JSON")?;
    fs::write(dir.join(format!("{name}.command")), text)
        .with_context(|| format!("plan the process {name}"))
}

/// Starts the keeper of `dir`; with `outlive` it goes on when this process ends.
pub(super) fn start(dir: &Path, outlive: bool) -> Result<()> {
    // Not its path: a cargo that ran meanwhile may have put another program there.
    let own = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let log = File::create(dir.join("keeper.log")).context("create the keeper's log")?;
    let mut command = if outlive { Command::new(own) } else { ended_with_parent(&own)? };
    command.args(["lab", "keep"]).arg(dir).process_group(0).current_dir(dir);
    command.stdin(Stdio::null()).stderr(log.try_clone().context("share the keeper's log")?);
    let mut child = command.stdout(log).spawn().context("start the cluster's keeper")?;
    let began = Instant::now();
    while !alive(dir)? {
        let ended = child.try_wait().context("wait for the keeper")?;
        if ended.is_some() || began.elapsed() > ENDING {
            let said = fs::read_to_string(dir.join("keeper.log")).unwrap_or_default();
            bail!("the cluster's keeper did not start: {said}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether a keeper lives in `dir`.
pub(super) fn alive(dir: &Path) -> Result<bool> {
    let Ok(lock) = File::open(dir.join("lock")) else {
        return Ok(false);
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).context("try the lock of the keeper"),
    }
}

/// Ends the keeper, and with it everything that it started.
pub(super) fn end(dir: &Path) -> Result<()> {
    if alive(dir)? {
        let pid = read_pid(&dir.join("lock")).context("the keeper has not said who it is")?;
        let children = children(dir, pid);
        // It holds the lock, so this number is its own still.
        kill("KILL", pid)?;
        let gone = || Ok(!alive(dir)? && children.iter().all(|&child| !of_parent(child, None)));
        wait("the cluster's processes to end", gone)?;
    }
    Ok(())
}

/// The processes that the keeper has running: name and number.
pub(super) fn running(dir: &Path) -> Result<Vec<(String, u32)>> {
    let keeper = read_pid(&dir.join("lock")).context("the cluster has no keeper")?;
    let names = names(dir)?.into_iter();
    let pid = |name: &String| read_pid(&dir.join(format!("{name}.pid")));
    let pairs = names.filter_map(|name| Some((pid(&name)?, name)));
    Ok(pairs
        .filter(|(pid, _)| of_parent(*pid, Some(keeper)))
        .map(|(pid, name)| (name, pid))
        .collect())
}

/// Ends the process `name` and leaves it ended.
pub(super) fn stop(dir: &Path, name: &str) -> Result<()> {
    if !names(dir)?.iter().any(|known| known == name) {
        bail!("no process {name}; there are {}", names(dir)?.join(", "));
    }
    File::create(dir.join(format!("{name}.stopped"))).context("note what is to stay stopped")?;
    let ended = || {
        let Some((_, pid)) = running(dir)?.into_iter().find(|(known, _)| known == name) else {
            return Ok(true);
        };
        kill("KILL", pid)?;
        Ok(false)
    };
    wait(&format!("{name} to end"), ended)
}

/// Lets the keeper start the process `name` again.
pub(super) fn resume(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(format!("{name}.stopped"));
    fs::remove_file(&path).with_context(|| format!("{name} was not stopped"))?;
    wait(&format!("{name} to start"), || Ok(running(dir)?.iter().any(|(known, _)| known == name)))
}

/// The keeper's whole life; returns only with an error.
pub(super) fn keep(dir: &Path) -> Result<()> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
    let lock = open.context("open the lock of the cluster")?;
    if lock.try_lock().is_err() {
        bail!("another keeper holds {}", dir.display());
    }
    fs::write(dir.join("lock"), std::process::id().to_string()).context("say who keeps this")?;
    forward_egress(dir)?;
    let mut kept = Vec::new();
    for name in names(dir)? {
        kept.push(Kept::new(dir, name)?);
    }
    loop {
        for process in &mut kept {
            process.look(dir)?;
        }
        thread::sleep(POLL);
    }
}

/// One process of the cluster.
struct Kept {
    name: String,
    words: Vec<String>,
    child: Option<Child>,
    ended: Option<Instant>,
}

impl Kept {
    fn new(dir: &Path, name: String) -> Result<Self> {
        let text = fs::read_to_string(dir.join(format!("{name}.command")));
        let text = text.with_context(|| format!("read the command of {name}"))?;
        let words =
            serde_json::from_str(&text).with_context(|| format!("the command of {name}"))?;
        Ok(Self { name, words, child: None, ended: None })
    }

    fn look(&mut self, dir: &Path) -> Result<()> {
        let pid = dir.join(format!("{}.pid", self.name));
        if let Some(child) = &mut self.child {
            let Some(status) = child.try_wait().context("wait for a process")? else {
                return Ok(());
            };
            eprintln!("{} ended with {status}", self.name);
            self.child = None;
            self.ended = Some(Instant::now());
            let _ = fs::remove_file(&pid);
        }
        let stopped = dir.join(format!("{}.stopped", self.name)).exists();
        if stopped || self.ended.is_some_and(|ended| ended.elapsed() < BEFORE_RESTART) {
            return Ok(());
        }
        let path = dir.join(format!("{}.log", self.name));
        let log = OpenOptions::new().create(true).append(true).open(path).context("open a log")?;
        let [program, args @ ..] = self.words.as_slice() else {
            bail!("{} has an empty command", self.name);
        };
        let mut command = ended_with_parent(Path::new(program))?;
        command.args(args).current_dir(dir).env("TMPDIR", dir).stdin(Stdio::null());
        command.stdout(log.try_clone().context("share a log")?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        fs::write(&pid, child.id().to_string()).context("write down a process's number")?;
        self.child = Some(child);
        Ok(())
    }
}

/// `program`, which the kernel ends when the calling thread's process ends.
fn ended_with_parent(program: &Path) -> Result<Command> {
    let setpriv = find("setpriv").context("setpriv is missing; `cargo xtask setup lab` gets it")?;
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}

/// Passes on what comes through the socket; ends with the process.
fn forward_egress(dir: &Path) -> Result<()> {
    let path = dir.join(EGRESS);
    let _ = fs::remove_file(&path);
    let text = fs::read_to_string(dir.join("egress.port")).context("read egress.port")?;
    let port: u16 = text.trim().parse().context("egress.port is no port")?;
    // By a short name: the address of a socket has some hundred bytes.
    let listener = UnixListener::bind(EGRESS).context("listen for the API server")?;
    thread::spawn(move || {
        for inside in listener.incoming().flatten() {
            if let Ok(outside) = TcpStream::connect(("127.0.0.1", port)) {
                join(inside, outside);
            }
        }
    });
    Ok(())
}

/// Copies both ways until both have ended.
fn join(near: UnixStream, far: TcpStream) {
    let (Ok(mut near_read), Ok(mut far_read)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let (mut near, mut far) = (near, far);
    thread::spawn(move || {
        let _ = io::copy(&mut near_read, &mut far);
        let _ = far.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut far_read, &mut near);
        let _ = near.shutdown(std::net::Shutdown::Both);
    });
}

/// The names of all planned processes, sorted.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        name.strip_suffix(".command").map(str::to_owned)
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| name(entry.path())).collect();
    names.sort();
    Ok(names)
}

/// Numbers of the keeper's children.
fn children(dir: &Path, keeper: u32) -> Vec<u32> {
    let names = names(dir).unwrap_or_default();
    let pids = names.iter().filter_map(|name| read_pid(&dir.join(format!("{name}.pid"))));
    pids.filter(|&pid| of_parent(pid, Some(keeper))).collect()
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether process `pid` lives, as a child of `parent` if one is given.
fn of_parent(pid: u32, parent: Option<u32>) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // "PID (NAME) STATE PPID …", and a name may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut words = rest.split(' ');
    let zombie = words.next() == Some("Z");
    let own = words.next().and_then(|word| word.parse().ok());
    !zombie && parent.is_none_or(|parent| own == Some(parent))
}

fn kill(signal: &str, pid: u32) -> Result<()> {
    Cmd::new("sh", "end a process of the lab's cluster")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()])
        .read()
        .map(drop)
}

fn wait(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > ENDING {
            bail!("waited {ENDING:?} for {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until the process of `name` is another than `before`.
    fn looked(kept: &mut Kept, dir: &Path, name: &str, before: u32) -> u32 {
        let began = Instant::now();
        while began.elapsed() < ENDING {
            kept.look(dir).expect("a look works");
            match read_pid(&dir.join(format!("{name}.pid"))) {
                Some(pid) if pid != before => return pid,
                _ => thread::sleep(POLL),
            }
        }
        panic!("{name} is not started again");
    }

    #[test]
    fn what_ends_is_started_again_and_what_is_stopped_stays_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        plan(dir, "sleeper", &["sleep".to_owned(), "1000".to_owned()]).expect("planned");
        assert_eq!(names(dir).expect("listed"), ["sleeper"]);
        let mut kept = Kept::new(dir, "sleeper".to_owned()).expect("read back");
        let first = looked(&mut kept, dir, "sleeper", 0);
        assert!(of_parent(first, Some(std::process::id())), "it is ours");
        kill("KILL", first).expect("killed");
        let second = looked(&mut kept, dir, "sleeper", first);
        File::create(dir.join("sleeper.stopped")).expect("created");
        kill("KILL", second).expect("killed");
        wait("the process to end", || Ok(!of_parent(second, None))).expect("it ended");
        thread::sleep(BEFORE_RESTART + POLL);
        for _ in 0..2 {
            kept.look(dir).expect("a look works");
        }
        assert!(kept.child.is_none(), "what is stopped stays so");
    }

    #[test]
    fn a_keeper_lives_as_long_as_it_holds_its_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!alive(dir.path()).expect("seen"), "there is no lock");
        let lock = File::create(dir.path().join("lock")).expect("created");
        assert!(!alive(dir.path()).expect("seen"), "nobody holds it");
        lock.lock().expect("locked");
        assert!(alive(dir.path()).expect("seen"));
    }
}
