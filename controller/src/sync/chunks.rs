//! A view in chunks of bounded size, made one at a time: who is slow to take them holds no more
//! than one in memory.

use std::iter::Peekable;

use bulkhead_proto::bindings::namespace_bindings;
use bulkhead_proto::pods::named_pod;
use bulkhead_proto::v1;
use prost::Message;

use crate::state::view::View;

/// What one more entry adds besides itself: tag and length.
const OVERHEAD: usize = 8;

/// What a chunk has besides entries, at most.
const FRAME: usize = 64;

/// Something of which a snapshot has many.
enum Entry {
    Cluster(v1::AgentVirtualCluster),
    Shared(String),
    Plain(String),
    Range(String),
    NodeAddress(String),
    UnclearPort(v1::NodePort),
    Binding(v1::NamespaceBinding),
    Pod(v1::NamedPod),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Cluster(cluster) => cluster.encoded_len(),
            Self::Binding(binding) => binding.encoded_len(),
            Self::Pod(pod) => pod.encoded_len(),
            Self::UnclearPort(port) => port.encoded_len(),
            Self::Shared(text)
            | Self::Plain(text)
            | Self::Range(text)
            | Self::NodeAddress(text) => text.len(),
        }
    }

    fn put(self, chunk: &mut v1::SnapshotChunk) {
        match self {
            Self::Cluster(cluster) => chunk.virtual_clusters.push(cluster),
            Self::Shared(text) => chunk.shared.push(text),
            Self::Plain(text) => chunk.plain.push(text),
            Self::Range(text) => chunk.cluster_ranges.push(text),
            Self::NodeAddress(text) => chunk.node_addresses.push(text),
            Self::UnclearPort(port) => chunk.unclear_node_ports.push(port),
            Self::Binding(binding) => chunk.bindings.push(binding),
            Self::Pod(pod) => chunk.pods.push(pod),
        }
    }
}

/// The chunks of a view, in order; one at least. None is larger than `most` bytes, unless one
/// entry is: entries are never split, and an object is bounded well below a mebibyte.
pub(super) fn chunks(view: &View, most: usize) -> impl Iterator<Item = v1::SnapshotChunk> + Send {
    let world = &view.world;
    let bindings = world.bindings.0.iter();
    let entries = (view.clusters().map(|cluster| Entry::Cluster((&cluster).into())))
        .chain(view.shared().map(|block| Entry::Shared(block.to_string())))
        .chain(view.plain().map(|block| Entry::Plain(block.to_string())))
        .chain(world.cluster_ranges.iter().map(|block| Entry::Range(block.to_string())))
        .chain(world.node_addresses.iter().map(|address| Entry::NodeAddress(address.to_string())))
        .chain(world.unclear_node_ports.iter().map(|port| Entry::UnclearPort((*port).into())))
        .chain(
            bindings.flat_map(|(name, bound)| namespace_bindings(name, bound)).map(Entry::Binding),
        )
        .chain(view.pods().map(|(uid, pod)| Entry::Pod(named_pod(uid, pod))));
    Chunks {
        generation: world.generation,
        policy: Some(world.policy.into()),
        names_pods: world.names_pods,
        most: most.saturating_sub(FRAME),
        entries: entries.peekable(),
        first: true,
        ended: false,
    }
}

struct Chunks<I: Iterator> {
    generation: u64,
    /// Until it was said, in the first.
    policy: Option<v1::NodePolicy>,
    /// Until it was said, in the first.
    names_pods: bool,
    most: usize,
    entries: Peekable<I>,
    first: bool,
    ended: bool,
}

impl<I: Iterator<Item = Entry>> Iterator for Chunks<I> {
    type Item = v1::SnapshotChunk;

    fn next(&mut self) -> Option<v1::SnapshotChunk> {
        if self.ended {
            return None;
        }
        let mut chunk = v1::SnapshotChunk {
            generation: self.generation,
            first: std::mem::take(&mut self.first),
            policy: self.policy.take(),
            names_pods: std::mem::take(&mut self.names_pods),
            ..v1::SnapshotChunk::default()
        };
        let (mut bytes, most) = (0, self.most);
        let mut fits = |entry: &Entry| {
            let fits = bytes == 0 || bytes + entry.bytes() + OVERHEAD <= most;
            bytes += entry.bytes() + OVERHEAD;
            fits
        };
        while let Some(entry) = self.entries.next_if(&mut fits) {
            entry.put(&mut chunk);
        }
        chunk.last = self.entries.peek().is_none();
        self.ended = chunk.last;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use bulkhead_core::{Binding, Bindings, NodePolicy, Selector, Unknown};

    use super::*;
    use crate::state::World;

    const MAX_BYTES: usize = 1 << 20;

    fn cut(world: World) -> (Vec<v1::SnapshotChunk>, bulkhead_core::Snapshot) {
        let view = View::new(&Arc::new(world), "n");
        (chunks(&view, MAX_BYTES).collect(), view.snapshot(view.world.generation))
    }

    #[test]
    fn an_empty_snapshot_is_one_chunk() {
        let (chunks, _) = cut(World { generation: 7, ..World::default() });
        assert_eq!(chunks.len(), 1);
        assert_eq!((chunks[0].generation, chunks[0].first, chunks[0].last), (7, true, true));
    }

    #[test]
    fn a_large_snapshot_is_cut_and_nothing_is_lost() {
        let blocks = (0..200_000_u32).map(|n| Ipv4Addr::from(0x0a00_0000 + n).to_string());
        let binding =
            Binding { virtual_cluster: "team".parse().unwrap(), selector: Selector::default() };
        let bound = (0..20_000).map(|n| (format!("namespace-{n}"), vec![binding.clone()]));
        let world = World {
            generation: 3,
            shared: Arc::new(blocks.map(|text| text.parse().unwrap()).collect()),
            bindings: Arc::new(Bindings(bound.collect())),
            policy: NodePolicy { unknown: Unknown::Deny, ..NodePolicy::default() },
            ..World::default()
        };
        let (chunks, snapshot) = cut(world);
        assert!(chunks.len() > 3);
        assert!(chunks.iter().all(|chunk| chunk.encoded_len() <= MAX_BYTES));
        assert!(chunks.iter().all(|chunk| chunk.generation == 3));
        let firsts: Vec<bool> = chunks.iter().map(|chunk| chunk.first).collect();
        let lasts: Vec<bool> = chunks.iter().map(|chunk| chunk.last).collect();
        assert_eq!(firsts.iter().position(|first| *first), Some(0));
        assert_eq!(lasts.iter().position(|last| *last), Some(chunks.len() - 1));
        assert_eq!(bulkhead_proto::snapshots::snapshot(&chunks), Ok(snapshot));
    }
}
