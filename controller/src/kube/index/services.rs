//! Services: whose frontends they are.
//!
//! A frontend is its backends'. A backend is whose address it is: what an endpoint says of its
//! pod can be written by a tenant, and is believed only for pods of the host's network, whose
//! address says nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::binding::{Binding, Labels, Requirement};
use bulkhead_core::{Bindings, VirtualClusterName};

use super::pods::Pods;
use super::told::{Backend, Key, Service, Slice};

/// Whose something is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Whose {
    /// A virtual cluster's.
    Of(Arc<VirtualClusterName>),
    /// Of no virtual cluster.
    Plain,
    /// It cannot be said (yet), or it is several virtual clusters'.
    Unclear,
}

#[derive(Debug, Default)]
struct Known {
    service: Option<Service>,
    /// By the name of the slice.
    slices: BTreeMap<Arc<str>, BTreeSet<Backend>>,
    /// Each backend of any slice, how many slices have it, and whose it is.
    backends: HashMap<Backend, (usize, Whose)>,
    /// How many backends are whose.
    tally: BTreeMap<Whose, usize>,
}

/// Every Service with its endpoints.
#[derive(Debug, Default)]
pub(crate) struct Services {
    all: HashMap<Key, Known>,
    in_namespace: HashMap<Arc<str>, HashSet<Key>>,
    /// Which Services have a backend with this address.
    with_backend: HashMap<IpAddr, HashSet<Key>>,
    /// To which Service a slice belongs, by the slice's name.
    service_of: HashMap<Key, Key>,
    /// Cluster addresses, and how many Services have each.
    cluster: HashMap<IpAddr, usize>,
    /// Which Services have written down an external address.
    external: HashMap<IpAddr, HashSet<Key>>,
}

