//! Who holds which address. Each address is told of one owner at most, whatever is said:
//!
//! - an address of a host is the host's;
//! - one that an object's own list covers is as the object says;
//! - else the pod has it that had it first and is not being deleted, as the API server says;
//! - else a Service; else a pod that is being deleted;
//! - else the pod for which its own node's agent reports it. So a node can say nothing but where
//!   its own pods are, inside the cluster's ranges, at addresses that nobody else holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::{LocalPods, VirtualClusterName};

use super::blocks::Blocks;
use super::cluster::{Owner, Pod, Service};

/// Most addresses of one pod that an agent may report.
const MOST_REPORTED: usize = 16;

/// Whose an address is, to be told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Told {
    #[default]
    Nobody,
    Shared,
    Plain,
    Of(Arc<VirtualClusterName>),
}

/// One who holds an address. The order of kinds is that in which they come first.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Holder {
    Node(Arc<str>),
    Pod(Arc<str>),
    Service(Arc<str>),
    /// A pod, as its node's agent says.
    Reported(Arc<str>),
}

#[derive(Debug, Default)]
struct Held {
    by: Vec<Holder>,
    told: Told,
    is_host: bool,
}

/// A pod that lives.
#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    owner: Told,
    addresses: Box<[IpAddr]>,
    /// What its node's agent says.
    reported: Box<[IpAddr]>,
    host_network: bool,
    ending: bool,
    /// Of two the lower was there first.
    order: u64,
}

#[derive(Debug)]
struct Frontends {
    owner: Told,
    addresses: Box<[IpAddr]>,
    order: u64,
}

/// An address is another's, or is or was a host's.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) address: IpAddr,
    pub(super) from: Told,
    pub(super) to: Told,
    pub(super) is_host: bool,
}

/// Who holds which address, and which virtual cluster has pods on which node.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pods: HashMap<Arc<str>, Placed>,
    services: HashMap<Arc<str>, Frontends>,
    /// What agents and Node objects say.
    nodes: HashMap<Arc<str>, [BTreeSet<IpAddr>; 2]>,
    /// What agents said last of their pods.
    reports: HashMap<Arc<str>, Arc<LocalPods>>,
    by_address: HashMap<IpAddr, Held>,
    /// By node: of how many of its pods each virtual cluster is the owner.
    present: HashMap<Arc<str>, BTreeMap<Arc<VirtualClusterName>, usize>>,
    names: BTreeSet<Arc<VirtualClusterName>>,
    order: u64,
    /// What objects name as members', as shared, and as inside the cluster.
    members: Blocks,
    shared: Blocks,
    ranges: Blocks,
    touched: BTreeSet<IpAddr>,
    touched_nodes: BTreeSet<Arc<str>>,
}

/// Which of a node's addresses somebody says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Says {
    Agent = 0,
    ApiServer = 1,
}

impl Holders {
    /// A pod is there, or is otherwise than it was; `None`: it is gone.
    pub(super) fn set_pod(&mut self, uid: &str, pod: Option<&Pod>) {
        let before = self.pods.remove_entry(uid);
        let uid = before.as_ref().map_or_else(|| Arc::from(uid), |(uid, _)| Arc::clone(uid));
        let before = before.map(|(_, before)| before);
        if let Some(before) = &before {
            self.leave(before);
            self.release(&before.addresses, &Holder::Pod(Arc::clone(&uid)));
            self.release(&before.reported, &Holder::Reported(Arc::clone(&uid)));
        }
        let Some(pod) = pod else { return };
        self.order += 1;
        let node = self.node(&pod.node);
        let owner = self.told(&pod.owner);
        let own = |address: &IpAddr| !pod.host_network && is_of_one_pod(*address);
        let mut placed = Placed {
            addresses: pod.addresses.iter().map(IpAddr::to_canonical).filter(own).collect(),
            reported: Box::default(),
            host_network: pod.host_network,
            ending: pod.ending,
            order: before.map_or(self.order, |before| before.order),
            node,
            owner,
        };
        let report = self.reports.get(&placed.node).cloned().unwrap_or_default();
        placed.reported = self.believed(&uid, &placed, &report);
        self.hold(&placed.addresses, &Holder::Pod(Arc::clone(&uid)));
        self.hold(&placed.reported, &Holder::Reported(Arc::clone(&uid)));
        self.enter(&placed);
        self.pods.insert(uid, placed);
    }

    /// A Service is there, or is otherwise than it was; `None`: it is gone.
    pub(super) fn set_service(&mut self, name: &str, service: Option<&Service>) {
        let before = self.services.remove_entry(name);
        let key = before.as_ref().map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let mut order = self.order + 1;
        if let Some((_, before)) = before {
            order = before.order;
            self.release(&before.addresses, &Holder::Service(Arc::clone(&key)));
        }
        let Some(service) = service else { return };
        self.order += 1;
        let addresses: Box<[IpAddr]> = service
            .addresses
            .iter()
            .map(IpAddr::to_canonical)
            .filter(|it| is_of_one_pod(*it))
            .collect();
        self.hold(&addresses, &Holder::Service(Arc::clone(&key)));
        let owner = self.told(&service.owner);
        self.services.insert(key, Frontends { owner, addresses, order });
    }

