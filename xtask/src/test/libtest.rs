//! What Rust's own test harness prints.

use std::collections::BTreeMap;

/// How one test went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was not run.
    Ignored,
}

/// Names in the output of `--list --format terse`.
pub(crate) fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Verdicts in the output of `--format pretty --test-threads=1`. A test that has begun and has
/// no verdict (the harness was killed) is not there.
pub(crate) fn verdicts(output: &str) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    let mut begun: Option<String> = None;
    for line in output.lines() {
        let mut rest = line;
        if let Some((name, after)) = beginning(line) {
            begun = Some(name);
            rest = after;
        }
        // What the test's children print can come between the name and the verdict.
        if let (Some(name), Some(verdict)) = (&begun, verdict(rest)) {
            verdicts.insert(name.clone(), verdict);
            begun = None;
        }
    }
    verdicts
}

/// Splits `test NAME ... REST`.
fn beginning(line: &str) -> Option<(String, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ...")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    (!name.contains(' ')).then(|| (name.to_owned(), rest))
}

fn verdict(rest: &str) -> Option<Verdict> {
    let rest = rest.trim();
    match rest {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed),
        _ if rest == "ignored" || rest.starts_with("ignored,") => Some(Verdict::Ignored),
        // After something that had no newline.
        _ if rest.ends_with("FAILED") => Some(Verdict::Failed),
        _ if rest.ends_with(" ok") || rest.ends_with("}ok") => Some(Verdict::Passed),
        _ => None,
    }
}

/// How many passed, failed and were ignored, by all lines `test result: …`.
pub(crate) fn totals(output: &str) -> [usize; 3] {
    let mut totals = [0; 3];
    for line in output.lines().filter(|line| line.starts_with("test result:")) {
        for (total, what) in totals.iter_mut().zip([" passed", " failed", " ignored"]) {
            *total += number_before(line, what);
        }
    }
    totals
}

/// How many passed, failed and were left out, by nextest's line `Summary [ 1.2s] 9 tests run: 8 passed, …`;
/// tests that it had to end count as failed. `None`: it did not come so far.
pub(crate) fn nextest_totals(output: &str) -> Option<[usize; 3]> {
    let line = output.lines().rev().find(|line| line.trim_start().starts_with("Summary ["))?;
    let run = number_before(line, " test run:").max(number_before(line, " tests run:"));
    let passed = number_before(line, " passed");
    Some([passed, run.saturating_sub(passed), number_before(line, " skipped")])
}

/// The number that stands before these words, 0 where there is none.
fn number_before(line: &str, words: &str) -> usize {
    let Some((before, _)) = line.split_once(words) else {
        return 0;
    };
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_terse_list() {
        let list = "a::b: test\nc: test\nsome::bench: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(names(list), ["a::b", "c"]);
    }

    #[test]
    fn verdicts_are_read_also_with_words_of_children_between() {
        let output = "\nrunning 6 tests\ntest a::b ... ok\ntest c - should panic ... ok\n\
                      test d ... FAILED\ntest e ... ignored, because\n\
                      test f ... noise of a child\nok\ntest g ... noise without newline ok\n\
                      \nfailures:\n\n---- d stdout ----\ntest result: FAILED. 4 passed; 1 failed\n";
        let verdicts = verdicts(output);
        let of = |name: &str| verdicts.get(name).copied();
        for name in ["a::b", "c", "f", "g"] {
            assert_eq!(of(name), Some(Verdict::Passed), "{name}");
        }
        assert_eq!(of("d"), Some(Verdict::Failed));
        assert_eq!(of("e"), Some(Verdict::Ignored));
        assert_eq!(verdicts.len(), 6);
    }

    #[test]
    fn a_test_that_was_cut_short_has_no_verdict() {
        let verdicts = verdicts("test a ... ok\ntest b ...");
        assert_eq!(verdicts.len(), 1);
    }

    #[test]
    fn totals_are_summed_over_all_binaries() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      x\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(totals(output), [15, 2, 1]);
    }

    #[test]
    fn nextest_is_read_by_its_summary() {
        let output = "   PASS [ 0.01s] a b\n------------\n     Summary [   1.234s] 123 tests run: \
                      120 passed (2 slow), 2 failed, 1 timed out, 9 skipped\n";
        assert_eq!(nextest_totals(output), Some([120, 3, 9]));
        let one = "     Summary [   0.1s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(nextest_totals(one), Some([1, 0, 0]));
        assert_eq!(nextest_totals("error: no tests"), None);
    }
}