impl Services {
    pub(crate) fn get(&self, key: &Key) -> Option<&Service> {
        self.all.get(key)?.service.as_ref()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.all.iter().filter(|(_, known)| known.service.is_some()).map(|(key, _)| key)
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &Key> {
        self.service_of.keys()
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Key> {
        self.in_namespace.get(namespace).into_iter().flatten().cloned().collect()
    }

    /// The addresses behind a Service.
    pub(crate) fn backends(&self, key: &Key) -> impl Iterator<Item = IpAddr> {
        self.all.get(key).into_iter().flat_map(|it| it.backends.keys().map(|it| it.address))
    }

    /// Services with external addresses.
    pub(crate) fn with_external(&self) -> impl Iterator<Item = &Key> {
        self.external.values().flatten()
    }

    /// Services that have this address as an external one.
    pub(crate) fn external_at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.external.get(&address).into_iter().flatten()
    }

    /// Addresses behind a Service that are no pod's of which it is known whose it is: somebody
    /// wrote them down, or the pod is not known yet.
    pub(crate) fn written(&self, key: &Key) -> impl Iterator<Item = IpAddr> {
        let all = self.all.get(key).into_iter().flat_map(|it| &it.backends);
        let written = all.filter(|(backend, (_, whose))| match whose {
            Whose::Of(_) => false,
            Whose::Plain => backend.pod.is_none(),
            Whose::Unclear => true,
        });
        written.map(|(backend, _)| backend.address)
    }

    /// Whether anything behind a Service is of no virtual cluster.
    pub(crate) fn has_plain(&self, key: &Key) -> bool {
        self.all.get(key).is_some_and(|it| it.tally.contains_key(&Whose::Plain))
    }

    /// Whether a Service listens at this address, cluster address or external one.
    pub(crate) fn is_frontend(&self, address: IpAddr) -> bool {
        self.is_cluster_address(address) || self.external.contains_key(&address)
    }

    /// Services that have this address behind them.
    fn in_front_of(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.with_backend.get(&address).into_iter().flatten()
    }

    /// Whether it is a Service's cluster address.
    pub(crate) fn is_cluster_address(&self, address: IpAddr) -> bool {
        self.cluster.contains_key(&address)
    }

    /// Takes in a Service; gives those that may be others now.
    pub(crate) fn apply(&mut self, service: Service) -> Vec<Key> {
        let key = service.key.clone();
        if self.get(&key) == Some(&service) {
            return Vec::new();
        }
        let mut touched = self.remove(key.clone());
        for address in service.cluster.iter().chain(&service.external) {
            touched.extend(self.in_front_of(*address).cloned());
        }
        for address in &service.cluster {
            *self.cluster.entry(*address).or_default() += 1;
            touched.extend(self.external_at(*address).cloned());
        }
        for address in &service.external {
            self.external.entry(*address).or_default().insert(key.clone());
        }
        self.known(&key).service = Some(service);
        touched
    }

    /// Takes a Service out; gives those that may be others now. Its endpoints stay: they may
    /// outlive it and belong to the next.
    pub(crate) fn remove(&mut self, key: Key) -> Vec<Key> {
        let mut touched = Vec::new();
        let Some(service) = self.all.get_mut(&key).and_then(|known| known.service.take()) else {
            return vec![key];
        };
        for address in service.cluster.iter().chain(&service.external) {
            touched.extend(self.in_front_of(*address).cloned());
        }
        for address in &service.cluster {
            touched.extend(self.external_at(*address).cloned());
            if let Some(count) = self.cluster.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.cluster.remove(address);
                }
            }
        }
        for address in &service.external {
            if let Some(there) = self.external.get_mut(address) {
                there.remove(&key);
                if there.is_empty() {
                    self.external.remove(address);
                }
            }
        }
        self.forget_empty(&key);
        touched.push(key);
        touched
    }

    /// Takes in endpoints; gives the Services whose owner may have changed.
    pub(crate) fn apply_slice(&mut self, slice: Slice, pods: &Pods) -> Vec<Key> {
        let service = Key { namespace: slice.key.namespace.clone(), name: slice.service };
        let before = self.service_of.get(&slice.key).filter(|it| **it != service).cloned();
        let mut touched = Vec::new();
        if let Some(before) = before {
            self.set_backends(&before, &slice.key.name, None, pods);
            touched.push(before);
        }
        self.service_of.insert(slice.key.clone(), service.clone());
        if self.set_backends(&service, &slice.key.name, Some(slice.backends), pods) {
            touched.push(service);
        }
        touched
    }

    /// Takes endpoints out; gives the Service whose owner may have changed.
    pub(crate) fn remove_slice(&mut self, key: &Key, pods: &Pods) -> Option<Key> {
        let service = self.service_of.remove(key)?;
        self.set_backends(&service, &key.name, None, pods);
        Some(service)
    }

    /// A pod with this address came, went, or is another's now; gives the Services whose owner
    /// may have changed.
    pub(crate) fn settle(&mut self, address: IpAddr, pods: &Pods) -> Vec<Key> {
        let services = self.with_backend.get(&address).into_iter().flatten().cloned();
        let services: Vec<Key> = services.collect();
        for key in &services {
            let Some(Known { backends, tally, .. }) = self.all.get_mut(key) else { continue };
            for (backend, (_, whose)) in backends.iter_mut().filter(|it| it.0.address == address) {
                let now = whose_backend(&key.namespace, backend, pods);
                less(tally, whose);
                *tally.entry(now.clone()).or_default() += 1;
                *whose = now;
            }
        }
        services
    }

    /// Whose a Service's frontends are.
    pub(crate) fn whose(&self, key: &Key, bindings: &Bindings) -> Whose {
        let Some(known) = self.all.get(key) else {
            return Whose::Unclear;
        };
        let mut owners = known.tally.keys().filter(|whose| matches!(whose, Whose::Of(_)));
        match (owners.next(), owners.next()) {
            (Some(_), Some(_)) => Whose::Unclear,
            (Some(owner), None) => owner.clone(),
            _ if known.tally.contains_key(&Whose::Plain) => Whose::Plain,
            _ => {
                let selector = known.service.as_ref().and_then(|it| it.selector.as_ref());
                let rules = bindings.0.get(&*key.namespace).map_or(&[][..], Vec::as_slice);
                by_selector(rules, selector)
            }
        }
    }

    /// Services whose backends are several virtual clusters'.
    pub(crate) fn mixed(&self) -> impl Iterator<Item = (&Key, Vec<&Arc<VirtualClusterName>>)> {
        self.all.iter().filter_map(|(key, known)| {
            let owners = known.tally.keys().filter_map(|whose| match whose {
                Whose::Of(owner) => Some(owner),
                _ => None,
            });
            let owners: Vec<_> = owners.collect();
            (owners.len() > 1 && known.service.is_some()).then_some((key, owners))
        })
    }

    fn known(&mut self, key: &Key) -> &mut Known {
        let there = self.in_namespace.entry(Arc::clone(&key.namespace)).or_default();
        there.insert(key.clone());
        self.all.entry(key.clone()).or_default()
    }

    /// Replaces what one slice says; whether anything is different now.
    fn set_backends(
        &mut self,
        service: &Key,
        slice: &Arc<str>,
        now: Option<BTreeSet<Backend>>,
        pods: &Pods,
    ) -> bool {
        let known = self.known(service);
        let before = known.slices.get(slice).cloned().unwrap_or_default();
        let after = now.clone().unwrap_or_default();
        match now {
            Some(now) => drop(known.slices.insert(Arc::clone(slice), now)),
            None => drop(known.slices.remove(slice)),
        }
        for came in after.difference(&before) {
            let known = self.known(service);
            if let Some((count, _)) = known.backends.get_mut(came) {
                *count += 1;
                continue;
            }
            let whose = whose_backend(&service.namespace, came, pods);
            *known.tally.entry(whose.clone()).or_default() += 1;
            known.backends.insert(came.clone(), (1, whose));
            self.with_backend.entry(came.address).or_default().insert(service.clone());
        }
        for went in before.difference(&after) {
            self.drop_backend(service, went);
        }
        self.forget_empty(service);
        before != after
    }

    fn drop_backend(&mut self, service: &Key, went: &Backend) {
        let known = self.known(service);
        let Some((count, whose)) = known.backends.get_mut(went) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        less(&mut known.tally, whose);
        known.backends.remove(went);
        if known.backends.keys().any(|other| other.address == went.address) {
            return;
        }
        if let Some(services) = self.with_backend.get_mut(&went.address) {
            services.remove(service);
            if services.is_empty() {
                self.with_backend.remove(&went.address);
            }
        }
    }

    fn forget_empty(&mut self, key: &Key) {
        if self.all.get(key).is_none_or(|it| it.service.is_some() || !it.slices.is_empty()) {
            return;
        }
        self.all.remove(key);
        if let Some(there) = self.in_namespace.get_mut(&key.namespace) {
            there.remove(key);
            if there.is_empty() {
                self.in_namespace.remove(&key.namespace);
            }
        }
    }
}

