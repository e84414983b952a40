//! Bindings, node policy and pods between messages and core values. As everywhere, what another
//! version may say and this one cannot mean is refused: to guess would be to open or close what
//! nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use bulkhead_core::{
    Binding, Bindings, LocalPod, LocalPods, NodePolicy, OnStale, Requirement, Selector, Unknown,
};

use crate::v1;
use crate::v1::label_requirement::Operator;

/// Longest name of a namespace (a DNS label, RFC 1123).
pub(crate) const MAX_NAMESPACE: usize = 63;
/// Longest key of a label: a DNS name of 253, a slash and 63.
const MAX_KEY: usize = 317;
/// Longest value of a label.
const MAX_VALUE: usize = 63;
/// Most requirements of one selector, and values of one requirement.
const MAX_REQUIREMENTS: usize = 256;
/// Longest name and UID of a pod.
pub(crate) const MAX_NAME: usize = 253;
/// Most addresses of one pod.
const MAX_ADDRESSES: usize = 64;

/// Why a message has no meaning as a value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object} \"{name}\": {field}: {problem}")]
pub struct MessageError {
    /// What it is about ("binding of namespace").
    pub object: &'static str,
    /// Which one, as it came.
    pub name: String,
    /// Path of the field (`pod_selector[0].key`).
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

pub(crate) fn wrong(
    (object, name): (&'static str, &str),
    field: impl Into<String>,
    problem: impl Display,
) -> MessageError {
    // A name of another program may have any length.
    let name = name.chars().take(MAX_NAME).collect();
    MessageError { object, name, field: field.into(), problem: problem.to_string() }
}

/// A text of the field that is not empty, has so many characters at most, and can be shown.
pub(crate) fn check(
    about: (&'static str, &str),
    field: &str,
    text: &str,
    most: usize,
) -> Result<(), MessageError> {
    if text.is_empty() || text.len() > most || !text.chars().all(|c| c.is_ascii_graphic()) {
        let problem = format!("must have 1 to {most} printable characters");
        return Err(wrong(about, field, problem));
    }
    Ok(())
}

/// The messages of a namespace's bindings, in order.
pub fn namespace_bindings<'a>(
    namespace: &'a str,
    bindings: &'a [Binding],
) -> impl Iterator<Item = v1::NamespaceBinding> + 'a {
    bindings.iter().map(move |binding| v1::NamespaceBinding {
        namespace: namespace.to_owned(),
        virtual_cluster: binding.virtual_cluster.to_string(),
        pod_selector: binding.selector.0.iter().map(Into::into).collect(),
    })
}

/// Adds what messages say to a table; within a namespace the order is theirs.
pub fn add_bindings(
    bindings: &mut Bindings,
    messages: &[v1::NamespaceBinding],
) -> Result<(), MessageError> {
    for message in messages {
        let about = ("binding of namespace", message.namespace.as_str());
        check(about, "namespace", &message.namespace, MAX_NAMESPACE)?;
        let virtual_cluster = message
            .virtual_cluster
            .parse()
            .map_err(|error| wrong(about, "virtual_cluster", error))?;
        if message.pod_selector.len() > MAX_REQUIREMENTS {
            let problem = format!("has more than {MAX_REQUIREMENTS} requirements");
            return Err(wrong(about, "pod_selector", problem));
        }
        let requirements = message.pod_selector.iter().enumerate();
        let requirements = requirements.map(|(index, one)| requirement(about, index, one));
        let selector = Selector(requirements.collect::<Result<_, _>>()?);
        let bound = bindings.0.entry(message.namespace.clone()).or_default();
        bound.push(Binding { virtual_cluster, selector });
    }
    Ok(())
}

impl From<&Requirement> for v1::LabelRequirement {
    fn from(requirement: &Requirement) -> Self {
        let (key, operator, values) = match requirement {
            Requirement::In { key, values } => (key, Operator::In, Some(values)),
            Requirement::NotIn { key, values } => (key, Operator::NotIn, Some(values)),
            Requirement::Exists { key } => (key, Operator::Exists, None),
            Requirement::DoesNotExist { key } => (key, Operator::DoesNotExist, None),
        };
        let values = values.into_iter().flatten().cloned().collect();
        Self { key: key.clone(), operator: operator.into(), values }
    }
}

fn requirement(
    about: (&'static str, &str),
    index: usize,
    message: &v1::LabelRequirement,
) -> Result<Requirement, MessageError> {
    let field = |field: &str| format!("pod_selector[{index}].{field}");
    check(about, &field("key"), &message.key, MAX_KEY)?;
    let key = message.key.clone();
    let values: BTreeSet<String> = message.values.iter().cloned().collect();
    let too_long = |value: &&String| value.len() > MAX_VALUE;
    if values.len() > MAX_REQUIREMENTS || values.iter().find(too_long).is_some() {
        let problem =
            format!("must be at most {MAX_REQUIREMENTS} of at most {MAX_VALUE} characters");
        return Err(wrong(about, field("values"), problem));
    }
    let operator = Operator::try_from(message.operator);
    match (operator, values.is_empty()) {
        (Ok(Operator::In), false) => Ok(Requirement::In { key, values }),
        (Ok(Operator::NotIn), false) => Ok(Requirement::NotIn { key, values }),
        (Ok(Operator::Exists), true) => Ok(Requirement::Exists { key }),
        (Ok(Operator::DoesNotExist), true) => Ok(Requirement::DoesNotExist { key }),
        (Ok(Operator::In | Operator::NotIn), true) => {
            Err(wrong(about, field("values"), "is empty; this operator needs one at least"))
        }
        (Ok(Operator::Exists | Operator::DoesNotExist), false) => {
            Err(wrong(about, field("values"), "is not empty; this operator takes none"))
        }
        (Ok(Operator::Unspecified), _) => Err(wrong(about, field("operator"), "is missing")),
        (Err(_), _) => {
            let number = message.operator;
            let problem = format!("{number} is not known to this version; update it");
            Err(wrong(about, field("operator"), problem))
        }
    }
}

impl From<NodePolicy> for v1::NodePolicy {
    fn from(policy: NodePolicy) -> Self {
        let unknown = match policy.unknown {
            Unknown::Allow => v1::node_policy::Unknown::Allow,
            Unknown::Deny => v1::node_policy::Unknown::Deny,
        };
        let on_stale = match policy.on_stale {
            OnStale::AllowCounted => v1::node_policy::OnStale::AllowCounted,
            OnStale::Deny => v1::node_policy::OnStale::Deny,
        };
        Self { unknown: unknown.into(), on_stale: on_stale.into() }
    }
}

impl TryFrom<&v1::NodePolicy> for NodePolicy {
    type Error = MessageError;

    fn try_from(message: &v1::NodePolicy) -> Result<Self, MessageError> {
        use v1::node_policy;
        let newer = |field: &str, number: i32| {
            let problem = format!("{number} is not known to this version; update it");
            wrong(("policy", "of the node"), field, problem)
        };
        let unknown = match node_policy::Unknown::try_from(message.unknown) {
            Ok(node_policy::Unknown::Unspecified) => Unknown::default(),
            Ok(node_policy::Unknown::Allow) => Unknown::Allow,
            Ok(node_policy::Unknown::Deny) => Unknown::Deny,
            Err(_) => return Err(newer("unknown", message.unknown)),
        };
        let on_stale = match node_policy::OnStale::try_from(message.on_stale) {
            Ok(node_policy::OnStale::Unspecified) => OnStale::default(),
            Ok(node_policy::OnStale::AllowCounted) => OnStale::AllowCounted,
            Ok(node_policy::OnStale::Deny) => OnStale::Deny,
            Err(_) => return Err(newer("on_stale", message.on_stale)),
        };
        Ok(Self { unknown, on_stale })
    }
}

/// The message of a pod that its node knows by `uid`.
pub fn local_pod(uid: &str, pod: &LocalPod) -> v1::LocalPod {
    v1::LocalPod {
        uid: uid.to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        host_network: pod.host_network,
        virtual_cluster: pod.virtual_cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Pods by UID. A UID that comes twice is refused.
pub fn local_pods(messages: &[v1::LocalPod]) -> Result<LocalPods, MessageError> {
    let mut pods = BTreeMap::new();
    for message in messages {
        let about = ("pod", message.uid.as_str());
        check(about, "uid", &message.uid, MAX_NAME)?;
        if pods.insert(message.uid.clone(), pod(about, message)?).is_some() {
            return Err(wrong(about, "uid", "comes twice"));
        }
    }
    Ok(pods)
}

fn pod(about: (&'static str, &str), message: &v1::LocalPod) -> Result<LocalPod, MessageError> {
    check(about, "namespace", &message.namespace, MAX_NAMESPACE)?;
    check(about, "name", &message.name, MAX_NAME)?;
    if message.addresses.len() > MAX_ADDRESSES {
        return Err(wrong(about, "addresses", format!("are more than {MAX_ADDRESSES}")));
    }
    let addresses = message.addresses.iter().enumerate().map(|(index, text)| {
        text.parse::<IpAddr>().map_err(|error| wrong(about, format!("addresses[{index}]"), error))
    });
    let virtual_cluster = match message.virtual_cluster.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|error| wrong(about, "virtual_cluster", error))?),
    };
    Ok(LocalPod {
        namespace: message.namespace.clone(),
        name: message.name.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
        host_network: message.host_network,
        virtual_cluster,
    })
}
