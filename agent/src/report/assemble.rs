//! Snapshots from their chunks. No I/O.

use bulkhead_core::address::AddressError;
use bulkhead_core::{AddressBlock, Fact, FactError, Index, Snapshot, VirtualCluster};
use bulkhead_proto::{ConversionError, v1};
use prost::Message;

/// A snapshot that comes in more bytes than this is garbage: 100,000 virtual clusters with ten
/// addresses each have half of it.
const MAX_BYTES: usize = 64 << 20;

/// Why a snapshot is not taken, whole. The one before it stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A virtual cluster cannot be what it says.
    #[error(transparent)]
    VirtualCluster(#[from] ConversionError),
    /// Two have one name.
    #[error("virtual cluster \"{name}\" is there twice; name each once")]
    Twice {
        /// The name.
        name: String,
    },
    /// A list of addresses has something else.
    #[error("{list}[{index}]")]
    Address {
        /// Its name.
        list: &'static str,
        /// Place in the list.
        index: usize,
        /// What is there.
        source: AddressError,
    },
    /// The list of host addresses has something else.
    #[error(
        "node_addresses[{index}]: \"{text}\" is no IP address; write it like 10.1.0.7 or fd00::7"
    )]
    NodeAddress {
        /// Place in the list.
        index: usize,
        /// What is there.
        text: String,
    },
    /// Its parts do not fit together.
    #[error(transparent)]
    Fact(#[from] FactError),
}

/// Why chunks cannot belong to any snapshot: the controller is broken, or is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Disorder {
    /// A chunk without the ones before it.
    #[error("a chunk of snapshot {generation} came without its first")]
    NotBegun {
        /// Of the chunk.
        generation: u64,
    },
    /// A chunk of another snapshot between.
    #[error("a chunk of snapshot {found} came in the middle of snapshot {expected}")]
    Mixed {
        /// The unfinished one's.
        expected: u64,
        /// Of the chunk.
        found: u64,
    },
    /// An older snapshot after a newer one, or one that has no number.
    #[error("snapshot {found} came after snapshot {newest}")]
    Backwards {
        /// Of the last complete one; 0: there was none.
        newest: u64,
        /// Of the chunk.
        found: u64,
    },
    /// It never ends.
    #[error("snapshot {generation} has more than {MAX_BYTES} bytes")]
    TooLong {
        /// Of the snapshot.
        generation: u64,
    },
}

/// What a chunk led to.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress {
    /// More chunks must come.
    Incomplete,
    /// The snapshot, and the chunks that it came in.
    Complete(Snapshot, Vec<v1::SnapshotChunk>),
    /// Complete, and wrong.
    Refused(u64, Refusal),
}

/// Collects the chunks of one stream.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    unfinished: Vec<v1::SnapshotChunk>,
    bytes: usize,
    /// Generation of the last that was complete.
    newest: u64,
}

impl Assembler {
    /// Takes in a chunk.
    pub fn push(&mut self, chunk: v1::SnapshotChunk) -> Result<Progress, Disorder> {
        let generation = chunk.generation;
        if generation == 0 || generation < self.newest {
            return Err(Disorder::Backwards { newest: self.newest, found: generation });
        }
        if chunk.first {
            self.unfinished.clear();
            self.bytes = 0;
        } else {
            match self.unfinished.last() {
                None => return Err(Disorder::NotBegun { generation }),
                Some(last) if last.generation != generation => {
                    let expected = last.generation;
                    return Err(Disorder::Mixed { expected, found: generation });
                }
                Some(_) => {}
            }
        }
        self.bytes += chunk.encoded_len();
        if self.bytes > MAX_BYTES {
            return Err(Disorder::TooLong { generation });
        }
        let is_last = chunk.last;
        self.unfinished.push(chunk);
        if !is_last {
            return Ok(Progress::Incomplete);
        }
        self.newest = generation;
        let chunks = std::mem::take(&mut self.unfinished);
        Ok(match snapshot(&chunks) {
            Ok(snapshot) => Progress::Complete(snapshot, chunks),
            Err(refusal) => Progress::Refused(generation, refusal),
        })
    }
}

/// The snapshot of all its chunks, in order.
pub fn snapshot(chunks: &[v1::SnapshotChunk]) -> Result<Snapshot, Refusal> {
    let mut snapshot = Snapshot::default();
    for chunk in chunks {
        snapshot.generation = chunk.generation;
        for message in &chunk.virtual_clusters {
            let cluster = VirtualCluster::try_from(message)?;
            if snapshot.virtual_clusters.insert(cluster.name.clone(), cluster).is_some() {
                return Err(Refusal::Twice { name: message.name.clone() });
            }
        }
        snapshot.shared.extend(parse("shared", &chunk.shared)?);
        snapshot.cluster_ranges.extend(parse("cluster_ranges", &chunk.cluster_ranges)?);
        for (index, text) in chunk.node_addresses.iter().enumerate() {
            let wrong = || Refusal::NodeAddress { index, text: text.clone() };
            snapshot.node_addresses.insert(text.parse().map_err(|_| wrong())?);
        }
    }
    // An index takes a snapshot or says what is wrong with the whole of it.
    let mut trial = Index::default();
    trial.apply(Fact::Snapshot(snapshot.clone()))?;
    Ok(snapshot)
}

