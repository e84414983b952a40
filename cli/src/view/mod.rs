//! What the command shows: its own shapes, made from the messages of the wire.
//!
//! Field names are a promise to scripts (`cli/README.md`): a field is added, never renamed.
//! Numbers are integers with their unit in the name; times are RFC 3339 in UTC.

#[cfg(feature = "kubernetes")]
pub(crate) mod change;
pub(crate) mod network;
pub(crate) mod node;
mod open_enum;
pub(crate) mod rates;
pub(crate) mod spec;
pub(crate) mod usage;
pub(crate) mod virtual_cluster;

use bulkhead_proto::{time, v1};
use jiff::Timestamp;
use serde::Serialize;

/// Why something is not as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    /// What it is about: a cgroup file (`memory.max`), a table, a program.
    pub(crate) subject: String,
    /// What is wrong and what would mend it.
    pub(crate) message: String,
}

impl From<v1::Reason> for Reason {
    fn from(reason: v1::Reason) -> Self {
        Self { subject: reason.subject, message: reason.message }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.subject.as_str() {
            "" => f.write_str(&self.message),
            subject => write!(f, "{subject}: {}", self.message),
        }
    }
}

/// How much of what a number claims was really seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Coverage {
    /// Time for which there are records. Zero: nothing is known.
    pub(crate) covered_nanoseconds: u64,
    /// Time asked for.
    pub(crate) wanted_nanoseconds: u64,
}

impl Coverage {
    /// Whether anything at all is known.
    pub(crate) fn is_known(self) -> bool {
        self.covered_nanoseconds > 0
    }

    /// Whether every moment asked for was seen.
    pub(crate) fn is_complete(self) -> bool {
        self.covered_nanoseconds >= self.wanted_nanoseconds
    }

    /// The fraction covered, in parts of 2^32; for comparing. Nothing of nothing is nothing.
    pub(crate) fn fraction(self) -> u64 {
        if self.wanted_nanoseconds == 0 {
            return 0;
        }
        let covered = u128::from(self.covered_nanoseconds.min(self.wanted_nanoseconds));
        let fraction = (covered << 32) / u128::from(self.wanted_nanoseconds);
        u64::try_from(fraction).unwrap_or(u64::MAX)
    }

    /// The least of many of which anything is known; where that is none, any.
    pub(crate) fn least(many: &[Self]) -> Self {
        let known = many.iter().filter(|coverage| coverage.is_known());
        let least = known.min_by_key(|coverage| coverage.fraction());
        least.or(many.first()).copied().unwrap_or_default()
    }

    /// Both added up.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            covered_nanoseconds: self.covered_nanoseconds.saturating_add(other.covered_nanoseconds),
            wanted_nanoseconds: self.wanted_nanoseconds.saturating_add(other.wanted_nanoseconds),
        }
    }
}

impl From<Option<v1::Coverage>> for Coverage {
    fn from(coverage: Option<v1::Coverage>) -> Self {
        let coverage = coverage.unwrap_or_default();
        Self {
            covered_nanoseconds: coverage.covered_nanoseconds,
            wanted_nanoseconds: coverage.wanted_nanoseconds,
        }
    }
}

/// A moment of the wire; none where there is none, or none that makes sense.
fn moment(timestamp: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let nanoseconds = time::unix_nanoseconds(timestamp?)?;
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_compares_by_its_fraction() {
        let of = |covered_nanoseconds, wanted_nanoseconds| Coverage {
            covered_nanoseconds,
            wanted_nanoseconds,
        };
        assert!(of(1, 2).fraction() < of(2, 3).fraction());
        assert_eq!(of(4, 4).fraction(), of(u64::MAX, u64::MAX).fraction());
        assert_eq!(of(0, 0).fraction(), 0);
        assert!(of(0, 0).is_complete() && !of(0, 0).is_known());
        assert!(!of(3, 4).is_complete() && of(3, 4).is_known());
    }

    #[test]
    fn a_moment_that_makes_no_sense_is_none() {
        assert_eq!(moment(None), None);
        assert_eq!(moment(Some(&prost_types::Timestamp { seconds: -1, nanos: 0 })), None);
        let half = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
        assert_eq!(
            moment(Some(&half)).map(|at| at.to_string()),
            Some("1970-01-01T00:00:01.5Z".to_owned())
        );
    }
}
