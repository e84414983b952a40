//! `cargo xtask lab`: a throw-away Linux node in a virtual machine.
//!
//! Unified cgroup v2 with every controller, the BPF LSM, no network, no swap; usually kernel 6.12
//! and systemd, where the command runs as a service that may build cgroups below itself.
//! `/payload` holds the caller's files, `/results` comes back, `/scratch` is a disk for I/O
//! limits. Nothing is mounted, bridged or put into a cgroup on the host.
//!
//! A whole Kubernetes is in `kubernetes`.

mod disk;
mod guest;
mod image;
mod initramfs;
pub(crate) mod kubernetes;
pub(crate) mod libraries;
mod machine;
mod modules;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::progress::Step;
use crate::setup::{self, Group};
pub(crate) use guest::Guest;
use image::Image;
use machine::{Machine, RunDir};

/// How often we look whether the guest has ended.
const POLL: Duration = Duration::from_millis(20);

/// How many of the console's last lines an error shows.
const TAIL_LINES: usize = 25;

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a node's image, or find it in the cache.
    Image {
        /// Which node, by its kernel.
        #[arg(long, value_enum, default_value = "6.12")]
        kernel: Guest,
        /// Make it anew even when it is there.
        #[arg(long)]
        rebuild: bool,
    },
    /// Boot a fresh node, run one command in it, end with the command's status.
    Run {
        /// Which node, by its kernel.
        #[arg(long, value_enum, default_value = "6.12")]
        kernel: Guest,
        /// Seconds after which the node is ended, from its start.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// Memory of the node, in MiB.
        #[arg(long, default_value_t = LabRun::MEMORY_MIB)]
        memory: u32,
        /// A directory that the node sees as /payload, where the command starts.
        #[arg(long)]
        payload: Option<PathBuf>,
        /// Where what the node leaves in /results goes; target/lab/results when not given.
        #[arg(long)]
        results: Option<PathBuf>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    #[command(flatten)]
    Kubernetes(kubernetes::Verb),
}

/// One command to run in a fresh node.
pub(crate) struct LabRun<'a> {
    /// The kind of node.
    pub(crate) guest: Guest,
    /// The directory that the node sees, read-only, as `/payload`.
    pub(crate) payload: &'a Path,
    /// The command; it starts in `/payload`, and what it prints is passed on as it comes.
    pub(crate) command: &'a [String],
    /// An absent or empty directory; receives what the node leaves in `/results`.
    pub(crate) results: &'a Path,
    /// When the node is ended, counted from its start.
    pub(crate) timeout: Duration,
    /// Memory of the node, in MiB.
    pub(crate) memory_mib: u32,
}

