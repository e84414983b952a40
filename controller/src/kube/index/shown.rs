//! What the index knows, in the words of those who tell agents.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bulkhead_core::{AddressBlock, VirtualClusterName};

use super::services::Whose;
use super::told::Key;
use super::{Index, Owned};
use crate::state::cluster;

/// Where node-local DNS listens: Kubernetes' own manifest, Kubespray's. On every node, and no
/// node reports it.
const NODE_LOCAL_DNS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), IpAddr::V4(Ipv4Addr::new(169, 254, 25, 10))];

/// Namespace and name of the Service of the API server.
pub(super) const API_SERVER: (&str, &str) = ("default", "kubernetes");

impl Index {
    /// What every virtual cluster may always talk with: frontends and backends of what operators
    /// named, and of the API server.
    pub(super) fn shared(&self) -> BTreeSet<AddressBlock> {
        let api_server = Key::new(API_SERVER.0, API_SERVER.1);
        let keys = self.rules.shared_services.iter().chain([&api_server]);
        let of_service = |key| {
            let service = self.services.get(key).into_iter();
            let frontends = service.flat_map(|it| it.cluster.iter().chain(&it.external).copied());
            frontends.chain(self.services.backends(key))
        };
        let all = NODE_LOCAL_DNS.into_iter().chain(keys.flat_map(of_service));
        all.map(AddressBlock::host).collect()
    }

    pub(super) fn is_shared(&self, key: &Key) -> bool {
        (&*key.namespace, &*key.name) == API_SERVER || self.rules.shared_services.contains(key)
    }

    pub(super) fn shown_pod(&self, uid: &Arc<str>, key: &Key) -> (String, Option<cluster::Pod>) {
        let owned = self.pods.get(key).filter(|owned| owned.pod.uid == *uid);
        let shown = owned.map(|Owned { pod, owner, .. }| cluster::Pod {
            node: pod.node.as_deref().unwrap_or_default().to_owned(),
            owner: owner.as_deref().map_or(cluster::Owner::Plain, |owner| {
                cluster::Owner::VirtualCluster(owner.clone())
            }),
            addresses: pod.addresses.iter().copied().collect(),
            host_network: pod.host_network,
            ending: pod.ending,
            namespace: Arc::clone(&pod.key.namespace),
            name: Arc::clone(&pod.key.name),
            is_critical: pod.is_critical,
            mirror_of: pod.mirror_of.clone(),
        });
        (uid.to_string(), shown)
    }

    pub(super) fn shown_service(&self, key: &Key) -> (String, Option<cluster::Service>) {
        let shown = self.services.get(key).map(|service| {
            // Nobody gets an address of the cluster by writing it down as an external one.
            let is_foreign = |address: &&IpAddr| {
                !self.of_nodes.contains(**address)
                    && !self.services.is_cluster_address(**address)
                    && self.pods.at(**address).is_none()
            };
            let external = service.external.iter().filter(is_foreign);
            cluster::Service {
                owner: match self.services.whose(key, &self.rules.bindings) {
                    _ if self.is_shared(key) => cluster::Owner::Shared,
                    _ if self.leads_on(key) => cluster::Owner::Nobody,
                    Whose::Of(name) if self.opens(key, &name) => cluster::Owner::Nobody,
                    Whose::Of(name) => cluster::Owner::VirtualCluster((*name).clone()),
                    Whose::Plain => cluster::Owner::Plain,
                    Whose::Unclear => cluster::Owner::Nobody,
                },
                addresses: service.cluster.iter().chain(external).copied().collect(),
                node_ports: service.node_ports.clone(),
            }
        });
        (key.to_string(), shown)
    }

    /// Whether a virtual cluster's Service leads to a node or to another Service, by endpoints that
    /// somebody wrote: what is behind that is not known, and may be another virtual cluster's node
    /// port.
    fn leads_on(&self, key: &Key) -> bool {
        let is_bound = self.rules.bindings.0.contains_key(&*key.namespace);
        let is_nodes = |address| self.nodes.values().any(|it| it.addresses.contains(&address));
        let leads = |address| self.services.is_frontend(address) || is_nodes(address);
        is_bound && self.services.written(key).any(leads)
    }

    /// Whether it leads members to what is nobody's, though their virtual cluster is closed to it.
    fn opens(&self, key: &Key, name: &VirtualClusterName) -> bool {
        self.rules.closed.contains(name) && self.services.has_plain(key)
    }

    pub(super) fn shown_node(&self, name: &Arc<str>) -> (String, Option<BTreeSet<IpAddr>>) {
        (name.to_string(), self.nodes.get(name).map(|node| node.addresses.clone()))
    }
}
