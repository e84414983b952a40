//! What a Kubernetes would say: pods, Services, bindings, policy. And, told by a simpler rule than the
//! controller's, what each node must know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bulkhead_controller::{ClusterChange, Owner, Pod, Service};
use bulkhead_core::amount::Pids;
use bulkhead_core::{
    AddressBlock, Amount, Binding, Bindings, LocalPod, LocalPods, NamedPod, NodePolicy, NodePort,
    PodUid, Protocol, Selector, Snapshot, Unknown, VirtualClusterName,
};

use crate::random::Random;

pub(crate) const NAMES: [&str; 5] = ["blue", "green", "red", "white", "yellow"];

/// Pods that there can be at once.
const PODS: u8 = 8;
/// Services that there can be at once.
const SERVICES: u8 = 4;

/// A pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SimPod {
    node: usize,
    owner: Option<usize>,
    /// The API server knows its address; else only its node does.
    known: bool,
}

/// A Service with a node port that no other has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SimService {
    /// None: several virtual clusters', so nobody's.
    owner: Option<usize>,
    port: NodePort,
}

/// The cluster at one time. Each version says of itself which it is, by a shared address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cluster {
    version: u32,
    pods: BTreeMap<u8, SimPod>,
    services: BTreeMap<u8, SimService>,
    bindings: Bindings,
    policy: NodePolicy,
}

/// Every version that there was. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Arc<Mutex<Vec<Cluster>>>);

fn address(pod: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, pod).into()
}

fn name(owner: usize) -> VirtualClusterName {
    NAMES[owner].parse().expect("it is a name")
}

fn stamp(version: u32) -> AddressBlock {
    AddressBlock::host(Ipv4Addr::from(0xf000_0000 + version).into())
}

/// Whom an object of this version allows, besides itself.
pub(crate) fn allowed(version: u64, owner: &str) -> &'static str {
    let place = NAMES.iter().position(|name| *name == owner).unwrap_or(0);
    let step = usize::try_from(version % 4).unwrap_or(0) + 1;
    NAMES[(place + step) % NAMES.len()]
}

impl Versions {
    /// The newest.
    pub(crate) fn newest(&self) -> Cluster {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last().cloned().unwrap_or_default()
    }

    /// The cluster changes. Gives what is new since the version before.
    pub(crate) fn advance(&self, random: &Random, nodes: usize) -> ClusterChange {
        let before = self.newest();
        let mut next = before.clone();
        next.version += 1;
        for _ in 0..random.between(1, 3) {
            let uid = u8::try_from(random.below(u64::from(PODS))).unwrap_or(0);
            if random.chance(30) {
                next.pods.remove(&uid);
                continue;
            }
            let owner = usize::try_from(random.below(6)).unwrap_or(0);
            let node = usize::try_from(random.below(u64::try_from(nodes).unwrap_or(1)));
            // It is another pod where it moves.
            next.pods.insert(
                uid,
                SimPod {
                    node: node.unwrap_or(0),
                    owner: (owner < NAMES.len()).then_some(owner),
                    known: random.chance(60),
                },
            );
        }
        if random.chance(40) {
            next.change_service(random);
        }
        if random.chance(30) {
            let namespace = format!("team-{}", random.below(3));
            let owners = (0..random.below(3)).map(|_| random.below(5));
            let bound: Vec<Binding> = owners
                .map(|owner| Binding {
                    virtual_cluster: name(usize::try_from(owner).unwrap_or(0)),
                    selector: Selector::default(),
                })
                .collect();
            if bound.is_empty() {
                next.bindings.0.remove(&namespace);
            } else {
                next.bindings.0.insert(namespace, bound);
            }
        }
        if random.chance(10) {
            next.policy.unknown = random.one_of(&[Unknown::Allow, Unknown::Deny]);
        }
        let change = next.since(&before);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(next);
        change
    }

    /// A node is told what was so at some time, whole. Gives which version that was; `None`: none
    /// was told yet.
    pub(crate) fn check(
        &self,
        snapshot: &Snapshot,
        node: usize,
        objects: (u64, &BTreeSet<String>),
    ) -> Result<Option<u32>> {
        let generation = snapshot.generation;
        let shared: Vec<AddressBlock> = snapshot.shared.iter().copied().collect();
        let [said] = shared[..] else {
            ensure!(shared.is_empty(), "snapshot {generation} mixes clusters {shared:?}");
            return Ok(None);
        };
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = all.iter().find(|cluster| stamp(cluster.version) == said);
        let cluster = cluster.with_context(|| format!("{said} is of no version"))?;
        ensure!(snapshot.bindings == cluster.bindings, "bindings of generation {generation}");
        ensure!(snapshot.policy == cluster.policy, "policy of generation {generation}");
        ensure!(
            snapshot.names_pods && snapshot.pods == cluster.named(node),
            "generation {generation}, cluster {}: node {node} is told {:?}",
            cluster.version,
            snapshot.pods
        );
        let unclear = cluster.node_ports(None);
        ensure!(snapshot.unclear_node_ports == unclear, "node ports of generation {generation}");
        for (name, told) in &snapshot.virtual_clusters {
            let ports = cluster.node_ports(Some(name.as_str()));
            ensure!(told.node_ports == ports, "generation {generation}: node ports of {name}");
            let (must, may) = cluster.addresses(name.as_str(), node, objects);
            let told: BTreeSet<IpAddr> =
                told.addresses.iter().filter_map(|block| block.single()).collect();
            ensure!(
                must.is_subset(&told) && told.is_subset(&(&must | &may)),
                "generation {generation}, cluster {}: {name} has {told:?}, and must have {must:?} \
                 and may have {may:?}",
                cluster.version
            );
        }
        Ok(Some(cluster.version))
    }
}

