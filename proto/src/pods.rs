//! Pods as the controller names them to their node, between messages and core values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bulkhead_core::{NamedPod, PodUid};

use crate::bindings::{MAX_NAME, MAX_NAMESPACE, MessageError, check, wrong};
use crate::v1;

/// The message of a pod that the API server knows by `uid`.
pub fn named_pod(uid: &PodUid, pod: &NamedPod) -> v1::NamedPod {
    v1::NamedPod {
        uid: uid.to_string(),
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        virtual_cluster: pod.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        critical: pod.is_critical,
        mirror_of: pod.mirror_of.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Adds what messages say. A UID that comes twice is refused.
pub fn add_pods(
    pods: &mut BTreeMap<PodUid, NamedPod>,
    messages: &[v1::NamedPod],
) -> Result<(), MessageError> {
    for message in messages {
        let about = ("named pod", message.uid.as_str());
        match pods.entry(pod_uid(&message.uid)?) {
            Entry::Vacant(free) => drop(free.insert(pod(about, message)?)),
            Entry::Occupied(_) => return Err(wrong(about, "uid", "comes twice")),
        }
    }
    Ok(())
}

/// The UID of a pod.
pub fn pod_uid(text: &str) -> Result<PodUid, MessageError> {
    text.parse().map_err(|error| wrong(("named pod", text), "uid", error))
}

fn pod(about: (&'static str, &str), message: &v1::NamedPod) -> Result<NamedPod, MessageError> {
    check(about, "namespace", &message.namespace, MAX_NAMESPACE)?;
    check(about, "name", &message.name, MAX_NAME)?;
    let owner = match message.virtual_cluster.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|error| wrong(about, "virtual_cluster", error))?),
    };
    let mirror_of = match message.mirror_of.as_str() {
        "" => None,
        text => Some(NamedPod::mirrored(text).ok_or_else(|| {
            wrong(about, "mirror_of", "is no UID that a kubelet gives to a static pod")
        })?),
    };
    Ok(NamedPod {
        namespace: message.namespace.as_str().into(),
        name: message.name.as_str().into(),
        owner,
        is_critical: message.critical,
        mirror_of,
    })
}
