//! What the API server says, cut down to what is needed on arrival.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_api::membership::Namespace;
use bulkhead_core::binding::Labels;
use bulkhead_core::{AddressBlock, NodePort, PodUid};

/// The name of a namespaced object. Cheap to copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key {
    /// Its namespace.
    pub(crate) namespace: Arc<str>,
    /// Its name in the namespace.
    pub(crate) name: Arc<str>,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the API's own")]
pub(crate) struct Pod {
    pub(crate) key: Key,
    pub(crate) uid: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    /// status.podIPs; those of its node where it has the host's network.
    pub(crate) addresses: Box<[IpAddr]>,
    /// spec.nodeName; `None`: not scheduled yet.
    pub(crate) node: Option<Arc<str>>,
    pub(crate) host_network: bool,
    /// Its phase is Succeeded or Failed: it holds no address any more.
    pub(crate) ended: bool,
    /// It has a deletionTimestamp.
    pub(crate) ending: bool,
    /// creationTimestamp, seconds since the Unix epoch.
    pub(crate) created: i64,
    /// spec.priority is one that only the system's own classes give.
    pub(crate) is_critical: bool,
    /// The static pod whose mirror it says that it is.
    pub(crate) mirror_of: Option<PodUid>,
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    pub(crate) key: Key,
    /// spec.clusterIPs; empty where it has none.
    pub(crate) cluster: Vec<IpAddr>,
    /// spec.externalIPs and the load balancer's addresses.
    pub(crate) external: Vec<IpAddr>,
    /// spec.ports[].nodePort.
    pub(crate) node_ports: BTreeSet<NodePort>,
    /// spec.selector; `None`: somebody writes its endpoints by hand.
    pub(crate) selector: Option<Labels>,
}

/// Some of a Service's endpoints: an `EndpointSlice`, or an `Endpoints` object as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    pub(crate) key: Key,
    /// Name of the Service, in the same namespace.
    pub(crate) service: Arc<str>,
    pub(crate) backends: BTreeSet<Backend>,
}

/// Where a Service's traffic may go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    /// The pod that the endpoint names (targetRef), in the Service's namespace.
    pub(crate) pod: Option<Arc<str>>,
}

/// A Node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) uid: String,
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// spec.podCIDRs.
    pub(crate) ranges: BTreeSet<AddressBlock>,
    /// It has the taint that keeps pods away until its agent is ready.
    pub(crate) waits_for_agent: bool,
}

/// What happened to the objects of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change<T, K = Key> {
    /// All of them are listed anew: what is not listed until [`Change::Done`] is gone.
    Begin,
    /// It is there.
    Applied(T),
    /// It is gone.
    Gone(K),
    /// All were listed.
    Done,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Pod(Change<Pod>),
    Service(Change<Service>),
    Slice(Change<Slice>),
    Node(Change<Node, Arc<str>>),
    Namespace(Change<Namespace, String>),
}
