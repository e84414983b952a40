//! What must run on which kind of machine: nothing is skipped in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::libtest::Verdict;
use crate::paths;

/// `target::module::name`.
pub(crate) type Name = String;

/// The committed lists.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Lists {
    /// On every host.
    pub(crate) host: BTreeSet<Name>,
    /// Besides, on a host where cgroup v1 holds the controllers.
    pub(crate) hybrid: BTreeSet<Name>,
    /// In the lab's virtual machine.
    pub(crate) vm: BTreeSet<Name>,
    /// On kernel 6.1, without systemd.
    pub(crate) oldest: BTreeSet<Name>,
    /// Of those for the virtual machine, what does not run on kernel 6.1; each has its reason.
    pub(crate) not_on_oldest: BTreeSet<Name>,
}

impl Lists {
    /// Reads them.
    pub(crate) fn read() -> Result<Self> {
        let not_on_oldest = text("vm-6.1-not")?;
        reasoned(&not_on_oldest).context("in vm-6.1-not.txt")?;
        Ok(Self {
            host: read("host")?,
            hybrid: read("host-hybrid")?,
            vm: read("vm")?,
            oldest: read("vm-6.1")?,
            not_on_oldest: parse(&not_on_oldest).context("in vm-6.1-not.txt")?,
        })
    }

    /// What must run on this host.
    pub(crate) fn on_host(&self, hybrid: bool) -> BTreeSet<Name> {
        let besides = if hybrid { Some(&self.hybrid) } else { None };
        self.host.iter().chain(besides.into_iter().flatten()).cloned().collect()
    }

    /// Tests that are there and that no list names.
    pub(crate) fn unlisted(&self, there: &BTreeSet<Name>) -> Vec<Problem> {
        let listed = |name: &&Name| {
            [&self.host, &self.hybrid, &self.vm].iter().any(|list| list.contains(*name))
        };
        let unlisted = there.iter().filter(|name| !listed(name)).cloned().map(Problem::Unlisted);
        // What runs on one kernel runs on the other, or is left out there for a reason.
        let decided =
            |name: &&Name| self.oldest.contains(*name) != self.not_on_oldest.contains(*name);
        let all: BTreeSet<&Name> =
            [&self.vm, &self.oldest, &self.not_on_oldest].into_iter().flatten().collect();
        let undecided = all.into_iter().filter(|name| !decided(name)).cloned();
        unlisted.chain(undecided.map(Problem::Undecided)).collect()
    }
}

fn read(kind: &str) -> Result<BTreeSet<Name>> {
    parse(&text(kind)?).with_context(|| format!("in {}", path(kind).display()))
}

fn text(kind: &str) -> Result<String> {
    let path = path(kind);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Every name has words behind its `#`.
fn reasoned(text: &str) -> Result<()> {
    let named = |line: &&str| !line.is_empty() && !line.starts_with('#');
    for line in text.lines().map(str::trim).filter(named) {
        if line.split_once('#').is_none_or(|(_, reason)| reason.trim().is_empty()) {
            bail!("{line} has no reason: write it behind a #");
        }
    }
    Ok(())
}

fn path(kind: &str) -> PathBuf {
    paths::root().join("tests/must-run").join(format!("{kind}.txt"))
}

/// One name a line; `#` begins a comment.
fn parse(text: &str) -> Result<BTreeSet<Name>> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            continue;
        }
        if !names.insert(name.to_owned()) {
            bail!("{name} is named twice; take one out");
        }
    }
    Ok(names)
}

/// What is wrong with a test.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Problem {
    /// It failed.
    Failed(Name),
    /// It is listed, and there is no such test.
    Missing(Name),
    /// It is listed, and has no verdict.
    DidNotRun(Name),
    /// It is there, and in no list.
    Unlisted(Name),
    /// It is said neither to run on kernel 6.1 nor not to, or both.
    Undecided(Name),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(name) => write!(f, "{name} failed"),
            Self::Missing(name) => {
                write!(
                    f,
                    "{name} must run, and there is no such test: bring it back, or take it \
                           out of tests/must-run"
                )
            }
            Self::DidNotRun(name) => write!(f, "{name} must run, and did not"),
            Self::Unlisted(name) => {
                write!(f, "{name} is in no list: add it to tests/must-run, where it must run")
            }
            Self::Undecided(name) => {
                write!(
                    f,
                    "{name} must be in one of tests/must-run/vm-6.1.txt and, with the reason, \
                     vm-6.1-not.txt"
                )
            }
        }
    }
}

/// How many of `wanted` passed, and what is wrong with the others.
pub(crate) fn judge(
    wanted: &BTreeSet<Name>,
    there: &BTreeSet<Name>,
    verdicts: &BTreeMap<Name, Verdict>,
) -> (usize, Vec<Problem>) {
    let mut problems = Vec::new();
    for name in wanted {
        match verdicts.get(name) {
            Some(Verdict::Passed) => {}
            Some(Verdict::Failed) => problems.push(Problem::Failed(name.clone())),
            None if !there.contains(name) => problems.push(Problem::Missing(name.clone())),
            Some(Verdict::Ignored) | None => problems.push(Problem::DidNotRun(name.clone())),
        }
    }
    (wanted.len() - problems.len(), problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn whatever_is_not_a_pass_is_a_problem() {
        let wanted = set(&["a", "b", "c", "d", "e"]);
        let there = set(&["a", "b", "d", "e", "f"]);
        let verdicts = [("a", Verdict::Passed), ("b", Verdict::Failed), ("d", Verdict::Ignored)];
        let verdicts = verdicts.map(|(name, verdict)| (name.to_owned(), verdict)).into();
        let (passed, problems) = judge(&wanted, &there, &verdicts);
        assert_eq!(passed, 1);
        let expected = [
            Problem::Failed("b".into()),
            Problem::Missing("c".into()),
            Problem::DidNotRun("d".into()),
            Problem::DidNotRun("e".into()),
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_test_that_no_list_names_is_a_problem() {
        let mut lists = Lists {
            host: set(&["a"]),
            hybrid: set(&["b"]),
            vm: set(&["c", "e"]),
            oldest: set(&["c"]),
            not_on_oldest: set(&["e"]),
        };
        let there = set(&["a", "b", "c", "d", "e"]);
        assert_eq!(lists.unlisted(&there), [Problem::Unlisted("d".into())]);
        lists.oldest = set(&["e"]);
        let undecided = ["c", "e"].map(|name| Problem::Undecided(name.into()));
        assert_eq!(lists.unlisted(&set(&["a"])), undecided);
        assert_eq!(lists.on_host(false), set(&["a"]));
        assert_eq!(lists.on_host(true), set(&["a", "b"]));
    }

    #[test]
    fn lists_have_comments_and_no_doubles() {
        let names = parse("# about\na::b # why\n\n  c\n").expect("is a list");
        assert_eq!(names, set(&["a::b", "c"]));
        assert!(parse("a\na\n").is_err());
    }

    #[test]
    fn what_is_left_out_has_its_reason() {
        assert!(reasoned("# about\n\na::b # needs systemd\n").is_ok());
        assert!(reasoned("a::b\n").is_err());
        assert!(reasoned("a::b #\n").is_err());
    }

    #[test]
    fn the_committed_lists_can_be_read() {
        let lists = Lists::read().expect("they are committed");
        assert!(!lists.host.is_empty() && !lists.vm.is_empty() && !lists.oldest.is_empty());
    }
}
