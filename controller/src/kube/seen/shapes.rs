//! Which fields of an object are read.

use std::sync::Arc;

use bulkhead_core::binding::Labels;
use bulkhead_core::{NodePort, Protocol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::{ClusterResourceScope, NamespaceResourceScope, Resource};
use serde::{Deserialize, Deserializer};

/// What is needed of an object's metadata.
fn few<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Few {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<Labels>,
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    /// Of a pod, whose mirror it is.
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "kubernetes.io/config.mirror")]
        mirror: Option<String>,
    }
    let few = Few::deserialize(from)?;
    Ok(ObjectMeta {
        name: few.name,
        namespace: few.namespace,
        uid: few.uid,
        resource_version: few.resource_version,
        creation_timestamp: few.creation_timestamp,
        deletion_timestamp: few.deletion_timestamp,
        labels: few.labels,
        annotations: few
            .annotations
            .and_then(|few| Some([(super::MIRROR.to_owned(), few.mirror?)].into())),
        ..ObjectMeta::default()
    })
}

/// Says which resource a type is.
macro_rules! resource {
    ($type:ident, $scope:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Pod, NamespaceResourceScope, "", "v1", "Pod", "pods");
resource!(Service, NamespaceResourceScope, "", "v1", "Service", "services");
resource!(Endpoints, NamespaceResourceScope, "", "v1", "Endpoints", "endpoints");
resource!(
    Slice,
    NamespaceResourceScope,
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices"
);
resource!(Node, ClusterResourceScope, "", "v1", "Node", "nodes");

/// A pod.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pod {
    #[serde(deserialize_with = "few")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    #[serde(default)]
    pub(super) host_network: bool,
    #[serde(default)]
    pub(super) priority: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pub(super) pod_ips: Vec<Ip>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ip {
    #[serde(default)]
    pub(super) ip: String,
}

/// A Service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    #[serde(deserialize_with = "few")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: ServiceSpec,
    #[serde(default)]
    pub(super) status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(default, rename = "externalIPs")]
    pub(super) external_ips: Vec<String>,
    pub(super) selector: Option<Labels>,
    #[serde(default)]
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServicePort {
    #[serde(default)]
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) node_port: i64,
}

impl ServicePort {
    pub(super) fn node_port(&self) -> Option<NodePort> {
        NodePort::new(Protocol::from_name(&self.protocol)?, u16::try_from(self.node_port).ok()?)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceStatus {
    #[serde(default)]
    pub(super) load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct LoadBalancer {
    #[serde(default)]
    pub(super) ingress: Vec<Ingress>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ingress {
    pub(super) ip: Option<String>,
}

/// An Endpoints object: what there was before `EndpointSlice`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Endpoints {
    #[serde(deserialize_with = "few")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subset {
    #[serde(default)]
    pub(super) addresses: Vec<EndpointAddress>,
    #[serde(default)]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointAddress {
    #[serde(default)]
    pub(super) ip: String,
    pub(super) target_ref: Option<TargetRef>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetRef {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

impl TargetRef {
    pub(super) fn pod(&self) -> Option<Arc<str>> {
        let name = self.name.as_deref().filter(|_| self.kind.as_deref() == Some("Pod"));
        name.map(Into::into)
    }
}

/// An `EndpointSlice`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Slice {
    #[serde(deserialize_with = "few")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    pub(super) target_ref: Option<TargetRef>,
}

/// A Node.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    #[serde(deserialize_with = "few")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: NodeSpec,
    #[serde(default)]
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    #[serde(default, rename = "podCIDRs")]
    pub(super) pod_cidrs: Vec<String>,
    #[serde(default)]
    pub(super) taints: Vec<Taint>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Taint {
    pub(super) key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct NodeStatus {
    #[serde(default)]
    pub(super) addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}
