//! What there is to do: pure data, no choice left to the executor.

use std::fmt;

use bulkhead_abi::{Address, AllowKey, FarEnd, Member, Prefix};

use crate::address::{AddressBlock, from_abi};
use crate::binding::Unknown;
use crate::control::{Control, ControlValue, Controller};
use crate::inventory::PodPath;
use crate::name::{CgroupId, VirtualClusterName};
use crate::node_port::NodePort;

/// The cgroup of a pod, as the kernel had it when the plan was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodCgroup {
    /// Where it is, below the kubelet's root.
    pub path: PodPath,
    /// Its incarnation.
    pub id: CgroupId,
}

impl fmt::Display for PodCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {} (cgroup {})", self.path.uid(), self.id)
    }
}

/// One change to the node. Steps name virtual clusters, not cgroup ids, where the cgroup may
/// not be there yet when the plan is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Makes the cgroup of a virtual cluster, with these controllers on in our root.
    CreateCgroup {
        /// Whose.
        name: VirtualClusterName,
        /// What it needs from our root.
        controllers: Vec<Controller>,
    },
    /// Writes a control and reads it back.
    SetControl {
        /// Whose.
        name: VirtualClusterName,
        /// Which.
        control: Control,
        /// To what.
        value: ControlValue,
    },
    /// Adds or changes exact addresses.
    PutAddresses(Vec<(Address, FarEnd)>),
    /// Takes exact addresses out.
    DeleteAddresses(Vec<Address>),
    /// Adds or changes prefixes.
    PutPrefixes(Vec<(Prefix, FarEnd)>),
    /// Takes prefixes out.
    DeletePrefixes(Vec<Prefix>),
    /// Adds pairs that may talk.
    Allow(Vec<AllowKey>),
    /// Takes pairs out.
    Disallow(Vec<AllowKey>),
    /// Makes counters, at zero.
    CreateCounters {
        /// Whose.
        name: VirtualClusterName,
    },
    /// Takes a virtual cluster out of MEMBERS until it is set again: everything but loopback is
    /// dropped.
    Isolate {
        /// Whose.
        name: VirtualClusterName,
    },
    /// Says whose a cgroup is and how it is judged: from here on verdicts hold.
    SetMember {
        /// Whose.
        name: VirtualClusterName,
        /// As the table has it.
        member: Member,
    },
    /// Makes counters for a pod, at zero.
    CreatePodCounters {
        /// Whose.
        name: VirtualClusterName,
        /// The pod.
        pod: PodCgroup,
    },
    /// Says whose a pod is and how it is judged: from here on verdicts hold.
    SetPodMember {
        /// Whose; `None`: nobody's.
        name: Option<VirtualClusterName>,
        /// The pod.
        pod: PodCgroup,
        /// As the table has it.
        member: Member,
    },
    /// Says what becomes of the pods of nobody.
    SetUnknown(Unknown),
    /// Writes CONFIG and attaches the programs that are not attached: they begin to judge.
    Attach,
    /// Ends the open TCP connections of a virtual cluster that its verdicts deny now.
    EndConnections {
        /// Whose.
        name: VirtualClusterName,
    },
    /// Ends the open TCP connections of a pod that its verdicts deny now.
    EndPodConnections {
        /// Whose.
        name: VirtualClusterName,
        /// The pod.
        pod: PodCgroup,
    },
    /// Removes the cgroup of a virtual cluster that is gone and has no processes.
    RemoveCgroup {
        /// Whose.
        name: VirtualClusterName,
    },
    /// Takes a cgroup out of MEMBERS.
    DeleteMember(CgroupId),
    /// Takes the counters of a cgroup that is gone.
    DeleteCounters(CgroupId),
    /// Removes the pins of an agent of this ABI version, whose counters count no more.
    ForgetVersion(u32),
}

impl Step {
    /// The virtual cluster that it is about, where it is about one.
    pub const fn subject(&self) -> Option<&VirtualClusterName> {
        match self {
            Self::CreateCgroup { name, .. }
            | Self::SetControl { name, .. }
            | Self::CreateCounters { name }
            | Self::SetMember { name, .. }
            | Self::Isolate { name }
            | Self::EndConnections { name }
            | Self::CreatePodCounters { name, .. }
            | Self::EndPodConnections { name, .. }
            | Self::RemoveCgroup { name } => Some(name),
            Self::SetPodMember { name, .. } => name.as_ref(),
            _ => None,
        }
    }

    /// Whether the steps after it must not be done when it fails. What is about one virtual
    /// cluster harms no other; tables and programs are everybody's, and their order is what
    /// keeps enforcement closed.
    pub const fn failure_stops(&self) -> bool {
        self.subject().is_none() && !matches!(self, Self::SetPodMember { .. })
    }

    /// Whether what was counted must be in the journal before it: counters end with it, or the
    /// gap while programs were off ends with it and is to be seen before it is mended.
    pub const fn counts_first(&self) -> bool {
        self.ends_counters() || matches!(self, Self::Attach)
    }

