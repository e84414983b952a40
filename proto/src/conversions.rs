//! Between messages and the values of `bulkhead-core`.
//!
//! Towards core every value is checked, and an error names the object and the field: a peer of
//! another version may say what this one cannot mean.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Component, Path};
use std::str::FromStr;

use bulkhead_core::amount::Pids;
use bulkhead_core::{
    Amount, BasisPoints, Bytes, Guarantee, IoLimit, Limit, NanoCores, NetworkMode, NetworkPolicy,
    NodePort, Protocol, Unknown, VirtualCluster, VirtualClusterName, VirtualClusterNumber,
};

use crate::v1;
use crate::v1::{cpu_amount, memory_amount, pids_amount};

/// Why a message has no meaning as a value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("virtual cluster \"{object}\": {field}: {problem}")]
pub struct ConversionError {
    /// Name of the virtual cluster, as it came.
    pub object: String,
    /// Path of the field ("spec.limit.cpu").
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A field and what is wrong with it, while its object is not yet known.
type FieldError = (String, String);

fn wrong(field: impl Into<String>, problem: impl Display) -> FieldError {
    (field.into(), format!("{problem}"))
}

impl From<&VirtualCluster> for v1::AgentVirtualCluster {
    fn from(cluster: &VirtualCluster) -> Self {
        Self {
            name: cluster.name.to_string(),
            number: cluster.number.get(),
            spec: Some(spec(cluster, "")),
            node_ports: cluster.node_ports.iter().map(|port| (*port).into()).collect(),
        }
    }
}

/// The specification of a virtual cluster; `class` is the class whose defaults were applied
/// (empty: none), which agents need not know.
pub fn spec(cluster: &VirtualCluster, class: &str) -> v1::VirtualClusterSpec {
    v1::VirtualClusterSpec {
        addresses: cluster.addresses.iter().map(ToString::to_string).collect(),
        guarantee: Some(v1::Guarantee {
            cpu: cluster.guarantee.cpu.map(Into::into),
            memory: cluster.guarantee.memory.map(Into::into),
            io_weight: cluster.guarantee.io_weight.map_or(0, u32::from),
        }),
        limit: Some(v1::Limit {
            cpu: cluster.limit.cpu.map(Into::into),
            memory: cluster.limit.memory.map(Into::into),
            pids: cluster.limit.pids.map(Into::into),
            io: cluster.limit.io.iter().map(Into::into).collect(),
        }),
        network_mode: v1::NetworkMode::from(cluster.network.mode).into(),
        network_allow: cluster.network.allow.iter().map(ToString::to_string).collect(),
        network_denies_unknown: cluster.network.unknown == Unknown::Deny,
        class: class.to_owned(),
    }
}

impl TryFrom<&v1::AgentVirtualCluster> for VirtualCluster {
    type Error = ConversionError;

