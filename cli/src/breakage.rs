//! What Enforce would refuse, as counted while it was only observed.

use std::fmt::Write as _;

use bulkhead_api::object::Mode;
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::described::{Described, word};
use crate::units;
use crate::view::Coverage;
use crate::view::network::{Class, ClassUsage, Direction};
use crate::view::usage::Row;

/// What Enforce would have refused in a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Breakage {
    /// First instant.
    pub(crate) start: Timestamp,
    /// First instant after.
    pub(crate) end: Timestamp,
    /// None: nothing is known; see doubts.
    pub(crate) flows: Option<Vec<Flow>>,
    /// How much of the range was seen.
    pub(crate) coverage: Coverage,
    /// Why there may be more than this.
    pub(crate) doubts: Vec<String>,
}

/// What would have been refused in one direction, to or from one class of far ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Flow {
    pub(crate) direction: Direction,
    pub(crate) class: Class,
    pub(crate) would_deny_packets: u64,
    pub(crate) would_deny_bytes: u64,
    pub(crate) would_deny_connects: u64,
    pub(crate) would_deny_sendmsgs: u64,
}

impl Flow {
    fn of(usage: &ClassUsage) -> Option<Self> {
        let counters = usage.counters;
        let flow = Self {
            direction: usage.direction,
            class: usage.class,
            would_deny_packets: counters.would_deny_packets,
            would_deny_bytes: counters.would_deny_bytes,
            would_deny_connects: counters.would_deny_connects,
            would_deny_sendmsgs: counters.would_deny_sendmsgs,
        };
        let all = [
            flow.would_deny_packets,
            flow.would_deny_bytes,
            flow.would_deny_connects,
            flow.would_deny_sendmsgs,
        ];
        all.iter().any(|count| *count > 0).then_some(flow)
    }

    fn told(&self) -> String {
        let (way, far) = match self.direction {
            Direction::Egress => ("sent", "to"),
            Direction::Ingress => ("received", "from"),
            Direction::Unknown(_) => ("moved", "with"),
        };
        let whom = match self.class {
            Class::Own => "its own".to_owned(),
            Class::Node => "nodes".to_owned(),
            Class::Shared => "shared services and pods of no virtual cluster".to_owned(),
            Class::Other => "other virtual clusters".to_owned(),
            Class::Cluster => "addresses inside the cluster's ranges that nobody has".to_owned(),
            Class::Outside => "the outside".to_owned(),
            Class::Unknown(_) => format!("class {}", self.class),
        };
        format!(
            "{} packets ({}) {way}, {} connects and {} sendmsgs, {far} {whom}",
            self.would_deny_packets,
            units::bytes(self.would_deny_bytes),
            self.would_deny_connects,
            self.would_deny_sendmsgs,
        )
    }
}

/// What the ledger knows: its row for the virtual cluster, if there is one; or why it was not
/// asked.
pub(crate) fn breakage(
    described: &Described,
    (start, end): (Timestamp, Timestamp),
    asked: &Result<Option<Row>, String>,
) -> Breakage {
    let mut found =
        Breakage { start, end, flows: None, coverage: Coverage::default(), doubts: Vec::new() };
    match asked {
        Err(why) => found.doubts.push(format!("the controller could not be asked: {why}")),
        Ok(row) => match row.as_ref().and_then(|row| row.network.as_ref()) {
            Some(network) if network.coverage.is_known() => {
                found.coverage = network.coverage;
                found.flows = Some(network.classes.iter().filter_map(Flow::of).collect());
            }
            _ => found.doubts.push("there is no record of its network in this time".to_owned()),
        },
    }
    if found.flows.is_some() && !found.coverage.is_complete() {
        let Coverage { covered_nanoseconds, wanted_nanoseconds } = found.coverage;
        let seen = units::percent(covered_nanoseconds, wanted_nanoseconds);
        let doubt = format!("only {seen} of this time was seen: what happened in the rest is not");
        found.doubts.push(format!("{doubt} known"));
    }
    let judged = [Mode::Observe, Mode::Enforce].map(word);
    match described.in_effect.as_deref() {
        Some(mode) if judged.contains(&mode) => {}
        Some(mode) => found.doubts.push(format!(
            "its mode is {mode}: nothing is judged, so nothing was counted; observe it first"
        )),
        None => found.doubts.push("its mode was never in effect; observe it first".to_owned()),
    }
    found
}