    /// Whether counters end with it, so that they must be in the journal before.
    pub const fn ends_counters(&self) -> bool {
        matches!(
            self,
            Self::RemoveCgroup { .. }
                | Self::DeleteMember(_)
                | Self::DeleteCounters(_)
                | Self::ForgetVersion(_)
        )
    }
}

/// One line for people.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateCgroup { name, controllers } => {
                write!(f, "create cgroup {name} with controllers [")?;
                list(f, controllers.iter())?;
                f.write_str("]")
            }
            Self::SetControl { name, control, value } => match value.to_string() {
                empty if empty.is_empty() => write!(f, "clear {name}/{control}"),
                value => write!(f, "write {name}/{control} = {}", value.replace('\n', "; ")),
            },
            Self::PutAddresses(entries) => {
                write!(f, "put {} addresses: ", entries.len())?;
                list(f, entries.iter().map(|(address, far)| entry(address_or_port(*address), *far)))
            }
            Self::DeleteAddresses(keys) => {
                write!(f, "delete {} addresses: ", keys.len())?;
                list(f, keys.iter().map(|key| address_or_port(*key)))
            }
            Self::PutPrefixes(entries) => {
                write!(f, "put {} prefixes: ", entries.len())?;
                list(f, entries.iter().map(|(prefix, far)| entry(block(*prefix), *far)))
            }
            Self::DeletePrefixes(keys) => {
                write!(f, "delete {} prefixes: ", keys.len())?;
                list(f, keys.iter().map(|key| block(*key)))
            }
            Self::Allow(pairs) => pairs_line(f, "allow", pairs),
            Self::Disallow(pairs) => pairs_line(f, "disallow", pairs),
            Self::CreateCounters { name } => write!(f, "create network counters of {name}"),
            Self::SetMember { name, member } => write!(
                f,
                "judge {name} as virtual cluster {} in mode {}",
                member.virtual_cluster,
                mode(member.mode)
            ),
            Self::Isolate { name } => write!(f, "isolate {name} until it has its new number"),
            Self::CreatePodCounters { name, pod } => {
                write!(f, "create network counters of {pod} of {name}")
            }
            Self::SetPodMember { name: Some(name), pod, member } => write!(
                f,
                "judge {pod} of {name} as virtual cluster {} in mode {}",
                member.virtual_cluster,
                mode(member.mode)
            ),
            Self::SetPodMember { name: None, pod, .. } => write!(f, "leave {pod} alone"),
            Self::SetUnknown(Unknown::Allow) => f.write_str("leave pods of nobody alone"),
            Self::SetUnknown(Unknown::Deny) => f.write_str("cut pods of nobody off"),
            Self::EndPodConnections { name, pod } => {
                write!(f, "end denied TCP connections of {pod} of {name}")
            }
            Self::Attach => f.write_str("write CONFIG and attach programs"),
            Self::EndConnections { name } => write!(f, "end denied TCP connections of {name}"),
            Self::RemoveCgroup { name } => write!(f, "remove cgroup {name}"),
            Self::DeleteMember(id) => write!(f, "delete member cgroup {id}"),
            Self::DeleteCounters(id) => write!(f, "delete network counters of cgroup {id}"),
            Self::ForgetVersion(version) => {
                write!(f, "remove the pins of an agent of ABI version {version}")
            }
        }
    }
}

/// How many entries a line shows.
const SHOWN: usize = 3;

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl ExactSizeIterator<Item = T>,
) -> fmt::Result {
    let all = items.len();
    for (at, item) in items.take(SHOWN + 1).enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        if at == SHOWN {
            return write!(f, "{separator}and {} more", all - SHOWN);
        }
        write!(f, "{separator}{item}")?;
    }
    Ok(())
}

fn pairs_line(f: &mut fmt::Formatter<'_>, verb: &str, pairs: &[AllowKey]) -> fmt::Result {
    write!(f, "{verb} {} pairs: ", pairs.len())?;
    list(f, pairs.iter().map(|pair| format!("{}→{}", pair.from, pair.to)))
}

fn block(prefix: Prefix) -> String {
    AddressBlock::from_prefix(prefix).map_or_else(|| format!("{prefix:?}"), |net| net.to_string())
}

fn address_or_port(address: Address) -> String {
    NodePort::from_abi(address)
        .map_or_else(|| from_abi(address).to_string(), |port| format!("node port {port}"))
}

fn entry(key: impl fmt::Display, far: FarEnd) -> String {
    let flags = [
        (FarEnd::NODE, "node"),
        (FarEnd::SHARED, "shared"),
        (FarEnd::CLUSTER, "cluster"),
        (FarEnd::PLAIN, "plain"),
        (FarEnd::STALE, "stale"),
    ];
    let mut text = format!("{key} =");
    if far.virtual_cluster != 0 {
        text.push_str(" virtual cluster ");
        text.push_str(&far.virtual_cluster.to_string());
    }
    for (flag, name) in flags {
        if far.flags & flag != 0 {
            text.push(' ');
            text.push_str(name);
        }
    }
    text
}

const fn mode(mode: u32) -> &'static str {
    match mode {
        bulkhead_abi::MODE_OFF => "Off",
        bulkhead_abi::MODE_OBSERVE => "Observe",
        _ => "Enforce",
    }
}