impl Cluster {
    fn change_service(&mut self, random: &Random) {
        let uid = u8::try_from(random.below(u64::from(SERVICES))).unwrap_or(0);
        let owner = usize::try_from(random.below(6)).unwrap_or(0);
        let port = 30_000 + u16::from(uid) * 2 + u16::from(random.chance(50));
        let protocol = random.one_of(&[Protocol::Tcp, Protocol::Udp]);
        let port = NodePort { protocol, port };
        if random.chance(25) {
            self.services.remove(&uid);
            return;
        }
        let owner = (owner < NAMES.len()).then_some(owner);
        self.services.insert(uid, SimService { owner, port });
    }

    /// A virtual cluster's, or nobody's: every node must be told of all.
    fn node_ports(&self, owner: Option<&str>) -> BTreeSet<NodePort> {
        let of = |it: &&SimService| it.owner.map(|it| NAMES[it]) == owner;
        self.services.values().filter(of).map(|it| it.port).collect()
    }

    fn service(&self, uid: u8) -> Option<Service> {
        let SimService { owner, port } = *self.services.get(&uid)?;
        let owner = owner.map_or(Owner::Nobody, |owner| Owner::VirtualCluster(name(owner)));
        Some(Service { owner, node_ports: [port].into(), ..Service::default() })
    }

    /// Addresses that a node must be told of a virtual cluster, and those that it may be told
    /// because the pods' nodes may have told the controller.
    fn addresses(
        &self,
        owner: &str,
        node: usize,
        (version, names): (u64, &BTreeSet<String>),
    ) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let here = |name: &str| {
            let mine =
                |pod: &&SimPod| pod.node == node && pod.owner.map(|it| NAMES[it]) == Some(name);
            self.pods.values().find(mine).is_some()
        };
        let allows = |one: &str, other: &str| names.contains(one) && allowed(version, one) == other;
        let near = here(owner)
            || NAMES.iter().any(|one| here(one) && (allows(one, owner) || allows(owner, one)));
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for (uid, pod) in &self.pods {
            if near && pod.owner.map(|it| NAMES[it]) == Some(owner) {
                let _ =
                    if pod.known { must.insert(address(*uid)) } else { may.insert(address(*uid)) };
            }
        }
        (must, may)
    }

    fn pod(&self, uid: u8) -> Option<Pod> {
        let pod = self.pods.get(&uid)?;
        let owner = pod.owner.map_or(Owner::Nobody, |owner| Owner::VirtualCluster(name(owner)));
        let addresses = pod.known.then(|| address(uid)).into_iter().collect();
        let node = format!("node-{}", pod.node);
        let (namespace, name) = ("team".into(), format!("pod-{uid}").into());
        Some(Pod { node, owner, addresses, namespace, name, ..Pod::default() })
    }

    /// A node's own pods, as it must be told them.
    fn named(&self, node: usize) -> BTreeMap<PodUid, NamedPod> {
        let here = self.pods.iter().filter(|(_, pod)| pod.node == node);
        let named = here.filter_map(|(uid, pod)| {
            let named = NamedPod {
                namespace: "team".into(),
                name: format!("pod-{uid}").into(),
                owner: pod.owner.map(name),
                is_critical: false,
                mirror_of: None,
            };
            Some((uid.to_string().parse().ok()?, named))
        });
        named.collect()
    }

    fn since(&self, before: &Self) -> ClusterChange {
        let services = |uid: &u8| self.services.get(uid) != before.services.get(uid);
        let services = (0..SERVICES).filter(services);
        let pods = (0..PODS).filter(|uid| self.pods.get(uid) != before.pods.get(uid));
        ClusterChange {
            bindings: Some(self.bindings.clone()),
            policy: Some(self.policy),
            shared: Some([stamp(self.version)].into()),
            cluster_ranges: Some(["10.1.0.0/16".parse().expect("it is a CIDR")].into()),
            pods: pods.map(|uid| (uid.to_string(), self.pod(uid))).collect(),
            services: services.map(|uid| (format!("team/{uid}"), self.service(uid))).collect(),
            ..ClusterChange::default()
        }
    }

    /// All of it, as a first list is.
    pub(crate) fn whole(&self) -> ClusterChange {
        ClusterChange { whole: true, ..self.since(&Self::default()) }
    }

    /// A node knows every pod's address that it must, whoever knew it first.
    pub(crate) fn is_told_whole(&self, told: &Snapshot, node: usize) -> bool {
        let names = told.virtual_clusters.keys().map(ToString::to_string).collect();
        told.virtual_clusters.values().all(|cluster| {
            let Some(Amount::Absolute(Pids(version))) = cluster.limit.pids else {
                return false;
            };
            let (must, may) = self.addresses(cluster.name.as_str(), node, (version, &names));
            let told: BTreeSet<IpAddr> =
                cluster.addresses.iter().filter_map(|block| block.single()).collect();
            told == &must | &may
                && cluster.node_ports == self.node_ports(Some(cluster.name.as_str()))
        })
    }

    /// What a node's runtime shows.
    pub(crate) fn local_pods(&self, node: usize) -> Arc<LocalPods> {
        let here = self.pods.iter().filter(|(_, pod)| pod.node == node);
        let pods = here.map(|(uid, pod)| {
            let local = LocalPod {
                namespace: "team".to_owned(),
                name: format!("pod-{uid}"),
                addresses: [address(*uid)].into(),
                host_network: false,
                virtual_cluster: pod.owner.map(name),
            };
            (uid.to_string(), local)
        });
        Arc::new(pods.collect())
    }
}
