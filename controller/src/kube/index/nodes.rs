//! Nodes: their addresses, and which of the cluster's addresses they give to pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::AddressBlock;
use ipnet::IpNet;

use super::told::Node;

/// Every Node.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    all: BTreeMap<Arc<str>, Node>,
}

/// What of a Node is another now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) addresses: bool,
    pub(crate) ranges: bool,
}

impl Nodes {
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.all.get(name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Node> {
        self.all.values()
    }

    /// The ranges of all of them.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = AddressBlock> {
        self.all.values().flat_map(|node| node.ranges.iter().copied())
    }

    /// Takes in how a Node is now; `None`: it is gone.
    pub(crate) fn set(&mut self, name: &Arc<str>, now: Option<&Node>) -> Touched {
        let before = match now {
            Some(node) => self.all.insert(Arc::clone(name), node.clone()),
            None => self.all.remove(name),
        };
        let before = before.as_ref();
        let none = BTreeSet::new();
        let ranges =
            |node: Option<&Node>| node.map_or_else(|| none.clone(), |it| it.ranges.clone());
        Touched {
            addresses: before.map(|it| &it.addresses) != now.map(|it| &it.addresses),
            ranges: ranges(before) != ranges(now),
        }
    }
}

/// Ranges, merged as far as they can be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges(Vec<IpNet>);

impl Ranges {
    pub(crate) fn new(blocks: impl Iterator<Item = AddressBlock>) -> Self {
        let mut merged = IpNet::aggregate(&blocks.map(AddressBlock::net).collect());
        merged.sort_by_key(IpNet::addr);
        Self(merged)
    }

    pub(crate) fn blocks(&self) -> BTreeSet<AddressBlock> {
        self.0.iter().copied().map(AddressBlock::new).collect()
    }

    /// Whether an address is in one of them. They do not overlap, so only the last one that
    /// begins at or before it can have it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|range| range.addr() <= address);
        after.checked_sub(1).is_some_and(|at| self.0[at].contains(&address))
    }
}
