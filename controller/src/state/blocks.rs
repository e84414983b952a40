//! Lists of addresses and CIDRs, as objects name them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bulkhead_core::AddressBlock;

/// Blocks, to be asked whether one of them covers an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Blocks {
    blocks: BTreeSet<AddressBlock>,
    lengths: BTreeSet<u8>,
}

impl Blocks {
    pub(super) fn new<'a>(blocks: impl Iterator<Item = &'a AddressBlock>) -> Self {
        let blocks: BTreeSet<AddressBlock> = blocks.copied().collect();
        let lengths = blocks.iter().map(|block| block.net().prefix_len()).collect();
        Self { blocks, lengths }
    }

    /// Whether one of them covers an address: one look-up for each length that occurs.
    pub(super) fn cover(&self, address: IpAddr) -> bool {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let around = |length: &u8| AddressBlock::around(address, *length);
        let mut blocks = self.lengths.range(..=most).filter_map(around);
        blocks.any(|block| self.blocks.contains(&block))
    }
}
