//! What a person sees while something long runs: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// One long piece of work, shown from its beginning to its end.
pub(crate) struct Step {
    bar: ProgressBar,
    began: Instant,
    what: String,
}

impl Step {
    /// Shows that `what` has begun.
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        let began = Instant::now();
        if !std::io::stderr().is_terminal() {
            eprintln!("  {what} …");
            return Self { bar: ProgressBar::hidden(), began, what };
        }
        let bar = ProgressBar::new_spinner().with_message(what.clone());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed:>4} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, began, what }
    }

    /// Shows the newest line that the work has printed.
    pub(crate) fn note(&self, line: &str) {
        self.bar.set_message(format!("{}: {}", self.what, line.trim()));
    }

    /// Shows that the work is done, and how long it took.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("  {} ({:.1} s)", self.what, self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Runs `work` as one shown step.
pub(crate) fn during<T>(
    what: impl Into<String>,
    work: impl FnOnce(&Step) -> Result<T>,
) -> Result<T> {
    let step = Step::begin(what);
    let made = work(&step)?;
    step.done();
    Ok(made)
}