    /// The addresses that a node has itself, as one of the two says.
    pub(super) fn set_node(&mut self, name: &str, says: Says, addresses: BTreeSet<IpAddr>) {
        let node = self.node(name);
        let holder = Holder::Node(Arc::clone(&node));
        let said = self.nodes.entry(node).or_default();
        let before: BTreeSet<IpAddr> = said.iter().flatten().copied().collect();
        let own = |address: &IpAddr| !address.is_loopback();
        let addresses = addresses.into_iter().map(|it| it.to_canonical()).filter(own);
        let said_before = std::mem::replace(&mut said[says as usize], addresses.collect());
        // Who says it counts, too.
        self.touched.extend(said_before.symmetric_difference(&said[says as usize]));
        let now: BTreeSet<IpAddr> = said.iter().flatten().copied().collect();
        self.release(&before.difference(&now).copied().collect::<Vec<_>>(), &holder);
        self.hold(&now.difference(&before).copied().collect::<Vec<_>>(), &holder);
    }

    /// What a node's agent says of its pods.
    pub(super) fn set_report(&mut self, node: &str, report: &Arc<LocalPods>) {
        let node = self.node(node);
        let before = self.reports.insert(Arc::clone(&node), Arc::clone(report));
        let before = before.unwrap_or_default();
        let uids = before.keys().chain(report.keys()).map(String::as_str);
        for uid in uids.collect::<BTreeSet<&str>>() {
            let Some((uid, mut placed)) = self.pods.remove_entry(uid) else { continue };
            if placed.node == node {
                let believed = self.believed(&uid, &placed, report);
                let holder = Holder::Reported(Arc::clone(&uid));
                if believed != placed.reported {
                    self.release(&placed.reported, &holder);
                    self.hold(&believed, &holder);
                    placed.reported = believed;
                }
            }
            self.pods.insert(uid, placed);
        }
        if report.is_empty() {
            self.reports.remove(&node);
        }
    }

    /// Everything that is not named is gone.
    pub(super) fn retain(
        &mut self,
        pods: impl Fn(&str) -> bool,
        services: impl Fn(&str) -> bool,
        nodes: impl Fn(&str) -> bool,
    ) {
        let gone: Vec<Arc<str>> = self.pods.keys().filter(|it| !pods(it)).cloned().collect();
        for uid in &gone {
            self.set_pod(uid, None);
        }
        let gone: Vec<Arc<str>> =
            self.services.keys().filter(|it| !services(it)).cloned().collect();
        for name in &gone {
            self.set_service(name, None);
        }
        let gone: Vec<Arc<str>> = self.nodes.keys().filter(|it| !nodes(it)).cloned().collect();
        for name in &gone {
            self.set_node(name, Says::ApiServer, BTreeSet::new());
        }
    }

    /// What objects name as members', as shared, and as inside the cluster. Where that is other
    /// than it was, every address is looked at again.
    pub(super) fn set_said(&mut self, said: (Blocks, Blocks, Blocks)) {
        let (members, shared, ranges) = said;
        if members != self.members || shared != self.shared || ranges != self.ranges {
            (self.members, self.shared, self.ranges) = (members, shared, ranges);
            self.touch_all();
        }
    }

    fn touch_all(&mut self) {
        self.touched = self.by_address.keys().copied().collect();
        let uids: Vec<Arc<str>> = self.pods.keys().cloned().collect();
        for uid in uids {
            let Some(mut placed) = self.pods.remove(&uid) else { continue };
            if let Some(report) = self.reports.get(&placed.node).cloned() {
                let holder = Holder::Reported(Arc::clone(&uid));
                self.release(&placed.reported, &holder);
                placed.reported = self.believed(&uid, &placed, &report);
                self.hold(&placed.reported, &holder);
            }
            self.pods.insert(uid, placed);
        }
    }

    /// The addresses whose owner is another since this was asked last.
    pub(super) fn moved(&mut self) -> Vec<Moved> {
        let mut all = Vec::new();
        for address in std::mem::take(&mut self.touched) {
            let (to, is_host) = (self.resolve(address), self.is_host(address));
            let Some(held) = self.by_address.get_mut(&address) else { continue };
            let from = std::mem::replace(&mut held.told, to.clone());
            let was_host = std::mem::replace(&mut held.is_host, is_host);
            if held.by.is_empty() {
                self.by_address.remove(&address);
            }
            if from != to || was_host != is_host {
                all.push(Moved { address, from, to, is_host });
            }
        }
        all
    }

