//! Snapshots and what changes between them, between messages and core values. Whether a delta
//! fits the snapshot that it is for, and whether a snapshot's parts fit together, the brain says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use bulkhead_core::address::AddressError;
use bulkhead_core::name::NameError;
use bulkhead_core::{
    AddressBlock, Bindings, Delta, FactError, NodePolicy, NodePort, SetChange, Snapshot,
    VirtualCluster, VirtualClusterName,
};

use crate::bindings::{MessageError, add_bindings, namespace_bindings};
use crate::conversions::{ConversionError, node_ports};
use crate::pods::{add_pods, named_pod, pod_uid};
use crate::v1;

/// Why a snapshot or a delta is not taken, whole. What was there before it stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A virtual cluster cannot be what it says.
    #[error(transparent)]
    VirtualCluster(#[from] ConversionError),
    /// A binding or the policy cannot.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Two have one name.
    #[error("virtual cluster \"{name}\" is there twice; name each once")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name cannot be one.
    #[error("{list}[{index}]")]
    Name {
        /// The list that has it.
        list: &'static str,
        /// Place in the list.
        index: usize,
        /// What is wrong with it.
        source: NameError,
    },
    /// A list of addresses has something else.
    #[error("{list}[{index}]")]
    Address {
        /// Its name.
        list: &'static str,
        /// Place in the list.
        index: usize,
        /// What is there.
        source: AddressError,
    },
    /// A list of host addresses has something else.
    #[error("{list}[{index}]: \"{text}\" is no IP address; write it like 10.1.0.7 or fd00::7")]
    NodeAddress {
        /// Its name.
        list: &'static str,
        /// Place in the list.
        index: usize,
        /// What is there.
        text: String,
    },
    /// A list of node ports has something else.
    #[error("{list}[{index}]: {problem}")]
    NodePort {
        /// Its name.
        list: &'static str,
        /// Place in the list.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Its parts do not fit together.
    #[error(transparent)]
    Fact(#[from] FactError),
}

/// The snapshot of all its chunks, in order.
pub fn snapshot(chunks: &[v1::SnapshotChunk]) -> Result<Snapshot, Refusal> {
    let mut snapshot = Snapshot::default();
    for chunk in chunks {
        snapshot.generation = chunk.generation;
        for message in &chunk.virtual_clusters {
            let cluster = VirtualCluster::try_from(message)?;
            if snapshot.virtual_clusters.insert(cluster.name.clone(), cluster).is_some() {
                return Err(Refusal::Twice { name: message.name.clone() });
            }
        }
        snapshot.shared.append(&mut blocks("shared", &chunk.shared)?);
        snapshot.plain.append(&mut blocks("plain", &chunk.plain)?);
        snapshot.cluster_ranges.append(&mut blocks("cluster_ranges", &chunk.cluster_ranges)?);
        snapshot.node_addresses.append(&mut hosts("node_addresses", &chunk.node_addresses)?);
        let mut unclear = ports("unclear_node_ports", &chunk.unclear_node_ports)?;
        snapshot.unclear_node_ports.append(&mut unclear);
        add_bindings(&mut snapshot.bindings, &chunk.bindings)?;
        snapshot.names_pods |= chunk.names_pods;
        add_pods(&mut snapshot.pods, &chunk.pods)?;
        if let Some(policy) = &chunk.policy {
            snapshot.policy = NodePolicy::try_from(policy)?;
        }
    }
    snapshot.check()?;
    Ok(snapshot)
}

/// A snapshot as one chunk, however large: to be kept, not to be sent.
pub fn whole(snapshot: &Snapshot) -> v1::SnapshotChunk {
    let bindings = snapshot.bindings.0.iter();
    v1::SnapshotChunk {
        generation: snapshot.generation,
        first: true,
        last: true,
        virtual_clusters: snapshot.virtual_clusters.values().map(Into::into).collect(),
        shared: texts(&snapshot.shared),
        plain: texts(&snapshot.plain),
        cluster_ranges: texts(&snapshot.cluster_ranges),
        node_addresses: texts(&snapshot.node_addresses),
        bindings: bindings.flat_map(|(name, bound)| namespace_bindings(name, bound)).collect(),
        policy: Some(snapshot.policy.into()),
        names_pods: snapshot.names_pods,
        pods: snapshot.pods.iter().map(|(uid, pod)| named_pod(uid, pod)).collect(),
        unclear_node_ports: port_messages(&snapshot.unclear_node_ports),
    }
}

impl From<&Delta> for v1::SnapshotDelta {
    fn from(delta: &Delta) -> Self {
        let addresses = delta.addresses.iter().map(|(name, change)| v1::AddressChange {
            virtual_cluster: name.to_string(),
            added: texts(&change.added),
            removed: texts(&change.removed),
        });
        let node_ports = delta.node_ports.iter().map(|(name, change)| v1::NodePortChange {
            virtual_cluster: name.to_string(),
            added: port_messages(&change.added),
            removed: port_messages(&change.removed),
        });
        let bindings = delta.bindings.iter();
        Self {
            base_generation: delta.base,
            generation: delta.generation,
            upserted: delta.upserted.values().map(Into::into).collect(),
            removed: texts(&delta.removed),
            addresses: addresses.collect(),
            shared_added: texts(&delta.shared.added),
            shared_removed: texts(&delta.shared.removed),
            plain_added: texts(&delta.plain.added),
            plain_removed: texts(&delta.plain.removed),
            cluster_ranges_added: texts(&delta.cluster_ranges.added),
            cluster_ranges_removed: texts(&delta.cluster_ranges.removed),
            node_addresses_added: texts(&delta.node_addresses.added),
            node_addresses_removed: texts(&delta.node_addresses.removed),
            bindings: bindings.flat_map(|(name, bound)| namespace_bindings(name, bound)).collect(),
            namespaces_unbound: delta.unbound.iter().cloned().collect(),
            policy: delta.policy.map(Into::into),
            names_pods: delta.names_pods,
            pods: delta.pods.iter().map(|(uid, pod)| named_pod(uid, pod)).collect(),
            pods_gone: texts(&delta.pods_gone),
            node_ports: node_ports.collect(),
            unclear_node_ports_added: port_messages(&delta.unclear_node_ports.added),
            unclear_node_ports_removed: port_messages(&delta.unclear_node_ports.removed),
        }
    }
}

impl TryFrom<&v1::SnapshotDelta> for Delta {
    type Error = Refusal;

    fn try_from(message: &v1::SnapshotDelta) -> Result<Self, Refusal> {
        let mut upserted = BTreeMap::new();
        for one in &message.upserted {
            let cluster = VirtualCluster::try_from(one)?;
            if upserted.insert(cluster.name.clone(), cluster).is_some() {
                return Err(Refusal::Twice { name: one.name.clone() });
            }
        }
        let mut addresses = BTreeMap::new();
        for (index, one) in message.addresses.iter().enumerate() {
            let name = name("addresses", index, &one.virtual_cluster)?;
            let change = SetChange {
                added: blocks("addresses.added", &one.added)?,
                removed: blocks("addresses.removed", &one.removed)?,
            };
            if addresses.insert(name, change).is_some() {
                return Err(Refusal::Twice { name: one.virtual_cluster.clone() });
            }
        }
        let mut node_ports = BTreeMap::new();
        for (index, one) in message.node_ports.iter().enumerate() {
            let name = name("node_ports", index, &one.virtual_cluster)?;
            let change = SetChange {
                added: ports("node_ports.added", &one.added)?,
                removed: ports("node_ports.removed", &one.removed)?,
            };
            if node_ports.insert(name, change).is_some() {
                return Err(Refusal::Twice { name: one.virtual_cluster.clone() });
            }
        }
        let mut bindings = Bindings::default();
        add_bindings(&mut bindings, &message.bindings)?;
        let mut pods = BTreeMap::new();
        add_pods(&mut pods, &message.pods)?;
        let removed = message.removed.iter().enumerate();
        Ok(Self {
            base: message.base_generation,
            generation: message.generation,
            upserted,
            removed: removed
                .map(|(index, text)| name("removed", index, text))
                .collect::<Result<_, _>>()?,
            addresses,
            shared: SetChange {
                added: blocks("shared_added", &message.shared_added)?,
                removed: blocks("shared_removed", &message.shared_removed)?,
            },
            plain: SetChange {
                added: blocks("plain_added", &message.plain_added)?,
                removed: blocks("plain_removed", &message.plain_removed)?,
            },
            cluster_ranges: SetChange {
                added: blocks("cluster_ranges_added", &message.cluster_ranges_added)?,
                removed: blocks("cluster_ranges_removed", &message.cluster_ranges_removed)?,
            },
            node_addresses: SetChange {
                added: hosts("node_addresses_added", &message.node_addresses_added)?,
                removed: hosts("node_addresses_removed", &message.node_addresses_removed)?,
            },
            node_ports,
            unclear_node_ports: SetChange {
                added: ports("unclear_node_ports_added", &message.unclear_node_ports_added)?,
                removed: ports("unclear_node_ports_removed", &message.unclear_node_ports_removed)?,
            },
            bindings: bindings.0,
            unbound: message.namespaces_unbound.iter().cloned().collect(),
            policy: message.policy.as_ref().map(NodePolicy::try_from).transpose()?,
            names_pods: message.names_pods,
            pods,
            pods_gone: message
                .pods_gone
                .iter()
                .map(|uid| pod_uid(uid))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn texts<'a, T: Display + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    values.into_iter().map(ToString::to_string).collect()
}

fn port_messages(ports: &BTreeSet<NodePort>) -> Vec<v1::NodePort> {
    ports.iter().map(|port| (*port).into()).collect()
}

fn ports(list: &'static str, messages: &[v1::NodePort]) -> Result<BTreeSet<NodePort>, Refusal> {
    let wrong = |(index, problem)| Refusal::NodePort { list, index, problem };
    node_ports(messages).map_err(wrong)
}

fn name(list: &'static str, index: usize, text: &str) -> Result<VirtualClusterName, Refusal> {
    VirtualClusterName::from_str(text).map_err(|source| Refusal::Name { list, index, source })
}

fn blocks(list: &'static str, texts: &[String]) -> Result<BTreeSet<AddressBlock>, Refusal> {
    let wrong = |(index, text): (usize, &String)| {
        text.parse().map_err(|source| Refusal::Address { list, index, source })
    };
    texts.iter().enumerate().map(wrong).collect()
}

fn hosts(list: &'static str, texts: &[String]) -> Result<BTreeSet<IpAddr>, Refusal> {
    let wrong = |(index, text): (usize, &String)| {
        text.parse().map_err(|_| Refusal::NodeAddress { list, index, text: text.clone() })
    };
    texts.iter().enumerate().map(wrong).collect()
}
