//! What ran where, how it went, how long it took.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What came of the tests of a stage.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Tally {
    /// How many passed.
    pub(super) passed: usize,
    /// One for each that did not, with its name.
    pub(super) problems: Vec<String>,
}

/// A stage that is over.
struct Stage {
    what: String,
    /// Where its tests ran; `None`: it has none.
    on: Option<String>,
    tally: Tally,
    took: Duration,
}

/// All stages.
pub(super) struct Summary {
    began: Instant,
    stages: Vec<Stage>,
    left_out: Vec<(usize, String)>,
}

impl Summary {
    /// Nothing has run yet.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), stages: Vec::new(), left_out: Vec::new() }
    }

    /// Runs a stage that has no tests; whether it went well.
    pub(super) fn step(&mut self, what: &str, work: impl FnOnce() -> Result<()>) -> bool {
        self.value(what, work).is_some()
    }

    /// As [`Self::step`], for a stage that makes something.
    pub(super) fn value<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let began = begin(what);
        let (value, problems) = match work() {
            Ok(value) => (Some(value), Vec::new()),
            Err(error) => (None, vec![format!("{what}: {error:#}")]),
        };
        self.note(what, None, Tally { passed: 0, problems }, began.elapsed());
        value
    }

    /// Runs a stage of tests; one that cannot be run at all counts as one that failed.
    pub(super) fn stage(&mut self, what: &str, on: &str, work: impl FnOnce() -> Result<Tally>) {
        let began = begin(what);
        let tally = work().unwrap_or_else(|error| Tally {
            passed: 0,
            problems: vec![format!("{what}: {error:#}")],
        });
        self.note(what, Some(on), tally, began.elapsed());
    }

    /// Notes a stage that ran elsewhere.
    pub(super) fn note(&mut self, what: &str, on: Option<&str>, tally: Tally, took: Duration) {
        for problem in &tally.problems {
            eprintln!("  FAILED {problem}");
        }
        let stage = Stage { what: what.to_owned(), on: on.map(str::to_owned), tally, took };
        self.stages.push(stage);
    }

    /// Notes what was asked not to run.
    pub(super) fn leave_out(&mut self, count: usize, what: &str) {
        self.left_out.push((count, what.to_owned()));
    }

    /// Whether something passed and nothing failed.
    pub(super) fn is_good(&self) -> bool {
        let [passed, failed, _] = self.totals();
        passed > 0 && failed == 0
    }

    /// Stages, kernels, problems.
    pub(super) fn table(&self) -> String {
        let mut text = String::from("\n  passed  failed      time\n");
        let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
        for Stage { what, on, tally, took } in &self.stages {
            let (passed, failed) = (tally.passed, tally.problems.len());
            let seconds = took.as_secs_f64();
            let _ = write!(text, "  {passed:>6}  {failed:>6}  {seconds:>6.1} s  {what}");
            if let Some(on) = on {
                let _ = write!(text, ", {on}");
                *kernels.entry(on).or_default() += passed + failed;
            }
            text.push('\n');
        }
        let _ = writeln!(text, "  {:>22.1} s  in all", self.began.elapsed().as_secs_f64());
        for (on, count) in kernels {
            let _ = writeln!(text, "{count} ran on {on}");
        }
        for (count, what) in &self.left_out {
            let _ = writeln!(text, "left out: {count}: {what}");
        }
        for problem in self.stages.iter().flat_map(|stage| &stage.tally.problems) {
            let _ = writeln!(text, "FAILED {problem}");
        }
        text
    }

    /// "N passed, M failed", and ", K skipped" where something was.
    pub(super) fn last_line(&self) -> String {
        match self.totals() {
            [passed, failed, 0] => format!("{passed} passed, {failed} failed"),
            [passed, failed, skipped] => {
                format!("{passed} passed, {failed} failed, {skipped} skipped")
            }
        }
    }

    fn totals(&self) -> [usize; 3] {
        let passed = self.stages.iter().map(|stage| stage.tally.passed).sum();
        let failed = self.stages.iter().map(|stage| stage.tally.problems.len()).sum();
        let skipped = self.left_out.iter().map(|(count, _)| count).sum();
        [passed, failed, skipped]
    }
}

fn begin(what: &str) -> Instant {
    eprintln!("== {what}");
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: usize, problems: &[&str]) -> Tally {
        Tally { passed, problems: problems.iter().map(|problem| (*problem).to_owned()).collect() }
    }

    #[test]
    fn the_last_line_counts_everything() {
        let mut summary = Summary::begin();
        assert!(!summary.is_good(), "nothing ran");
        assert!(summary.step("setup", || Ok(())));
        summary.stage("a", "host (kernel 6)", || Ok(tally(3, &[])));
        assert_eq!(summary.last_line(), "3 passed, 0 failed");
        assert!(summary.is_good());
        summary.stage("b", "vm (kernel 5)", || Ok(tally(2, &["x failed"])));
        assert_eq!(summary.last_line(), "5 passed, 1 failed");
        summary.leave_out(4, "c");
        assert_eq!(summary.last_line(), "5 passed, 1 failed, 4 skipped");
        assert!(!summary.is_good());
        let table = summary.table();
        assert!(table.contains("3 ran on host (kernel 6)\n3 ran on vm (kernel 5)"), "{table}");
        assert!(table.contains("FAILED x failed"), "{table}");
    }

    #[test]
    fn a_stage_that_cannot_run_has_failed() {
        let mut summary = Summary::begin();
        summary.stage("a", "host", || Ok(tally(1, &[])));
        summary.stage("b", "host", || anyhow::bail!("no such tool"));
        assert!(!summary.step("c", || anyhow::bail!("no such file")));
        assert_eq!(summary.last_line(), "1 passed, 2 failed");
        assert!(summary.table().contains("FAILED c: no such file"));
    }
}
