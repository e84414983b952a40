//! Snapshots from their chunks, and from what changed since the one before. No I/O.

use std::sync::Arc;

use bulkhead_core::{Delta, DeltaError, Snapshot};
use bulkhead_proto::snapshots::snapshot;
use bulkhead_proto::v1;
use prost::Message;

pub use bulkhead_proto::snapshots::Refusal;

/// A snapshot that comes in more bytes than this is garbage: 100,000 virtual clusters with ten
/// addresses each have half of it.
const MAX_BYTES: usize = 64 << 20;

/// Why what came cannot belong to any snapshot: the controller is broken, is none, or takes what
/// is held for something else. Being told everything mends it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
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
    /// A change that does not fit what is held.
    #[error("a change to generation {generation} does not fit; everything is asked for anew")]
    Misfit {
        /// To which it would lead.
        generation: u64,
        /// Why not.
        source: DeltaError,
    },
}

/// What a chunk or a change led to.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress {
    /// More chunks must come.
    Incomplete,
    /// The snapshot.
    Complete(Arc<Snapshot>),
    /// Complete, and wrong.
    Refused(u64, Refusal),
}

/// Collects what comes on one stream.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    unfinished: Vec<v1::SnapshotChunk>,
    bytes: usize,
    /// Generation of the last that was complete.
    newest: u64,
    /// What changes are of: the last that was taken.
    held: Option<Arc<Snapshot>>,
}

impl Assembler {
    /// For a stream that goes on with what another carried.
    pub fn resuming(held: Arc<Snapshot>) -> Self {
        Self { newest: held.generation, held: Some(held), ..Self::default() }
    }

    /// The last snapshot that was taken.
    pub const fn held(&self) -> Option<&Arc<Snapshot>> {
        self.held.as_ref()
    }

    /// Takes in what changed.
    pub fn change(&mut self, message: &v1::SnapshotDelta) -> Result<Progress, Disorder> {
        let generation = message.generation;
        if let Some(last) = self.unfinished.last() {
            return Err(Disorder::Mixed { expected: last.generation, found: generation });
        }
        if generation <= self.newest {
            return Err(Disorder::Backwards { newest: self.newest, found: generation });
        }
        // Before what it says is looked at: whatever that is, it is of something else.
        let held = self.held.as_ref().map_or(0, |held| held.generation);
        let misfit = |source| Disorder::Misfit { generation, source };
        let base = message.base_generation;
        let Some(before) = self.held.as_ref().filter(|_| base == held) else {
            return Err(misfit(DeltaError::OtherBase { base, held }));
        };
        let changed = match Delta::try_from(message) {
            Ok(delta) => before.changed_by(&delta),
            Err(refusal) => {
                self.newest = generation;
                return Ok(Progress::Refused(generation, refusal));
            }
        };
        let changed = match changed {
            Err(DeltaError::Fact(error)) => Err(error.into()),
            other => Ok(other.map_err(misfit)?),
        };
        Ok(self.taken(generation, changed))
    }