impl LabRun<'_> {
    /// Enough for a few virtual clusters with something to lose.
    pub(crate) const MEMORY_MIB: u32 = 2048;
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct LabOutcome {
    /// The command's exit status; 128 and the signal's number where a signal ended it.
    pub(crate) exit_code: u8,
    /// From the start of the machine to the start of the command.
    pub(crate) boot: Duration,
    /// From the start of the machine to its end.
    pub(crate) total: Duration,
    /// The guest's kernel release.
    pub(crate) kernel: String,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.verb {
        Verb::Kubernetes(verb) => kubernetes::run(verb),
        Verb::Image { kernel, rebuild } => {
            setup::ensure(&[Group::Lab], false)?;
            println!("{}", Image::get(*kernel, *rebuild)?.dir().display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Run { kernel, timeout, memory, payload, results, command } => {
            setup::ensure(&[Group::Lab], false)?;
            let nothing = paths::target().join("lab/nothing");
            let default_results = paths::target().join("lab/results");
            fs::create_dir_all(&nothing).context("create an empty payload")?;
            if results.is_none() && default_results.exists() {
                fs::remove_dir_all(&default_results).context("clear the last run's results")?;
            }
            let outcome = boot_and_run(&LabRun {
                guest: *kernel,
                payload: payload.as_deref().unwrap_or(&nothing),
                command,
                results: results.as_deref().unwrap_or(&default_results),
                timeout: Duration::from_secs(*timeout),
                memory_mib: *memory,
            })?;
            eprintln!(
                "lab: kernel {}, up after {:.1} s, ended after {:.1} s with status {}",
                outcome.kernel,
                outcome.boot.as_secs_f64(),
                outcome.total.as_secs_f64(),
                outcome.exit_code,
            );
            Ok(outcome.exit_code.into())
        }
    }
}

/// Boots a fresh node, runs the command in it, and brings its results back.
pub(crate) fn boot_and_run(request: &LabRun<'_>) -> Result<LabOutcome> {
    make_empty(request.results)?;
    let payload = std::path::absolute(request.payload)
        .with_context(|| format!("{} is not a path", request.payload.display()))?;
    let image = Image::get(request.guest, false)?;
    let files = RunDir::create(&directory()?)?;
    let booting = Step::begin("Booting the lab's node");
    let machine = Machine::start(&image, &files, &payload, request.command, request.memory_mib)?;
    let outcome = watch(machine, &files, request.timeout, booting);
    // Also after a panic or a timeout: what was written until then helps to find out why.
    let results = files.read_results(request.results);
    fs::write(request.results.join("console.log"), files.console())
        .context("keep the node's console log")?;
    outcome.and_then(|outcome| results.map(|()| outcome))
}

/// Waits for the guest's end, or ends it when its time is up.
fn watch(
    mut machine: Machine,
    files: &RunDir,
    timeout: Duration,
    booting: Step,
) -> Result<LabOutcome> {
    let mut booting = Some(booting);
    let mut boot = Duration::ZERO;
    let status = loop {
        if booting.is_some() && files.control().starts_with("begin ") {
            boot = machine.age();
            booting.take().into_iter().for_each(Step::done);
        }
        if let Some(status) = machine.ended()? {
            break status;
        }
        if machine.age() > timeout {
            let stage = if booting.is_some() { "was still booting" } else { "was still running" };
            bail!(
                "the lab's node {stage} after {timeout:?} and was ended{}",
                tail(&files.console())
            );
        }
        thread::sleep(POLL);
    };
    let total = machine.age();
    let said = files.control();
    let word = |key| said.lines().find_map(|line| line.strip_prefix(key));
    let (Some(kernel), Some(code)) = (word("begin "), word("end ")) else {
        bail!(
            "the lab's node died before the command ended (QEMU: {status}){}",
            tail(&files.console())
        );
    };
    let exit_code = code.parse().with_context(|| format!("the node told status {code:?}"))?;
    Ok(LabOutcome { exit_code, boot, total, kernel: kernel.to_owned() })
}

/// The end of the console's log, to go into an error; from the panic on, if there was one.
fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let panic = lines.iter().position(|line| line.contains("Kernel panic"));
    let begin = panic.unwrap_or(lines.len().saturating_sub(TAIL_LINES));
    let shown: Vec<&str> = lines[begin..].iter().take(TAIL_LINES).copied().collect();
    if shown.is_empty() {
        return "; its console is empty".to_owned();
    }
    format!("; its console:\n    {}", shown.join("\n    "))
}

fn make_empty(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    if entries.next().is_some() {
        bail!("results would mix with what is in {}: empty it or name another", dir.display());
    }
    Ok(())
}

/// One at a time may make images or run directories in the cache, until this is dropped.
fn turn(lab: &Path) -> Result<File> {
    let path = lab.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// The lab's place in the cache.
fn directory() -> Result<PathBuf> {
    let dir = paths::cache()?.join("lab");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_from_its_first_line() {
        let noise = "harmless\n".repeat(100);
        let told = tail(&format!("{noise}[1.0] Kernel panic - not syncing: x\ncall\n{noise}"));
        let mut lines = told.lines().skip(1).map(str::trim);
        assert_eq!(lines.next(), Some("[1.0] Kernel panic - not syncing: x"));
        assert_eq!(lines.next(), Some("call"));
        assert_eq!(lines.count(), TAIL_LINES - 2);
    }

    #[test]
    fn without_a_panic_the_last_lines_are_shown() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let told = tail(&lines.join("\n"));
        assert_eq!(told.lines().nth(1), Some("    line 75"));
        assert_eq!(told.lines().last(), Some("    line 99"));
        assert_eq!(tail(""), "; its console is empty");
    }

    #[test]
    fn results_do_not_mix_with_what_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        make_empty(&dir.path().join("new")).expect("an absent directory is made");
        let error = make_empty(dir.path()).expect_err("holds a directory now").to_string();
        assert!(error.contains("empty it or name another"), "{error}");
    }
}
