//! Objects as they arrive: only the fields that are needed are read, so nothing else of them is
//! ever kept. Managed fields, containers, and all annotations but one are skipped while they are
//! parsed.

mod shapes;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_api::membership;
use bulkhead_core::{AddressBlock, NamedPod};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, Resource};

pub(crate) use self::shapes::{Endpoints, Node, Pod, Service, Slice};
use self::shapes::{ServicePort, TargetRef};
use super::index::told::{self, Backend, Key};

/// The taint that keeps pods away from a node until its agent enforces.
pub(crate) const NOT_READY: &str = "bulkhead.dev/agent-not-ready";

/// The annotation that the mirror of a static pod has.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The least priority that only the classes of the system itself can give
/// (`SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;

/// The label of an `EndpointSlice` that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Namespace: only its metadata is asked for.
pub(crate) type Namespace = PartialObjectMeta<core::Namespace>;

/// What one object says.
pub(crate) trait Seen: Resource {
    /// What is kept of it.
    type Told;
    /// What it is called.
    type Name;

    fn told(self) -> Self::Told;
    fn name(&self) -> Self::Name;
}

fn key(meta: &ObjectMeta) -> Key {
    Key::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn name(meta: &ObjectMeta) -> Arc<str> {
    meta.name.as_deref().unwrap_or_default().into()
}

/// Those texts that are addresses. "None" and host names are not.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in texts.into_iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
        let address = address.to_canonical();
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

impl Seen for Pod {
    type Told = told::Pod;
    type Name = Key;

    fn told(self) -> told::Pod {
        let Self { metadata, spec, status } = self;
        let texts = status.pod_ips.iter().map(|it| &it.ip).chain(&status.pod_ip);
        let mirror = metadata.annotations.as_ref().and_then(|all| all.get(MIRROR));
        told::Pod {
            key: key(&metadata),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            addresses: addresses(texts).into(),
            node: spec.node_name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            host_network: spec.host_network,
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ending: metadata.deletion_timestamp.is_some(),
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            is_critical: spec.priority >= CRITICAL,
            mirror_of: mirror.and_then(|hash| NamedPod::mirrored(hash)),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
        }
    }

    fn name(&self) -> Key {
        key(&self.metadata)
    }
}

impl Seen for Service {
    type Told = told::Service;
    type Name = Key;

    fn told(self) -> told::Service {
        let Self { metadata, spec, status } = self;
        let balanced = status.load_balancer.ingress.iter().filter_map(|it| it.ip.as_ref());
        told::Service {
            key: key(&metadata),
            cluster: addresses(spec.cluster_ips.iter().chain(&spec.cluster_ip)),
            external: addresses(spec.external_ips.iter().chain(balanced)),
            node_ports: spec.ports.iter().filter_map(ServicePort::node_port).collect(),
            selector: spec.selector.filter(|selector| !selector.is_empty()),
        }
    }

    fn name(&self) -> Key {
        key(&self.metadata)
    }
}

impl Seen for Endpoints {
    type Told = told::Slice;
    type Name = Key;

    fn told(self) -> told::Slice {
        let key = key(&self.metadata);
        let subsets = self.subsets.iter();
        let all = subsets.flat_map(|it| it.addresses.iter().chain(&it.not_ready_addresses));
        let backends = all.filter_map(|it| {
            let address = it.ip.parse::<IpAddr>().ok()?.to_canonical();
            Some(Backend { address, pod: it.target_ref.as_ref().and_then(TargetRef::pod) })
        });
        told::Slice { service: Arc::clone(&key.name), backends: backends.collect(), key }
    }

    fn name(&self) -> Key {
        key(&self.metadata)
    }
}

impl Seen for Slice {
    type Told = told::Slice;
    type Name = Key;

    fn told(self) -> told::Slice {
        let mut backends = BTreeSet::new();
        for endpoint in self.endpoints.iter().flatten() {
            let pod = endpoint.target_ref.as_ref().and_then(TargetRef::pod);
            for address in addresses(&endpoint.addresses) {
                backends.insert(Backend { address, pod: pod.clone() });
            }
        }
        let labels = self.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        told::Slice {
            key: key(&self.metadata),
            service: service.map(String::as_str).unwrap_or_default().into(),
            backends,
        }
    }

    fn name(&self) -> Key {
        key(&self.metadata)
    }
}

impl Seen for Node {
    type Told = told::Node;
    type Name = Arc<str>;

    fn told(self) -> told::Node {
        let Self { metadata, spec, status } = self;
        let ips = status.addresses.iter();
        let ips = ips.filter(|it| matches!(it.kind.as_str(), "InternalIP" | "ExternalIP"));
        let ranges = spec.pod_cidrs.iter().chain(&spec.pod_cidr);
        told::Node {
            name: name(&metadata),
            uid: metadata.uid.unwrap_or_default(),
            addresses: addresses(ips.map(|it| &it.address)).into_iter().collect(),
            ranges: ranges.filter_map(|text| text.parse::<AddressBlock>().ok()).collect(),
            waits_for_agent: spec.taints.iter().any(|taint| taint.key == NOT_READY),
        }
    }

    fn name(&self) -> Arc<str> {
        name(&self.metadata)
    }
}

impl Seen for Namespace {
    type Told = membership::Namespace;
    type Name = String;

    fn told(self) -> membership::Namespace {
        let whole = core::Namespace { metadata: self.metadata, ..core::Namespace::default() };
        membership::Namespace::of(&whole)
    }

    fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn told<T: Seen + DeserializeOwned>(object: Value) -> T::Told {
        serde_json::from_value::<T>(object).unwrap().told()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_pod_of_an_old_and_of_a_new_server() {
        let metadata = json!({
            "name": "p", "namespace": "a", "uid": "u", "creationTimestamp": "1970-01-01T00:01:00Z",
            "deletionTimestamp": "2024-01-01T00:00:00Z", "labels": { "x": "y" },
            "managedFields": [{ "fieldsV1": { "f:a": {} } }], "annotations": { "long": "text" },
        });
        let pod = told::<Pod>(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": { "nodeName": "n", "containers": [{ "name": "c" }] },
            "status": {
                "phase": "Running", "podIP": "10.1.0.1",
                "podIPs": [{ "ip": "10.1.0.1" }, { "ip": "fd00::1" }],
            },
        }));
        assert_eq!((&pod.key, &*pod.uid, pod.created), (&Key::new("a", "p"), "u", 60));
        assert_eq!(*pod.addresses, [ip("10.1.0.1"), ip("fd00::1")]);
        assert!(pod.ending && !pod.ended && !pod.host_network);
        assert_eq!((pod.node.as_deref(), pod.labels.get("x").unwrap().as_str()), (Some("n"), "y"));

        let young = told::<Pod>(json!({ "metadata": { "name": "p", "namespace": "a" } }));
        assert!(young.addresses.is_empty() && young.node.is_none());
        let ended = told::<Pod>(json!({
            "metadata": { "name": "p" }, "status": { "phase": "Failed", "podIP": "10.1.0.1" },
        }));
        assert!(ended.ended);
    }

    #[test]
    fn critical_pods_and_mirrors_of_static_ones_are_known_for_such() {
        let of = |mirror: &str, priority: i64| {
            told::<Pod>(json!({
                "metadata": {
                    "name": "p", "annotations": { "long": "text", "kubernetes.io/config.mirror": mirror },
                },
                "spec": { "priority": priority },
            }))
        };
        let hash = "0123456789abcdef0123456789abcdef";
        let mirror = of(hash, 2_000_001_000);
        assert!(mirror.is_critical);
        assert_eq!(mirror.mirror_of.unwrap().as_str(), hash);
        // What users' own classes can give; the UID of a pod of the API server's.
        let forged = of("01234567-89ab-cdef-0123-456789abcdef", 1_000_000_000);
        assert_eq!((forged.is_critical, forged.mirror_of), (false, None));
    }

    #[test]
    fn a_services_frontends_are_addresses_only() {
        let service = told::<Service>(json!({
            "metadata": { "name": "s", "namespace": "a" },
            "spec": { "clusterIP": "10.96.0.1", "externalIPs": ["203.0.113.1"], "selector": {} },
            "status": { "loadBalancer": { "ingress": [{ "hostname": "x" }, { "ip": "203.0.113.2" }] } },
        }));
        assert_eq!(service.cluster, [ip("10.96.0.1")]);
        assert_eq!(service.external, [ip("203.0.113.1"), ip("203.0.113.2")]);
        assert_eq!(service.selector, None);
        assert!(service.node_ports.is_empty());
        let headless = json!({ "metadata": { "name": "s" }, "spec": { "clusterIP": "None" } });
        assert!(told::<Service>(headless).cluster.is_empty());
    }

    #[test]
    fn a_services_node_ports_have_their_protocols() {
        let ports = json!([
            { "port": 80, "nodePort": 30080 },
            { "port": 53, "protocol": "UDP", "nodePort": 30053 },
            { "port": 53, "protocol": "TCP", "nodePort": 30053 },
            { "port": 81 },
            { "port": 82, "nodePort": 0 },
            { "port": 83, "nodePort": 70000 },
            { "port": 84, "protocol": "QUIC", "nodePort": 30084 },
        ]);
        let service = told::<Service>(json!({
            "metadata": { "name": "s", "namespace": "a" },
            "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": ports },
        }));
        let shown: Vec<String> = service.node_ports.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["30053/TCP", "30080/TCP", "30053/UDP"]);
    }

    /// The same backends, as servers with and without discovery/v1 tell of them.
    #[test]
    fn endpoints_and_slices_say_the_same() {
        let target = json!({ "kind": "Pod", "name": "p" });
        let old = told::<Endpoints>(json!({
            "metadata": { "name": "s", "namespace": "a" },
            "subsets": [{
                "addresses": [{ "ip": "10.1.0.1", "targetRef": target }],
                "notReadyAddresses": [{ "ip": "10.1.0.2" }],
            }],
        }));
        let new = told::<Slice>(json!({
            "metadata": {
                "name": "s-abcde", "namespace": "a", "labels": { "kubernetes.io/service-name": "s" },
            },
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.1.0.1"], "targetRef": target },
                { "addresses": ["10.1.0.2"], "conditions": { "ready": false } },
            ],
        }));
        assert_eq!((&old.service, &old.backends), (&new.service, &new.backends));
        assert_eq!(old.backends.len(), 2);
        let empty = json!({ "metadata": { "name": "s", "namespace": "a" }, "endpoints": null });
        assert!(told::<Slice>(empty).backends.is_empty());
    }

    #[test]
    fn a_node_with_its_ranges_and_taint() {
        let node = told::<Node>(json!({
            "metadata": { "name": "n", "uid": "u" },
            "spec": {
                "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"],
                "taints": [{ "key": NOT_READY, "effect": "NoSchedule" }],
            },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.168.0.1" },
                { "type": "Hostname", "address": "n" },
            ] },
        }));
        assert_eq!(node.addresses, BTreeSet::from([ip("192.168.0.1")]));
        assert_eq!(node.ranges.len(), 2);
        assert!(node.waits_for_agent);
    }
}
