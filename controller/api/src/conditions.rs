//! What an object's status says: a pure function of what is known. Every condition has a reason
//! for machines and a message for people that says what would mend it.

#[cfg(test)]
mod tests;
mod verdicts;

use bulkhead_core::VirtualClusterName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::catalogue::{Definition, Overlap};
use crate::membership::Claim;
use crate::problem::Problem;

pub use verdicts::{of_virtual_cluster, ready};

/// The types of conditions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The newest form of the object is in effect on every node that has its pods.
    Ready,
    /// Traffic with other virtual clusters is refused on every such node.
    Enforced,
    /// What perNode asks for holds on every such node.
    LimitsEnforced,
    /// Something makes the boundary weaker than its mode says.
    BoundaryWeak,
}

impl Kind {
    /// As status has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Enforced => "Enforced",
            Self::LimitsEnforced => "LimitsEnforced",
            Self::BoundaryWeak => "BoundaryWeak",
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holds {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl Holds {
    /// As status has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition without its times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Which.
    pub kind: Kind,
    /// Whether it holds.
    pub holds: Holds,
    /// Why, for machines.
    pub reason: &'static str,
    /// Why, and what would mend it.
    pub message: String,
}

/// What is known of a virtual cluster.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a VirtualClusterName,
    /// The form that is in effect; `None`: none ever was.
    pub definition: Option<&'a Definition>,
    /// What is wrong with its newest form.
    pub problems: &'a [Problem],
    /// Pods that it and others claim.
    pub claims: &'a [Claim],
    /// Addresses that it and others name.
    pub overlaps: &'a [Overlap],
    /// What else operators should know ([`crate::membership::Outcome::warnings`]).
    pub warnings: &'a [String],
    /// Its pods.
    pub pods: u32,
    /// Nodes that have its pods, by name.
    pub nodes: &'a [NodeStanding],
}

/// How a node that has its pods does by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStanding {
    /// The node.
    pub name: String,
    /// Whether its agent is heard of.
    pub agent: Agent,
    /// What the agent said last.
    pub state: NodeState,
    /// Why not everything stands.
    pub reasons: Vec<Reason>,
    /// Its pods there that stay in the kubelet's own cgroups.
    pub overlay_pods: u32,
    /// Its pods there that use the node's own network namespace.
    pub host_network_pods: u32,
    /// Pods are found by the kubelet's cgroups, after they began, because the runtime has no NRI.
    pub without_nri: Option<Window>,
}

/// For how long a pod may send before it is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Window {
    /// The longest that any pod waited since the node's agent began, from when its cgroup was seen
    /// to when it stood in the kernel's table; `None`: none was registered so yet.
    pub longest_nanoseconds: Option<u64>,
}

/// Whether a node's agent is heard of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Agent {
    /// It has a stream.
    Connected,
    /// It had one. What it enforced goes on.
    Away,
    /// It was never heard of.
    Missing,
}

/// How far a node is with a virtual cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeState {
    /// Everything that was asked for stands.
    Applied,
    /// Something does not.
    Degraded,
    /// The newest was refused whole; what was before stands.
    Refused,
    /// Not yet applied.
    Pending,
}

/// Why something is not as asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reason {
    /// What it is about: a cgroup file ("memory.max"), a table ("ADDRESSES"), a program.
    pub subject: String,
    /// What is wrong and what would mend it.
    pub message: String,
}

impl Reason {
    /// Whether it is about what perNode asks for; else it is about the network.
    pub fn is_of_limits(&self) -> bool {
        bulkhead_core::Control::ALL.iter().any(|control| control.file() == self.subject)
    }
}

/// Conditions with their times: a condition whose status is as before keeps the time at which it
/// came to be so. Those of other types are left out, so that who applied them keeps them.
pub fn merged(
    verdicts: impl IntoIterator<Item = Verdict>,
    previous: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let condition = |Verdict { kind, holds, reason, message }: Verdict| {
        let before = previous
            .iter()
            .find(|before| before.type_ == kind.name() && before.status == holds.name());
        Condition {
            type_: kind.name().to_owned(),
            status: holds.name().to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: before.map_or(now, |it| &it.last_transition_time).clone(),
        }
    };
    verdicts.into_iter().map(condition).collect()
}

impl NodeStanding {
    /// Whether everything that was asked of the network stands there, as far as is known; what
    /// status counts as an enforcing node, where the mode is Enforce.
    pub fn enforces(&self) -> bool {
        verdicts::enforces(self)
    }
}
