//! Running a target: over what is known to be interesting first, then further.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{crash, home, program};
use crate::command::Cmd;
use crate::paths;
use crate::test::stage::{self, Output};

/// Most memory of a target, MiB.
const MEMORY_MIB: u32 = 512;
/// Most time for one input.
const INPUT_SECONDS: u32 = 10;
/// Longest input that is made.
const LONGEST_BYTES: u32 = 4096;
/// Besides the time that was asked for: the known inputs, and the end.
const SPARE: Duration = Duration::from_mins(2);

/// Where targets work. What they leave in the directory for their files is removed at the end.
pub(super) struct Place {
    logs: PathBuf,
    scratch: PathBuf,
    found: PathBuf,
}

/// Where a run begins, and what becomes of the inputs that it finds to reach new code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// With the committed inputs only, so that it takes the same time everywhere.
    Afresh,
    /// With what earlier runs in this target directory found, too; the next will go on from here.
    WhereTheLastEnded,
}

impl Place {
    /// In memory where the machine has a directory there: targets write files for each input.
    pub(super) fn make(logs: &Path, begin: Begin) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let name = format!("bulkhead-fuzz-{}", std::process::id());
        let below = if memory.is_dir() { memory.to_owned() } else { paths::target().join("fuzz") };
        let scratch = below.join(name);
        fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let found = match begin {
            Begin::Afresh => scratch.join("found"),
            Begin::WhereTheLastEnded => paths::target().join("fuzz/found"),
        };
        Ok(Self { logs: logs.to_owned(), scratch, found })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only what targets that crashed left behind; the next start makes its own.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// What came of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) target: String,
    numbers: Numbers,
    /// What it found, and how to see it again.
    pub(super) problem: Option<String>,
}

/// What libFuzzer says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Numbers {
    executions: u64,
    /// Edges of the program that some input took.
    coverage: u64,
    /// Inputs that reach something that no other does.
    corpus: u64,
}

/// Runs a target for so many seconds.
pub(super) fn explore(place: &Place, target: &str, seconds: u64) -> Result<Outcome> {
    let found = place.found.join(target);
    let crashes = paths::target().join("fuzz/crashes").join(target);
    for dir in [&found, &crashes] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(crashes.join(""));
    let before = crash::files(&crashes)?;
    // New inputs go into the first directory.
    let cmd = command(place, target)?
        .arg(prefix)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST_BYTES}"))
        .args(["-print_final_stats=1", "-reload=0"])
        .args(words(target))
        .arg(&found)
        .args(committed(target));
    let log = place.logs.join(format!("fuzz-{target}.log"));
    let limit = Duration::from_secs(seconds) + SPARE;
    let finished = stage::run(&format!("Fuzzing {target}"), cmd, limit, Output::together(&log))?;
    let text = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let problem = if finished.is_success() {
        None
    } else {
        let new = crash::files(&crashes)?.into_iter().find(|file| !before.contains(file));
        Some(crash::told(target, new.as_deref(), &text, finished.told()))
    };
    Ok(Outcome { target: target.to_owned(), numbers: numbers(&text), problem })
}

/// Runs one input once, in view.
pub(super) fn once(place: &Place, target: &str, input: &Path) -> Result<()> {
    if !input.is_file() {
        bail!("{} is no file: name the input that is to be run", input.display());
    }
    command(place, target)?.arg(input).show()
}

fn command(place: &Place, target: &str) -> Result<Cmd> {
    let cmd = Cmd::new(program(target)?, format!("fuzz {target}"))
        .env("TMPDIR", &place.scratch)
        .env("RUST_BACKTRACE", "0")
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-timeout={INPUT_SECONDS}"));
    Ok(cmd)
}

/// The committed inputs, where the target has some.
fn committed(target: &str) -> Vec<PathBuf> {
    let dirs = ["corpus", "regressions"].map(|kind| home().join(kind).join(target));
    dirs.into_iter().filter(|dir| dir.is_dir()).collect()
}

/// The words of the target's language, where it has one.
fn words(target: &str) -> Option<String> {
    let path = home().join("words").join(format!("{target}.dict"));
    path.is_file().then(|| format!("-dict={}", path.display()))
}

/// From lines like `#4096 pulse cov: 12 ft: 34 corp: 5/67b …` and `stat::…: 4096`.
fn numbers(log: &str) -> Numbers {
    let after = |line: &str, word: &str| {
        let rest = line.split_once(word)?.1.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut numbers = Numbers::default();
    for line in log.lines() {
        let take = |word: &str, number: &mut u64| {
            if let Some(found) = after(line, word) {
                *number = found;
            }
        };
        take(" cov: ", &mut numbers.coverage);
        take(" corp: ", &mut numbers.corpus);
        take("stat::number_of_executed_units:", &mut numbers.executions);
    }
    numbers
}

/// One line for each target.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("\n  executions  coverage  corpus  target\n");
    for Outcome { target, numbers, problem } in outcomes {
        let Numbers { executions, coverage, corpus } = numbers;
        let _ = writeln!(text, "  {executions:>10}  {coverage:>8}  {corpus:>6}  {target}");
        if let Some(problem) = problem {
            let _ = writeln!(text, "{problem}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_last_that_were_said() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                   #4096\tpulse  cov: 120 ft: 34 corp: 15/67b lim: 43 exec/s: 2048 rss: 41Mb\n\
                   stat::number_of_executed_units: 9001\nstat::average_exec_per_sec: 3\n";
        let expected = Numbers { executions: 9_001, coverage: 120, corpus: 15 };
        assert_eq!(numbers(log), expected);
        assert_eq!(numbers("nothing"), Numbers::default());
    }
}
