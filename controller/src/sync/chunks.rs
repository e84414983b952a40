//! A snapshot in chunks of bounded size.

use bulkhead_proto::v1;
use prost::Message;

use crate::state::Snapshot;

/// What one more entry adds besides itself: tag and length.
const OVERHEAD: usize = 8;

/// What a chunk has besides entries, at most.
const FRAME: usize = 64;

/// The chunks of a snapshot, in order; one at least. None is larger than `most` bytes, unless one
/// entry is: entries are never split, and an object is bounded well below a mebibyte.
pub(super) fn chunks(snapshot: &Snapshot, most: usize) -> Vec<v1::SnapshotChunk> {
    let most = most.saturating_sub(FRAME);
    let mut packer = Packer { generation: snapshot.generation, most, ..Packer::default() };
    for known in snapshot.virtual_clusters.values() {
        let cluster = v1::AgentVirtualCluster::from(&known.cluster);
        packer.make_room(cluster.encoded_len());
        packer.open.virtual_clusters.push(cluster);
    }
    for shared in &snapshot.shared {
        let text = shared.to_string();
        packer.make_room(text.len());
        packer.open.shared.push(text);
    }
    for range in &snapshot.cluster_ranges {
        let text = range.to_string();
        packer.make_room(text.len());
        packer.open.cluster_ranges.push(text);
    }
    for address in &snapshot.node_addresses {
        let text = address.to_string();
        packer.make_room(text.len());
        packer.open.node_addresses.push(text);
    }
    packer.finish()
}

#[derive(Default)]
struct Packer {
    generation: u64,
    most: usize,
    full: Vec<v1::SnapshotChunk>,
    open: v1::SnapshotChunk,
    bytes: usize,
}

impl Packer {
    fn make_room(&mut self, bytes: usize) {
        if self.bytes > 0 && self.bytes + bytes + OVERHEAD > self.most {
            self.full.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes + OVERHEAD;
    }

    fn finish(mut self) -> Vec<v1::SnapshotChunk> {
        self.full.push(self.open);
        let last = self.full.len() - 1;
        for (index, chunk) in self.full.iter_mut().enumerate() {
            chunk.generation = self.generation;
            chunk.first = index == 0;
            chunk.last = index == last;
        }
        self.full
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MAX_BYTES: usize = 1 << 20;

    #[test]
    fn an_empty_snapshot_is_one_chunk() {
        let chunks = chunks(&Snapshot { generation: 7, ..Snapshot::default() }, MAX_BYTES);
        assert_eq!(chunks.len(), 1);
        assert_eq!((chunks[0].generation, chunks[0].first, chunks[0].last), (7, true, true));
    }

    #[test]
    fn a_large_snapshot_is_cut_and_nothing_is_lost() {
        let addresses = (0..200_000_u32).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into());
        let snapshot =
            Snapshot { generation: 3, node_addresses: addresses.collect(), ..Snapshot::default() };
        let chunks = chunks(&snapshot, MAX_BYTES);
        assert!(chunks.len() > 1);
        assert!(chunks.iter().all(|chunk| chunk.encoded_len() <= MAX_BYTES));
        assert!(chunks.iter().all(|chunk| chunk.generation == 3));
        let firsts: Vec<bool> = chunks.iter().map(|chunk| chunk.first).collect();
        let lasts: Vec<bool> = chunks.iter().map(|chunk| chunk.last).collect();
        assert_eq!(firsts.iter().position(|first| *first), Some(0));
        assert_eq!(lasts.iter().position(|last| *last), Some(chunks.len() - 1));
        let total: usize = chunks.iter().map(|chunk| chunk.node_addresses.len()).sum();
        assert_eq!(total, 200_000);
    }
}
