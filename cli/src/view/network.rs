//! Network usage by direction and by what the far end is.

use bulkhead_proto::v1;
use serde::Serialize;

use super::Coverage;
use super::open_enum::open_enum;

open_enum! {
    /// Seen from the virtual cluster.
    Direction from v1::NetworkDirection {
        /// Sent.
        Egress,
        /// Received.
        Ingress,
    }
}

open_enum! {
    /// What the far end is.
    Class from v1::NetworkClass {
        /// The same virtual cluster.
        Own,
        /// An address of a node.
        Node,
        /// On the operator's shared list.
        Shared,
        /// Another virtual cluster.
        Other,
        /// Inside the cluster's ranges, but not known.
        Cluster,
        /// Anywhere else.
        Outside,
    }
}

/// Both directions, for headers and loops.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Every class that this version knows.
pub(crate) const CLASSES: [Class; 6] =
    [Class::Own, Class::Node, Class::Shared, Class::Other, Class::Cluster, Class::Outside];

/// What went over the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    /// One for each direction and class in which anything happened.
    pub(crate) classes: Vec<ClassUsage>,
    /// How much of it was seen.
    pub(crate) coverage: Coverage,
}

/// What went in one direction, to or from one class. Bytes are of IP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ClassUsage {
    /// Sent or received.
    pub(crate) direction: Direction,
    /// To or from whom.
    pub(crate) class: Class,
    /// What was counted.
    #[serde(flatten)]
    pub(crate) counters: Counters,
}

/// Counters of one direction and class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    /// Let through.
    pub(crate) passed_bytes: u64,
    /// Let through.
    pub(crate) passed_packets: u64,
    /// Dropped.
    pub(crate) denied_bytes: u64,
    /// Dropped.
    pub(crate) denied_packets: u64,
    /// Passed, but Enforce would have denied it; not part of passed.
    pub(crate) would_deny_bytes: u64,
    /// Passed, but Enforce would have denied it; not part of passed.
    pub(crate) would_deny_packets: u64,
    /// Calls of connect refused at once.
    pub(crate) denied_connects: u64,
    /// Calls of sendmsg refused at once.
    pub(crate) denied_sendmsgs: u64,
    /// Calls of connect that Enforce would have refused.
    pub(crate) would_deny_connects: u64,
    /// Calls of sendmsg that Enforce would have refused.
    pub(crate) would_deny_sendmsgs: u64,
}

impl Counters {
    /// Field names and values, in the order of the struct.
    pub(crate) fn fields(self) -> [(&'static str, u64); 10] {
        [
            ("passed_bytes", self.passed_bytes),
            ("passed_packets", self.passed_packets),
            ("denied_bytes", self.denied_bytes),
            ("denied_packets", self.denied_packets),
            ("would_deny_bytes", self.would_deny_bytes),
            ("would_deny_packets", self.would_deny_packets),
            ("denied_connects", self.denied_connects),
            ("denied_sendmsgs", self.denied_sendmsgs),
            ("would_deny_connects", self.would_deny_connects),
            ("would_deny_sendmsgs", self.would_deny_sendmsgs),
        ]
    }

    /// Both added up.
    pub(crate) fn plus(self, other: Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            passed_bytes: sum(self.passed_bytes, other.passed_bytes),
            passed_packets: sum(self.passed_packets, other.passed_packets),
            denied_bytes: sum(self.denied_bytes, other.denied_bytes),
            denied_packets: sum(self.denied_packets, other.denied_packets),
            would_deny_bytes: sum(self.would_deny_bytes, other.would_deny_bytes),
            would_deny_packets: sum(self.would_deny_packets, other.would_deny_packets),
            denied_connects: sum(self.denied_connects, other.denied_connects),
            denied_sendmsgs: sum(self.denied_sendmsgs, other.denied_sendmsgs),
            would_deny_connects: sum(self.would_deny_connects, other.would_deny_connects),
            would_deny_sendmsgs: sum(self.would_deny_sendmsgs, other.would_deny_sendmsgs),
        }
    }

    /// Everything that really went over the network: passed, whether or not Enforce would have
    /// let it.
    pub(crate) fn carried_bytes(self) -> u64 {
        self.passed_bytes.saturating_add(self.would_deny_bytes)
    }

    /// Calls of connect and sendmsg refused at once.
    pub(crate) fn refused_calls(self) -> u64 {
        self.denied_connects.saturating_add(self.denied_sendmsgs)
    }
}

impl Network {
    /// The counters of all entries that `wanted` picks, added up.
    pub(crate) fn sum(&self, wanted: impl Fn(&ClassUsage) -> bool) -> Counters {
        let picked = self.classes.iter().filter(|class| wanted(class));
        picked.fold(Counters::default(), |sum, class| sum.plus(class.counters))
    }

    /// The counters of one direction.
    pub(crate) fn direction(&self, direction: Direction) -> Counters {
        self.sum(|usage| usage.direction == direction)
    }
}

impl From<v1::NetworkUsage> for Network {
    fn from(network: v1::NetworkUsage) -> Self {
        Self {
            classes: network.classes.into_iter().map(ClassUsage::from).collect(),
            coverage: network.coverage.into(),
        }
    }
}

impl From<v1::NetworkClassUsage> for ClassUsage {
    fn from(usage: v1::NetworkClassUsage) -> Self {
        Self {
            direction: Direction::from_wire(usage.direction),
            class: Class::from_wire(usage.class),
            counters: Counters {
                passed_bytes: usage.passed_bytes,
                passed_packets: usage.passed_packets,
                denied_bytes: usage.denied_bytes,
                denied_packets: usage.denied_packets,
                would_deny_bytes: usage.would_deny_bytes,
                would_deny_packets: usage.would_deny_packets,
                denied_connects: usage.denied_connects,
                denied_sendmsgs: usage.denied_sendmsgs,
                would_deny_connects: usage.would_deny_connects,
                would_deny_sendmsgs: usage.would_deny_sendmsgs,
            },
        }
    }
}
