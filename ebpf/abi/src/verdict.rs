//! What a packet's far end is, and what follows from it. The kernel programs and the agent
//! (for open connections and `explain`) run this same code.

use crate::layout::FarEnd;

/// Mode of a virtual cluster: nothing is judged, everything is counted.
pub const MODE_OFF: u32 = 0;
/// Mode of a virtual cluster: everything passes; what Enforce would deny is counted.
pub const MODE_OBSERVE: u32 = 1;
/// Mode of a virtual cluster: verdicts hold.
pub const MODE_ENFORCE: u32 = 2;

/// Number of directions.
pub const DIRECTIONS: usize = 2;
/// Number of classes.
pub const CLASSES: usize = 6;
/// Number of outcomes.
pub const OUTCOMES: usize = 3;

/// Direction as the virtual cluster sees it.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Sent by a member.
    Egress = 0,
    /// Received by a member.
    Ingress = 1,
}

/// What the far end is, in the order in which it is decided.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// The same virtual cluster.
    Own = 0,
    /// A host address.
    Node = 1,
    /// The operator's shared list; what is of no virtual cluster, where that may be talked with.
    Shared = 2,
    /// A known address of another virtual cluster, or of none where that may not be talked with.
    Other = 3,
    /// Inside the cluster's ranges, but not known to this node.
    Cluster = 4,
    /// Anywhere else.
    Outside = 5,
}

/// How a packet is counted.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Passed, and would pass under Enforce.
    Passed = 0,
    /// Dropped.
    Denied = 1,
    /// Passed, but Enforce would have dropped it. Not counted under `Passed`.
    WouldDeny = 2,
}

/// What Enforce does with a packet or call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Pass.
    Pass,
    /// Drop with no error to the sender: it may be a peer that we have not heard of yet.
    DropSilently,
    /// Drop, and EPERM to the sender.
    Deny,
}

/// Decides what the far end is for a member of virtual cluster `me`.
///
/// `known` is the entry of the exact table, or, only where that has none, of the longest
/// prefix.
#[inline(always)]
pub const fn classify(me: u32, known: Option<FarEnd>) -> Class {
    let Some(far) = known else {
        return Class::Outside;
    };
    if far.virtual_cluster != 0 && far.virtual_cluster == me {
        Class::Own
    } else if far.flags & FarEnd::NODE != 0 {
        Class::Node
    } else if far.flags & (FarEnd::SHARED | FarEnd::PLAIN) == FarEnd::SHARED {
        Class::Shared
    } else if far.virtual_cluster != 0 || far.flags & FarEnd::PLAIN != 0 {
        Class::Other
    } else if far.flags & FarEnd::CLUSTER != 0 {
        Class::Cluster
    } else {
        Class::Outside
    }
}

/// What Enforce does with a packet of that class; `allowed`: the pair is on the allow list
/// (asked only for [`Class::Other`]).
#[inline(always)]
pub const fn decide(class: Class, allowed: bool) -> Verdict {
    match class {
        Class::Own | Class::Node | Class::Shared | Class::Outside => Verdict::Pass,
        Class::Other if allowed => Verdict::Pass,
        Class::Other => Verdict::Deny,
        Class::Cluster => Verdict::DropSilently,
    }
}

/// The mode by which a packet of that class is judged: nobody is kept from what may be a peer of
/// his, of which nobody could tell, where the operator wants it so.
#[inline(always)]
pub const fn mode_for(class: Class, known: Option<FarEnd>, mode: u32) -> u32 {
    match (class, known) {
        (Class::Cluster, Some(far)) if far.flags & FarEnd::STALE != 0 && mode != MODE_OFF => {
            MODE_OBSERVE
        }
        _ => mode,
    }
}

/// As what a packet of that class is counted, once it was asked whether the pair is on the allow
/// list.
#[inline(always)]
pub const fn counted_as(class: Class, known: Option<FarEnd>, allowed: bool) -> Class {
    match (class, known) {
        (Class::Other, Some(far)) if allowed && far.virtual_cluster == 0 => Class::Shared,
        _ => class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn far(virtual_cluster: u32, flags: u32) -> FarEnd {
        FarEnd { virtual_cluster, flags }
    }

    #[test]
    fn the_order_of_classes_is_own_node_shared_other_cluster_outside() {
        let all = FarEnd::NODE | FarEnd::SHARED | FarEnd::CLUSTER;
        assert_eq!(classify(7, Some(far(7, all))), Class::Own);
        assert_eq!(classify(7, Some(far(8, all))), Class::Node);
        assert_eq!(classify(7, Some(far(8, FarEnd::SHARED | FarEnd::CLUSTER))), Class::Shared);
        assert_eq!(classify(7, Some(far(8, FarEnd::CLUSTER))), Class::Other);
        assert_eq!(classify(7, Some(far(0, FarEnd::CLUSTER))), Class::Cluster);
        assert_eq!(classify(7, Some(far(0, 0))), Class::Outside);
        assert_eq!(classify(7, None), Class::Outside);
    }

    #[test]
    fn number_zero_owns_nothing() {
        assert_eq!(classify(0, Some(far(0, 0))), Class::Outside);
    }

    #[test]
    fn what_is_nobodys_is_shared_with_those_who_may_talk_with_it() {
        let plain = far(0, FarEnd::SHARED | FarEnd::CLUSTER | FarEnd::PLAIN);
        assert_eq!(classify(7, Some(plain)), Class::Other, "ask the allow list");
        assert_eq!(counted_as(Class::Other, Some(plain), true), Class::Shared);
        assert_eq!(counted_as(Class::Other, Some(plain), false), Class::Other);
        assert_eq!(counted_as(Class::Other, Some(far(8, 0)), true), Class::Other);
        let host = far(0, FarEnd::NODE | FarEnd::SHARED | FarEnd::PLAIN);
        assert_eq!(classify(7, Some(host)), Class::Node);
    }

    #[test]
    fn what_may_be_a_new_peer_is_observed_while_nobody_can_tell() {
        let stale = Some(far(0, FarEnd::CLUSTER | FarEnd::STALE));
        assert_eq!(classify(7, stale), Class::Cluster);
        assert_eq!(mode_for(Class::Cluster, stale, MODE_ENFORCE), MODE_OBSERVE);
        assert_eq!(mode_for(Class::Cluster, stale, 99), MODE_OBSERVE);
        assert_eq!(mode_for(Class::Cluster, stale, MODE_OFF), MODE_OFF);
        let known = Some(far(0, FarEnd::CLUSTER));
        assert_eq!(mode_for(Class::Cluster, known, MODE_ENFORCE), MODE_ENFORCE);
        let other = Some(far(8, FarEnd::CLUSTER | FarEnd::STALE));
        assert_eq!(mode_for(Class::Other, other, MODE_ENFORCE), MODE_ENFORCE);
    }

    #[test]
    fn only_other_and_unknown_are_held_back() {
        for class in [Class::Own, Class::Node, Class::Shared, Class::Outside] {
            assert_eq!(decide(class, false), Verdict::Pass);
        }
        assert_eq!(decide(Class::Other, false), Verdict::Deny);
        assert_eq!(decide(Class::Other, true), Verdict::Pass);
        assert_eq!(decide(Class::Cluster, true), Verdict::DropSilently);
    }
}