fn less(tally: &mut BTreeMap<Whose, usize>, whose: &Whose) {
    if let Some(count) = tally.get_mut(whose) {
        *count -= 1;
        if *count == 0 {
            tally.remove(whose);
        }
    }
}

/// Whose a backend is. An endpoint that names a pod which is not known yet is not taken for one
/// outside of every virtual cluster.
fn whose_backend(namespace: &Arc<str>, backend: &Backend, pods: &Pods) -> Whose {
    let whose = |owner: &super::pods::Owner| match owner {
        Some(owner) => Whose::Of(Arc::clone(owner)),
        None => Whose::Plain,
    };
    if let Some(holder) = pods.at(backend.address) {
        return whose(&holder.owner);
    }
    let Some(name) = &backend.pod else {
        return Whose::Plain;
    };
    match pods.get(&Key { namespace: Arc::clone(namespace), name: Arc::clone(name) }) {
        Some(named) if named.pod.host_network && named.pod.addresses.contains(&backend.address) => {
            whose(&named.owner)
        }
        _ => Whose::Unclear,
    }
}

/// Whose a Service would be by what it selects: a virtual cluster's if no other pod of its
/// namespace could be behind it.
fn by_selector(rules: &[Binding], selector: Option<&Labels>) -> Whose {
    if rules.is_empty() {
        return Whose::Plain;
    }
    let none = Labels::new();
    let selector = selector.unwrap_or(&none);
    let mut may_be: BTreeSet<&VirtualClusterName> = BTreeSet::new();
    for rule in rules {
        let held: Vec<Held> = rule.selector.0.iter().map(|it| held(it, selector)).collect();
        if held.contains(&Held::Never) {
            continue;
        }
        may_be.insert(&rule.virtual_cluster);
        if held.iter().all(|it| *it == Held::Always) {
            // Later rules are never asked.
            let mut owners = may_be.into_iter();
            return match (owners.next(), owners.next()) {
                (Some(owner), None) => Whose::Of(Arc::new(owner.clone())),
                _ => Whose::Unclear,
            };
        }
    }
    if may_be.is_empty() { Whose::Plain } else { Whose::Unclear }
}

/// Whether a requirement holds for every pod that a Service selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Always,
    Sometimes,
    Never,
}

fn held(requirement: &Requirement, selected: &Labels) -> Held {
    let always = |it: bool| if it { Held::Always } else { Held::Never };
    match requirement {
        Requirement::In { key, values } => {
            selected.get(key).map_or(Held::Sometimes, |value| always(values.contains(value)))
        }
        Requirement::NotIn { key, values } => {
            selected.get(key).map_or(Held::Sometimes, |value| always(!values.contains(value)))
        }
        Requirement::Exists { key } if selected.contains_key(key) => Held::Always,
        Requirement::DoesNotExist { key } if selected.contains_key(key) => Held::Never,
        Requirement::Exists { .. } | Requirement::DoesNotExist { .. } => Held::Sometimes,
    }
}
