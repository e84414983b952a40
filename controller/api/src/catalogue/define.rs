//! One object into what it means; every part is tried, so that all that is wrong is told at once.

use std::collections::BTreeSet;

use bulkhead_core::{AddressBlock, NetworkMode, NodePolicy};
use kube::ResourceExt;

use super::{Age, Definition};
use crate::convert::{self, FieldProblem, MAX_CLUSTER_RANGES, ServiceName};
use crate::document::Document;
use crate::membership::Rules;
use crate::object::{BulkheadConfigSpec, Members, VirtualClusterClassSpec, VirtualClusterSpec};
use crate::problem::Problem;
use crate::{VirtualCluster, validate};

/// What holds for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Config {
    pub(super) shared: BTreeSet<AddressBlock>,
    pub(super) shared_services: BTreeSet<ServiceName>,
    pub(super) cluster_ranges: BTreeSet<AddressBlock>,
    pub(super) default_mode: NetworkMode,
    pub(super) policy: NodePolicy,
}

const RANGES: &str = "spec.clusterRanges";

impl Config {
    pub(super) fn of(document: &Document, spec: &BulkheadConfigSpec) -> Result<Self, Vec<Problem>> {
        let mut parts = Parts { document, problems: Vec::new() };
        let shared = parts.taken(convert::shared("spec.sharedServices", &spec.shared_services));
        let count = spec.cluster_ranges.len();
        parts.taken(convert::too_many(RANGES, count, MAX_CLUSTER_RANGES));
        let ranges = parts.taken(convert::blocks(RANGES, &spec.cluster_ranges));
        let (shared, shared_services) = shared.unwrap_or_default();
        parts.whole(Some(Self {
            shared,
            shared_services,
            cluster_ranges: ranges.unwrap_or_default(),
            default_mode: spec.default_mode.map(convert::mode).unwrap_or_default(),
            policy: convert::policy(spec),
        }))
    }
}

/// What is wrong with a class, whoever names it. Field by field it can be right and still not fit
/// to an object: that is told of the object.
pub(super) fn class_problems(document: &Document, spec: &VirtualClusterClassSpec) -> Vec<Problem> {
    let mut parts = Parts { document, problems: Vec::new() };
    let per_node = spec.per_node.clone().unwrap_or_default();
    parts.taken(convert::guarantee(&per_node));
    parts.taken(convert::limit(&per_node));
    parts.taken(convert::allowed(&spec.network.clone().unwrap_or_default()));
    parts.problems
}

/// What a virtual cluster means. `class`: what it names; `Err`: there is none of that name.
pub(super) fn definition(
    document: &Document,
    object: &VirtualCluster,
    class: Option<Result<&VirtualClusterClassSpec, ()>>,
    default: NetworkMode,
) -> Result<Definition, Vec<Problem>> {
    let mut parts = Parts { document, problems: Vec::new() };
    let spec = &object.spec;
    if spec.budget.is_some() {
        let message = "is reserved for the sum over all nodes, which there is not yet; \
                       remove it, and use spec.perNode.limit";
        parts.wrong("spec.budget", message);
    }
    if class == Some(Err(())) {
        let message = "there is no such VirtualClusterClass; add it, or remove this";
        parts.wrong("spec.class", message);
    }
    let class = class.and_then(Result::ok).map(|class| (&class.per_node, &class.network));
    let VirtualClusterSpec { members, per_node, network, class, .. } = convert::merged(spec, class);
    let (members, per_node) = (members.unwrap_or_default(), per_node.unwrap_or_default());
    let name = parts.taken(convert::name(&object.name_any()));
    let addresses = parts.taken(convert::addresses(&members));
    let members = parts.members(&members);
    let guarantee = parts.taken(convert::guarantee(&per_node));
    let limit = parts.taken(convert::limit(&per_node));
    if let (Some(guarantee), Some(limit)) = (&guarantee, &limit) {
        parts.taken(convert::guarantee_within_limit(guarantee, limit));
    }
    let spec = network.unwrap_or_default();
    let network = name.as_ref().map(|name| convert::network(name, &spec, default));
    let network = network.and_then(|network| parts.taken(network));
    let built = || {
        Some(Definition {
            name: name?,
            members: members?,
            addresses: addresses?,
            guarantee: guarantee?,
            limit: limit?,
            network: network?,
            class,
            source: document.source.clone(),
            age: Age::of(object),
        })
    };
    let built = built();
    parts.whole(built)
}

/// Parts of an object, and what is wrong with them.
struct Parts<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
}

impl Parts<'_> {
    fn wrong(&mut self, field: &str, message: &str) {
        self.problems.push(self.document.problem(field, message));
    }

    fn taken<T>(&mut self, done: Result<T, FieldProblem>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(FieldProblem { field, message }) => {
                self.wrong(&field, &message);
                None
            }
        }
    }

    fn members(&mut self, members: &Members) -> Option<Rules> {
        let wrong = validate::members(members);
        if wrong.is_empty() {
            return self.taken(Rules::of(members));
        }
        for FieldProblem { field, message } in wrong {
            self.wrong(&field, &message);
        }
        None
    }

    /// All of it, or all that is wrong with it.
    fn whole<T>(self, whole: Option<T>) -> Result<T, Vec<Problem>> {
        whole.filter(|_| self.problems.is_empty()).ok_or(self.problems)
    }
}