impl Breakage {
    /// In lines for people.
    pub(crate) fn told(&self, name: &str) -> String {
        let mut text = format!(
            "{}: what Enforce would have refused since {}:\n",
            units::plain(name),
            self.start.strftime("%Y-%m-%d %H:%M:%SZ")
        );
        match self.flows.as_deref() {
            None => text.push_str("  not known\n"),
            Some([]) => text.push_str("  nothing\n"),
            Some(flows) => {
                for flow in flows {
                    let _ = writeln!(text, "  {}", flow.told());
                }
            }
        }
        for doubt in &self.doubts {
            let _ = writeln!(text, "  ! {}", units::plain(doubt));
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bulkhead_proto::v1;

    use super::*;
    use crate::cluster::described::tests::object;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    /// A day.
    pub(crate) fn day() -> (Timestamp, Timestamp) {
        (at("2025-03-01T10:00:00Z"), at("2025-03-02T10:00:00Z"))
    }

    /// A row in which `covered` of 1,000 ns were seen.
    fn row(covered_nanoseconds: u64) -> Row {
        let class = |class: v1::NetworkClass, would_deny_packets, would_deny_connects| {
            v1::NetworkClassUsage {
                direction: v1::NetworkDirection::Egress.into(),
                class: class.into(),
                passed_packets: 7,
                would_deny_packets,
                would_deny_bytes: would_deny_packets * 100,
                would_deny_connects,
                ..Default::default()
            }
        };
        Row::from(v1::UsageRow {
            network: Some(v1::NetworkUsage {
                classes: vec![
                    class(v1::NetworkClass::Own, 0, 0),
                    class(v1::NetworkClass::Other, 12, 3),
                    class(v1::NetworkClass::Cluster, 0, 1),
                ],
                coverage: Some(v1::Coverage { covered_nanoseconds, wanted_nanoseconds: 1_000 }),
            }),
            ..Default::default()
        })
    }

    /// What is known of a virtual cluster of which this was seen.
    pub(crate) fn known(covered_nanoseconds: u64) -> Breakage {
        let described = Described::of(&object(2, &[]));
        breakage(&described, day(), &Ok(Some(row(covered_nanoseconds))))
    }

    #[test]
    fn only_what_would_be_refused_is_shown() {
        let found = known(1_000);
        let flows = found.flows.as_deref().expect("seen");
        assert_eq!(
            flows.iter().map(|flow| flow.class).collect::<Vec<_>>(),
            [Class::Other, Class::Cluster]
        );
        assert_eq!(found.doubts, Vec::<String>::new());
        insta::assert_snapshot!(found.told("team-a"));
    }

    #[test]
    fn what_was_not_seen_whole_says_so() {
        insta::assert_snapshot!(known(994).told("team-a"));
    }

    #[test]
    fn nothing_known_is_not_nothing() {
        let described = Described::of(&object(2, &[]));
        for asked in [Ok(None), Ok(Some(Row::default())), Ok(Some(row(0))), Err("gone".into())] {
            let found = breakage(&described, day(), &asked);
            assert_eq!((found.flows.as_ref(), found.doubts.len()), (None, 1), "{asked:?}");
            assert!(found.told("team-a").contains("not known"));
        }
    }

    #[test]
    fn counts_of_what_was_never_judged_are_doubted() {
        let off = Described { in_effect: Some("Off".to_owned()), ..Described::default() };
        let found = breakage(&off, day(), &Ok(Some(row(1_000))));
        assert!(found.doubts[0].contains("its mode is Off"), "{:?}", found.doubts);
        let found = breakage(&Described::default(), day(), &Ok(Some(row(1_000))));
        assert!(found.doubts[0].contains("never in effect"), "{:?}", found.doubts);
    }
}