fn parse(list: &'static str, texts: &[String]) -> Result<Vec<AddressBlock>, Refusal> {
    let wrong = |(index, text): (usize, &String)| {
        text.parse().map_err(|source| Refusal::Address { list, index, source })
    };
    texts.iter().enumerate().map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, number: u32) -> v1::AgentVirtualCluster {
        v1::AgentVirtualCluster { name: name.to_owned(), number, spec: None }
    }

    fn chunk(generation: u64, first: bool, last: bool, name: &str) -> v1::SnapshotChunk {
        let number = u32::from(name.as_bytes()[0]);
        v1::SnapshotChunk {
            generation,
            first,
            last,
            virtual_clusters: vec![cluster(name, number)],
            ..v1::SnapshotChunk::default()
        }
    }

    fn names(progress: Progress) -> Vec<String> {
        let Progress::Complete(snapshot, _) = progress else { panic!("{progress:?}") };
        snapshot.virtual_clusters.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn chunks_make_a_snapshot() {
        let mut assembler = Assembler::default();
        let chunks = [
            chunk(3, true, false, "a"),
            chunk(3, false, false, "b"),
            v1::SnapshotChunk {
                shared: vec!["10.0.0.53".to_owned()],
                cluster_ranges: vec!["10.1.0.0/16".to_owned()],
                node_addresses: vec!["fd00::1".to_owned()],
                ..chunk(3, false, true, "c")
            },
        ];
        assert_eq!(assembler.push(chunks[0].clone()), Ok(Progress::Incomplete));
        assert_eq!(assembler.push(chunks[1].clone()), Ok(Progress::Incomplete));
        let Ok(Progress::Complete(snapshot, kept)) = assembler.push(chunks[2].clone()) else {
            panic!("incomplete")
        };
        assert_eq!(kept, chunks);
        assert_eq!(snapshot.generation, 3);
        assert_eq!(snapshot.virtual_clusters.len(), 3);
        assert_eq!(snapshot.shared, ["10.0.0.53".parse().unwrap()].into());
        assert_eq!(snapshot.cluster_ranges, ["10.1.0.0/16".parse().unwrap()].into());
        assert_eq!(snapshot.node_addresses, ["fd00::1".parse().unwrap()].into());
    }

    #[test]
    fn an_unfinished_one_is_forgotten() {
        let mut assembler = Assembler::default();
        assembler.push(chunk(1, true, false, "a")).unwrap();
        assert_eq!(names(assembler.push(chunk(2, true, true, "b")).unwrap()), ["b"]);
        // The same again is the same.
        assert_eq!(names(assembler.push(chunk(2, true, true, "b")).unwrap()), ["b"]);
    }

    #[test]
    fn chunks_out_of_order_are_refused() {
        let mut assembler = Assembler::default();
        let error = assembler.push(chunk(1, false, true, "a")).unwrap_err();
        assert_eq!(error, Disorder::NotBegun { generation: 1 });
        assembler.push(chunk(2, true, false, "a")).unwrap();
        let error = assembler.push(chunk(3, false, false, "b")).unwrap_err();
        assert_eq!(error, Disorder::Mixed { expected: 2, found: 3 });
        assembler.push(chunk(5, true, true, "a")).unwrap();
        let error = assembler.push(chunk(4, true, true, "a")).unwrap_err();
        assert_eq!(error, Disorder::Backwards { newest: 5, found: 4 });
        let error = Assembler::default().push(chunk(0, true, true, "a")).unwrap_err();
        assert_eq!(error, Disorder::Backwards { newest: 0, found: 0 });
    }

    #[test]
    fn one_that_never_ends_is_refused() {
        let mut assembler = Assembler::default();
        let big =
            v1::SnapshotChunk { shared: vec!["x".repeat(1 << 20)], ..chunk(1, false, false, "a") };
        assembler.push(v1::SnapshotChunk { first: true, ..big.clone() }).unwrap();
        let mut pushed = 1;
        let error = loop {
            match assembler.push(big.clone()) {
                Ok(_) => pushed += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Disorder::TooLong { generation: 1 });
        assert_eq!(pushed, 63);
    }

    #[test]
    fn a_wrong_one_is_refused_whole_with_what_is_wrong() {
        let good = || chunk(1, true, true, "a");
        let cases = [
            (v1::SnapshotChunk { virtual_clusters: vec![cluster("../a", 1)], ..good() }, "../a"),
            (v1::SnapshotChunk { virtual_clusters: vec![cluster("a", 0)], ..good() }, "number"),
            (
                v1::SnapshotChunk {
                    virtual_clusters: vec![cluster("a", 1), cluster("a", 2)],
                    ..good()
                },
                "\"a\" is there twice",
            ),
            (
                v1::SnapshotChunk {
                    virtual_clusters: vec![cluster("a", 1), cluster("b", 1)],
                    ..good()
                },
                "both have number 1",
            ),
            (v1::SnapshotChunk { shared: vec!["x".to_owned()], ..good() }, "shared[0]"),
            (
                v1::SnapshotChunk { cluster_ranges: vec!["10.0.0.0/40".to_owned()], ..good() },
                "cluster_ranges[0]",
            ),
            (
                v1::SnapshotChunk { node_addresses: vec!["10.0.0.0/8".to_owned()], ..good() },
                "node_addresses[0]",
            ),
        ];
        for (wrong, expected) in cases {
            let mut assembler = Assembler::default();
            let Ok(Progress::Refused(1, refusal)) = assembler.push(wrong) else {
                panic!("taken: {expected}")
            };
            assert!(refusal.to_string().contains(expected), "{refusal}");
            // The stream goes on.
            let next = assembler.push(chunk(2, true, true, "b")).unwrap();
            assert_eq!(names(next), ["b"]);
        }
    }
}
