//! Sets of addresses of which many versions live at once: a change copies a sixteenth of one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_core::SetChange;

const SHARDS: usize = 16;

/// A set of addresses. Clones share what they have in common.
#[derive(Clone, Debug)]
pub(crate) struct AddressSet {
    shards: [Arc<BTreeSet<IpAddr>>; SHARDS],
}

impl Default for AddressSet {
    fn default() -> Self {
        let empty = Arc::default();
        Self { shards: std::array::from_fn(|_| Arc::clone(&empty)) }
    }
}

/// By the last bytes, which differ most.
fn shard(address: IpAddr) -> usize {
    let mixed = match address {
        IpAddr::V4(v4) => v4.octets()[2] ^ v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[14] ^ v6.octets()[15],
    };
    usize::from(mixed) % SHARDS
}

impl AddressSet {
    pub(super) fn insert(&mut self, address: IpAddr) {
        let shard = &mut self.shards[shard(address)];
        if !shard.contains(&address) {
            Arc::make_mut(shard).insert(address);
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let shard = &mut self.shards[shard(address)];
        if shard.contains(&address) {
            Arc::make_mut(shard).remove(&address);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.shards.iter().flat_map(|shard| shard.iter().copied())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.shards[shard(address)].contains(&address)
    }

    /// What came and went since `old`. Costs nothing where they share everything.
    pub(crate) fn since(&self, old: &Self) -> SetChange<IpAddr> {
        let mut change = SetChange::default();
        for (new, old) in self.shards.iter().zip(&old.shards) {
            if !Arc::ptr_eq(new, old) {
                change.added.extend(new.difference(old).copied());
                change.removed.extend(old.difference(new).copied());
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_share_what_they_have_in_common() {
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let mut old = AddressSet::default();
        assert!(old.is_empty());
        (0..1_000).for_each(|n| old.insert(address(n)));
        let mut new = old.clone();
        new.insert(address(5_000));
        new.remove(address(7));
        new.remove(address(9_999));
        let shared = new.shards.iter().zip(&old.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2);
        let change = new.since(&old);
        assert_eq!(change.added, [address(5_000)].into());
        assert_eq!(change.removed, [address(7)].into());
        assert!(new.since(&new.clone()).is_empty());
        assert_eq!(new.iter().count(), 1_000);
        new.insert(address(7));
        new.remove(address(5_000));
        assert!(new.since(&old).is_empty());
    }
}
