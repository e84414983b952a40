//! Waiting for a state, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);

/// Looks until there is something, at most for `patience`; `look` may leave in its note what it
/// saw instead, for the error.
pub(crate) fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut(&mut String) -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut note = String::new();
    loop {
        if let Some(found) = look(&mut note)? {
            return Ok(found);
        }
        if began.elapsed() >= patience {
            let note = if note.is_empty() { note } else { format!(" ({note})") };
            bail!("{what}: not within {} s{note}", patience.as_secs());
        }
        thread::sleep(TICK);
    }
}

/// As [`until`], for a condition that may never come: the last value, and whether it did.
pub(crate) fn settle<T>(
    patience: Duration,
    mut look: impl FnMut() -> Result<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<(T, bool)> {
    let began = Instant::now();
    loop {
        let seen = look()?;
        if wanted(&seen) {
            return Ok((seen, true));
        }
        if began.elapsed() >= patience {
            return Ok((seen, false));
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_named_with_what_was_seen_instead() {
        let error = until::<()>("rain", Duration::ZERO, |note| {
            "sun".clone_into(note);
            Ok(None)
        });
        let text = error.expect_err("never comes").to_string();
        assert_eq!(text, "rain: not within 0 s (sun)");
    }

    #[test]
    fn settling_gives_the_last_value_either_way() {
        let mut count = 0;
        let counted = settle(
            Duration::from_secs(5),
            || {
                count += 1;
                Ok(count)
            },
            |count| *count == 2,
        );
        assert_eq!(counted.expect("no error"), (2, true));
        let never = settle(Duration::ZERO, || Ok(7), |_| false);
        assert_eq!(never.expect("no error"), (7, false));
    }
}