    fn taken(&mut self, generation: u64, snapshot: Result<Snapshot, Refusal>) -> Progress {
        self.newest = generation;
        match snapshot {
            Ok(snapshot) => {
                let snapshot = Arc::new(snapshot);
                self.held = Some(Arc::clone(&snapshot));
                Progress::Complete(snapshot)
            }
            Err(refusal) => Progress::Refused(generation, refusal),
        }
    }

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
        let chunks = std::mem::take(&mut self.unfinished);
        Ok(self.taken(generation, snapshot(&chunks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, number: u32) -> v1::AgentVirtualCluster {
        v1::AgentVirtualCluster { name: name.to_owned(), number, ..Default::default() }
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
        let Progress::Complete(snapshot) = progress else { panic!("{progress:?}") };
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
        let Ok(Progress::Complete(snapshot)) = assembler.push(chunks[2].clone()) else {
            panic!("incomplete")
        };
        assert_eq!(assembler.held(), Some(&snapshot));
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

    fn delta(base: u64, generation: u64, name: &str) -> v1::SnapshotDelta {
        let number = u32::from(name.as_bytes()[0]);
        v1::SnapshotDelta {
            base_generation: base,
            generation,
            upserted: vec![cluster(name, number)],
            ..v1::SnapshotDelta::default()
        }
    }

    #[test]
    fn changes_lead_on_from_what_is_held() {
        let mut assembler = Assembler::default();
        assembler.push(chunk(3, true, true, "a")).unwrap();
        assert_eq!(names(assembler.change(&delta(3, 5, "b")).unwrap()), ["a", "b"]);
        assert_eq!(names(assembler.change(&delta(5, 6, "c")).unwrap()), ["a", "b", "c"]);
        let held = assembler.held().unwrap().clone();
        let mut next = Assembler::resuming(held);
        assert_eq!(names(next.change(&delta(6, 9, "d")).unwrap()), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_change_of_something_else_is_named_and_changes_nothing() {
        let mut assembler = Assembler::default();
        let error = assembler.change(&delta(3, 5, "b")).unwrap_err();
        let source = DeltaError::OtherBase { base: 3, held: 0 };
        assert_eq!(error, Disorder::Misfit { generation: 5, source });
        assembler.push(chunk(3, true, true, "a")).unwrap();
        let held = assembler.held().unwrap().clone();
        let removal = v1::SnapshotDelta { removed: vec!["x".to_owned()], ..delta(3, 5, "b") };
        for (wrong, expected) in [
            (delta(2, 5, "b"), "generation 2, and generation 3 is held"),
            (delta(3, 3, "b"), "snapshot 3 came after snapshot 3"),
            (removal, "\"x\" is not there"),
        ] {
            let error = assembler.change(&wrong).unwrap_err();
            let told = super::super::chain(&error);
            assert!(told.contains(expected), "{told}");
            assert_eq!(assembler.held(), Some(&held));
        }
        assembler.push(chunk(4, true, false, "a")).unwrap();
        let error = assembler.change(&delta(3, 5, "b")).unwrap_err();
        assert_eq!(error, Disorder::Mixed { expected: 4, found: 5 });
    }

    #[test]
    fn a_change_that_is_wrong_in_itself_is_refused_and_the_base_stays() {
        let mut assembler = Assembler::default();
        assembler.push(chunk(3, true, true, "a")).unwrap();
        let twice =
            v1::SnapshotDelta { upserted: vec![cluster("b", u32::from(b'a'))], ..delta(3, 4, "b") };
        let Ok(Progress::Refused(4, refusal)) = assembler.change(&twice) else { panic!("taken") };
        assert!(refusal.to_string().contains("both have number"), "{refusal}");
        let Ok(Progress::Refused(5, _)) = assembler.change(&delta(3, 5, "B")) else {
            panic!("taken")
        };
        assert_eq!(names(assembler.change(&delta(3, 6, "b")).unwrap()), ["a", "b"]);
    }

    /// From the bytes of a change to the fact.
    #[test]
    #[ignore = "a measurement: run it alone, in release, with --ignored --nocapture"]
    fn one_address_among_ten_thousand() {
        let addresses = |team: u32| -> Vec<String> {
            (0..100).map(|n| format!("10.{}.{}.{n}", team / 200, team % 200)).collect()
        };
        let clusters = (1..=100).map(|number| v1::AgentVirtualCluster {
            name: format!("team-{number}"),
            number,
            spec: Some(v1::VirtualClusterSpec {
                addresses: addresses(number),
                ..v1::VirtualClusterSpec::default()
            }),
            node_ports: Vec::new(),
        });
        let mut assembler = Assembler::default();
        let whole =
            v1::SnapshotChunk { virtual_clusters: clusters.collect(), ..chunk(1, true, true, "a") };
        assembler.push(whole).unwrap();
        let mut times = Vec::new();
        for generation in 2..502_u64 {
            let change = v1::AddressChange {
                virtual_cluster: "team-7".to_owned(),
                added: vec![format!("10.99.{}.{}", generation / 250, generation % 250)],
                removed: vec![],
            };
            let delta = v1::SnapshotDelta {
                base_generation: generation - 1,
                generation,
                addresses: vec![change],
                ..v1::SnapshotDelta::default()
            };
            let bytes = delta.encode_to_vec();
            let began = std::time::Instant::now();
            let delta = v1::SnapshotDelta::decode(&*bytes).unwrap();
            let Ok(Progress::Complete(snapshot)) = assembler.change(&delta) else { panic!() };
            let mut index = bulkhead_core::Index::default();
            index.apply(bulkhead_core::Fact::Snapshot(snapshot)).unwrap();
            times.push(began.elapsed());
        }
        times.sort_unstable();
        println!("agent: median {:?}, p99 {:?}", times[250], times[495]);
        assert!(times[250].as_micros() < 2_500);
    }
}