    /// Nodes on which other virtual clusters have pods since this was asked last, and which.
    pub(super) fn nodes_moved(&mut self) -> Vec<(String, BTreeSet<VirtualClusterName>)> {
        let touched = std::mem::take(&mut self.touched_nodes);
        let there = |node: &Arc<str>| {
            let present = self.present.get(node).into_iter().flat_map(BTreeMap::keys);
            present.map(|name| VirtualClusterName::clone(name)).collect()
        };
        touched.iter().map(|node| (node.to_string(), there(node))).collect()
    }

    /// Whether any node has this address for itself. What only an agent says does not make a host's
    /// of what the API server says is a pod's: a node that was lost could open others so, and one
    /// that is gone may have had the address before the pod.
    fn is_host(&self, address: IpAddr) -> bool {
        let Some(held) = self.by_address.get(&address) else { return false };
        let is_pods = held.by.iter().any(|holder| matches!(holder, Holder::Pod(_)));
        held.by.iter().any(|holder| match holder {
            Holder::Node(name) if is_pods => self
                .nodes
                .get(name)
                .is_some_and(|said| said[Says::ApiServer as usize].contains(&address)),
            Holder::Node(_) => true,
            _ => false,
        })
    }

    fn resolve(&self, address: IpAddr) -> Told {
        let Some(held) = self.by_address.get(&address) else { return Told::Nobody };
        if self.is_host(address) || self.members.cover(address) {
            return Told::Nobody;
        }
        let first = held.by.iter().filter_map(|holder| self.rank(holder)).min_by_key(|it| it.0);
        match first {
            Some((_, Told::Shared | Told::Plain)) if self.shared.cover(address) => Told::Nobody,
            Some((_, told)) => told.clone(),
            None => Told::Nobody,
        }
    }

    /// Who comes before whom, and whose the address is then.
    fn rank(&self, holder: &Holder) -> Option<((u8, u64), &Told)> {
        match holder {
            Holder::Node(_) => None,
            Holder::Pod(uid) => {
                let pod = self.pods.get(uid)?;
                Some(((if pod.ending { 2 } else { 0 }, pod.order), &pod.owner))
            }
            Holder::Service(name) => {
                let service = self.services.get(name)?;
                Some(((1, service.order), &service.owner))
            }
            Holder::Reported(uid) => {
                let pod = self.pods.get(uid)?;
                Some(((3, pod.order), &pod.owner))
            }
        }
    }

    /// What of an agent's report of one pod counts.
    fn believed(&self, uid: &str, placed: &Placed, report: &LocalPods) -> Box<[IpAddr]> {
        let Some(said) = report.get(uid).filter(|said| !said.host_network) else {
            return Box::default();
        };
        if placed.host_network {
            return Box::default();
        }
        let inside = |it: &IpAddr| is_of_one_pod(*it) && self.ranges.cover(*it);
        let addresses = said.addresses.iter().map(IpAddr::to_canonical);
        addresses.take(MOST_REPORTED).filter(inside).collect()
    }

    fn hold(&mut self, addresses: &[IpAddr], holder: &Holder) {
        for address in addresses {
            let held = self.by_address.entry(*address).or_default();
            if !held.by.contains(holder) {
                held.by.push(holder.clone());
            }
            self.touched.insert(*address);
        }
    }

    fn release(&mut self, addresses: &[IpAddr], holder: &Holder) {
        for address in addresses {
            if let Some(held) = self.by_address.get_mut(address) {
                held.by.retain(|other| other != holder);
                self.touched.insert(*address);
            }
        }
    }

    fn enter(&mut self, placed: &Placed) {
        let Told::Of(name) = &placed.owner else { return };
        if placed.node.is_empty() {
            return;
        }
        let present = self.present.entry(Arc::clone(&placed.node)).or_default();
        *present.entry(Arc::clone(name)).or_default() += 1;
        self.touched_nodes.insert(Arc::clone(&placed.node));
    }

    fn leave(&mut self, placed: &Placed) {
        let Told::Of(name) = &placed.owner else { return };
        let Some(present) = self.present.get_mut(&placed.node) else { return };
        if let Some(count) = present.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                present.remove(name);
            }
        }
        if present.is_empty() {
            self.present.remove(&placed.node);
        }
        self.touched_nodes.insert(Arc::clone(&placed.node));
    }

    fn told(&mut self, owner: &Owner) -> Told {
        match owner {
            Owner::Nobody => Told::Nobody,
            Owner::Shared => Told::Shared,
            Owner::Plain => Told::Plain,
            Owner::VirtualCluster(name) => {
                if let Some(known) = self.names.get(name) {
                    return Told::Of(Arc::clone(known));
                }
                let name = Arc::new(name.clone());
                self.names.insert(Arc::clone(&name));
                Told::Of(name)
            }
        }
    }

    fn node(&self, name: &str) -> Arc<str> {
        let known = self.present.get_key_value(name).map(|(name, _)| name);
        let known = known.or_else(|| self.nodes.get_key_value(name).map(|(name, _)| name));
        known.map_or_else(|| Arc::from(name), Arc::clone)
    }
}

/// Whether it can be the address of one pod or Service.
fn is_of_one_pod(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}
