//! What /proc says of a process and of the kernel programs and tables that it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process.
pub(super) struct Process {
    dir: PathBuf,
}

/// What it has used until now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// `RssAnon`
    pub(super) anonymous_bytes: u64,
    /// CPU time of its threads, by name.
    pub(super) cpu: BTreeMap<String, Duration>,
    /// Time in the kernel programs that it holds.
    pub(super) programs: Duration,
    /// How often they ran.
    pub(super) runs: u64,
    /// What its tables and programs take in the kernel.
    pub(super) kernel_bytes: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anonymous_bytes, cpu, programs, runs, kernel_bytes } = self;
        let cpu: Duration = cpu.values().sum();
        write!(
            f,
            "{} KiB anonymous, {cpu:?} CPU time, {programs:?} in {runs} runs of programs, {} KiB \
             in the kernel",
            anonymous_bytes / 1024,
            kernel_bytes / 1024
        )
    }
}

impl Process {
    pub(super) fn new(id: u32) -> Self {
        Self { dir: PathBuf::from(format!("/proc/{id}")) }
    }

    pub(super) fn look(&self) -> Result<Seen> {
        let (programs, runs, kernel_bytes) = self.held()?;
        let (anonymous_bytes, cpu) = (self.anonymous_bytes()?, self.cpu()?);
        Ok(Seen { anonymous_bytes, cpu, programs, runs, kernel_bytes })
    }

    pub(super) fn anonymous_bytes(&self) -> Result<u64> {
        let path = self.dir.join("status");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        let kib: u64 = kib.with_context(|| format!("no RssAnon in {}", path.display()))?;
        Ok(kib * 1024)
    }

    /// In nanoseconds, where /proc/PID/stat has ticks only.
    fn cpu(&self) -> Result<BTreeMap<String, Duration>> {
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(self.dir.join("task")).context("list threads")? {
            let thread = thread?.path();
            let text = fs::read_to_string(thread.join("schedstat"));
            let text = text.context("read a thread's schedstat")?;
            let ran = text.split(' ').next().and_then(|ran| ran.parse().ok());
            let ran = Duration::from_nanos(ran.context("schedstat begins with a number")?);
            let name = fs::read_to_string(thread.join("comm")).context("read a thread's name")?;
            *threads.entry(name.trim().to_owned()).or_default() += ran;
        }
        Ok(threads)
    }

    /// Programs and maps, each once: time, runs and memory.
    fn held(&self) -> Result<(Duration, u64, u64)> {
        let mut objects = BTreeMap::new();
        for file in fs::read_dir(self.dir.join("fdinfo")).context("list descriptors")? {
            // One that was closed meanwhile is nobody's.
            let Ok(text) = fs::read_to_string(file?.path()) else { continue };
            let fields: BTreeMap<_, _> = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
                .collect();
            let id = fields.get("prog_id").map(|id| ('p', *id));
            let id = id.or_else(|| fields.get("map_id").map(|id| ('m', *id)));
            if let Some(id) = id.filter(|_| fields.contains_key("memlock")) {
                objects.insert(id, fields);
            }
        }
        let sum = |key: &str| -> u64 { objects.values().filter_map(|one| one.get(key)).sum() };
        Ok((Duration::from_nanos(sum("run_time_ns")), sum("run_cnt"), sum("memlock")))
    }
}