    fn try_from(message: &v1::AgentVirtualCluster) -> Result<Self, ConversionError> {
        virtual_cluster(message).map_err(|(field, problem)| ConversionError {
            object: message.name.clone(),
            field,
            problem,
        })
    }
}

fn virtual_cluster(message: &v1::AgentVirtualCluster) -> Result<VirtualCluster, FieldError> {
    let empty = v1::VirtualClusterSpec::default();
    let spec = message.spec.as_ref().unwrap_or(&empty);
    Ok(VirtualCluster {
        name: VirtualClusterName::from_str(&message.name).map_err(|error| wrong("name", error))?,
        number: VirtualClusterNumber::new(message.number)
            .ok_or_else(|| wrong("number", "is 0, which stands for no virtual cluster"))?,
        addresses: parse_each("spec.addresses", &spec.addresses)?,
        node_ports: node_ports(&message.node_ports)
            .map_err(|(index, problem)| wrong(format!("node_ports[{index}]"), problem))?,
        guarantee: spec.guarantee.as_ref().map(guarantee).transpose()?.unwrap_or_default(),
        limit: spec.limit.as_ref().map(limit).transpose()?.unwrap_or_default(),
        network: NetworkPolicy {
            mode: network_mode(spec.network_mode)?,
            allow: parse_each("spec.network_allow", &spec.network_allow)?,
            unknown: if spec.network_denies_unknown { Unknown::Deny } else { Unknown::Allow },
        },
    })
}

impl From<NodePort> for v1::NodePort {
    fn from(port: NodePort) -> Self {
        Self { protocol: port.protocol.number().into(), port: port.port.into() }
    }
}

/// Node ports; else the place of the first that is none, and what is wrong with it.
pub(crate) fn node_ports(
    messages: &[v1::NodePort],
) -> Result<BTreeSet<NodePort>, (usize, &'static str)> {
    let one = |(index, message): (usize, &v1::NodePort)| {
        let protocol = Protocol::from_number(message.protocol)
            .ok_or((index, "is of a protocol that this version does not know; update it"))?;
        let port = u16::try_from(message.port).ok().and_then(|port| NodePort::new(protocol, port));
        port.ok_or((index, "is no port: it is not between 1 and 65535"))
    };
    messages.iter().enumerate().map(one).collect()
}

fn parse_each<T, C>(field: &str, texts: &[String]) -> Result<C, FieldError>
where
    T: FromStr<Err: std::error::Error>,
    C: FromIterator<T>,
{
    let one = |(index, text): (usize, &String)| {
        text.parse::<T>().map_err(|error| wrong(format!("{field}[{index}]"), error))
    };
    texts.iter().enumerate().map(one).collect()
}

fn guarantee(message: &v1::Guarantee) -> Result<Guarantee, FieldError> {
    let io_weight = match message.io_weight {
        0 => None,
        weight => Some(
            u16::try_from(weight)
                .ok()
                .filter(|weight| *weight <= 10_000)
                .ok_or_else(|| wrong("spec.guarantee.io_weight", "is not between 1 and 10000"))?,
        ),
    };
    Ok(Guarantee {
        cpu: amount("spec.guarantee.cpu", message.cpu.as_ref())?,
        memory: amount("spec.guarantee.memory", message.memory.as_ref())?,
        io_weight,
    })
}

fn limit(message: &v1::Limit) -> Result<Limit, FieldError> {
    let io = message.io.iter().enumerate().map(|(index, limit)| io_limit(index, limit));
    Ok(Limit {
        cpu: amount("spec.limit.cpu", message.cpu.as_ref())?,
        memory: amount("spec.limit.memory", message.memory.as_ref())?,
        pids: amount("spec.limit.pids", message.pids.as_ref())?,
        io: io.collect::<Result<_, _>>()?,
    })
}

/// An amount's message taken apart; `None` where a newer peer sent a form that we do not know.
trait AmountMessage {
    type Value;
    fn value(&self) -> Option<Result<Amount<Self::Value>, u32>>;
}

macro_rules! amounts {
    ($($message:ident, $oneof:ident, $variant:ident, $value:ident;)*) => {$(
        impl AmountMessage for v1::$message {
            type Value = $value;

            fn value(&self) -> Option<Result<Amount<$value>, u32>> {
                Some(match self.amount? {
                    $oneof::Amount::$variant(absolute) => {
                        Ok(Amount::Absolute($value(absolute)))
                    }
                    $oneof::Amount::NodeBasisPoints(points) => {
                        BasisPoints::new(points).map(Amount::OfNode).ok_or(points)
                    }
                })
            }
        }

        impl From<Amount<$value>> for v1::$message {
            fn from(amount: Amount<$value>) -> Self {
                let amount = match amount {
                    Amount::Absolute($value(absolute)) => $oneof::Amount::$variant(absolute),
                    Amount::OfNode(part) => $oneof::Amount::NodeBasisPoints(part.get()),
                };
                Self { amount: Some(amount) }
            }
        }
    )*};
}
amounts! {
    CpuAmount, cpu_amount, Nanocores, NanoCores;
    MemoryAmount, memory_amount, Bytes, Bytes;
    PidsAmount, pids_amount, Pids, Pids;
}

fn amount<M: AmountMessage>(
    field: &str,
    message: Option<&M>,
) -> Result<Option<Amount<M::Value>>, FieldError> {
    let Some(message) = message else {
        return Ok(None);
    };
    match message.value() {
        Some(Ok(amount)) => Ok(Some(amount)),
        Some(Err(points)) => Err(wrong(
            field,
            format!("{points} basis points of the node are not between 1 and 10000"),
        )),
        None => Err(wrong(field, "is in a form that this version does not know; update it")),
    }
}

impl From<&IoLimit> for v1::IoLimit {
    fn from(limit: &IoLimit) -> Self {
        Self {
            // Made from a text, here or in the object, so nothing is lost.
            device: limit.device.to_string_lossy().into_owned(),
            read_bytes_per_second: limit.read_bytes_per_second.unwrap_or(0),
            write_bytes_per_second: limit.write_bytes_per_second.unwrap_or(0),
            read_operations_per_second: limit.read_operations_per_second.unwrap_or(0),
            write_operations_per_second: limit.write_operations_per_second.unwrap_or(0),
        }
    }
}

fn io_limit(index: usize, message: &v1::IoLimit) -> Result<IoLimit, FieldError> {
    let set = |rate: u64| (rate != 0).then_some(rate);
    let device = Path::new(&message.device);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !device.starts_with("/dev") || !device.components().all(plain) {
        let problem = format!("\"{}\" is no path of a device below /dev", message.device);
        return Err(wrong(format!("spec.limit.io[{index}].device"), problem));
    }
    Ok(IoLimit {
        device: device.to_owned(),
        read_bytes_per_second: set(message.read_bytes_per_second),
        write_bytes_per_second: set(message.write_bytes_per_second),
        read_operations_per_second: set(message.read_operations_per_second),
        write_operations_per_second: set(message.write_operations_per_second),
    })
}

impl From<NetworkMode> for v1::NetworkMode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Off => Self::Off,
            NetworkMode::Observe => Self::Observe,
            NetworkMode::Enforce => Self::Enforce,
        }
    }
}

/// A peer that says nothing means the default. One that says what we do not know is newer, and
/// to guess would be to open or close what nobody asked for.
fn network_mode(number: i32) -> Result<NetworkMode, FieldError> {
    match v1::NetworkMode::try_from(number) {
        Ok(v1::NetworkMode::Unspecified) => Ok(NetworkMode::default()),
        Ok(v1::NetworkMode::Off) => Ok(NetworkMode::Off),
        Ok(v1::NetworkMode::Observe) => Ok(NetworkMode::Observe),
        Ok(v1::NetworkMode::Enforce) => Ok(NetworkMode::Enforce),
        Err(_) => {
            let problem = format!("mode {number} is not known to this version; update it");
            Err(wrong("spec.network_mode", problem))
        }
    }
}
