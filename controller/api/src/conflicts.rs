//! Addresses that two virtual clusters claim.

use bulkhead_core::AddressBlock;

/// Two owners of one address: the wider block first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Conflict<T> {
    pub(crate) wider: (T, AddressBlock),
    pub(crate) narrower: (T, AddressBlock),
}

/// Every block that lies within a block of another owner. Blocks are nested or apart, so in the
/// order of their first address, wider ones first, those around a block are a stack.
pub(crate) fn conflicts<T: Copy + Eq>(blocks: &[(T, AddressBlock)]) -> Vec<Conflict<T>> {
    let mut ordered: Vec<(T, AddressBlock)> = blocks.to_vec();
    ordered.sort_by_key(|(_, block)| (block.net().addr(), block.net().prefix_len()));
    let mut around: Vec<(T, AddressBlock)> = Vec::new();
    let mut found = Vec::new();
    for narrower in ordered {
        while around.last().is_some_and(|(_, block)| !block.covers(narrower.1)) {
            around.pop();
        }
        match around.iter().rev().find(|(owner, _)| *owner != narrower.0) {
            Some(&wider) => found.push(Conflict { wider, narrower }),
            None => around.push(narrower),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn block(text: &str) -> AddressBlock {
        text.parse().unwrap()
    }

    #[test]
    fn both_owners_and_both_blocks_are_told() {
        let found = conflicts(&[(1, block("10.1.2.3")), (2, block("10.1.0.0/16"))]);
        let expected =
            Conflict { wider: (2, block("10.1.0.0/16")), narrower: (1, block("10.1.2.3")) };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn one_owner_may_nest_and_families_are_apart() {
        let blocks = [
            (1, block("10.0.0.0/8")),
            (1, block("10.1.0.0/16")),
            (2, block("fd00::/8")),
            (3, block("11.0.0.0/8")),
        ];
        assert_eq!(conflicts(&blocks), []);
    }

    proptest! {
        /// As comparing everything with everything finds it.
        #[test]
        fn finds_what_pairs_find(
            raw in proptest::collection::vec((0_u8..3, 0_u32..64, 24_u8..=32), 0..12),
        ) {
            let blocks: Vec<(u8, AddressBlock)> = raw
                .into_iter()
                .map(|(owner, address, len)| {
                    let address = Ipv4Addr::from(0x0a00_0000 + address);
                    (owner, block(&format!("{address}/{len}")))
                })
                .collect();
            let pairs = blocks.iter().enumerate().any(|(index, (owner, block))| {
                blocks[..index].iter().any(|(other, earlier)| {
                    owner != other && block.overlaps(*earlier)
                })
            });
            prop_assert_eq!(!conflicts(&blocks).is_empty(), pairs);
        }
    }
}
