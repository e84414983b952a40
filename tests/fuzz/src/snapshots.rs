//! A stream of snapshot chunks from a controller that may be broken.

use bulkhead_agent::report::{Assembler, Disorder, Progress};
use bulkhead_agent::snapshot_cache;
use bulkhead_core::Snapshot;
use bulkhead_proto::snapshots::snapshot;
use bulkhead_proto::v1::SnapshotChunk;
use prost::Message;

use crate::values;

/// The input is chunks, each with its length before it. A snapshot comes out whole, of its own
/// chunks and no others, or not at all; and what was taken is what the cache gives back.
pub fn any_stream(data: &[u8]) {
    let mut rest = data;
    let mut assembler = Assembler::default();
    // Since the last one that said that it was the first.
    let mut since: Vec<SnapshotChunk> = Vec::new();
    let mut newest = 0;
    while !rest.is_empty() {
        let Ok(chunk) = SnapshotChunk::decode_length_delimited(&mut rest) else { return };
        let generation = chunk.generation;
        if chunk.first {
            since.clear();
        }
        let continues = since.last().map(|last| last.generation);
        since.push(chunk.clone());
        match assembler.push(chunk.clone()) {
            Ok(Progress::Incomplete) => assert!(!chunk.last),
            Ok(Progress::Complete(taken)) => {
                assert!(chunk.last && generation >= newest);
                assert_eq!(taken.generation, generation);
                assert_eq!(snapshot(&since).as_ref(), Ok(&*taken), "of its own chunks");
                assert_eq!(assembler.held(), Some(&taken));
                values::can_be_told(&taken);
                is_kept(&taken);
                newest = generation;
                since.clear();
            }
            Ok(Progress::Refused(refused, refusal)) => {
                assert!(chunk.last && refused == generation);
                assert_eq!(snapshot(&since), Err(refusal));
                newest = generation;
                since.clear();
            }
            Err(disorder) => {
                assert!(is_true(&disorder, generation, newest, continues), "{disorder}");
                // The session ends here.
                return;
            }
        }
    }
}

/// What is said of the chunk is so.
fn is_true(disorder: &Disorder, generation: u64, newest: u64, continues: Option<u64>) -> bool {
    match *disorder {
        Disorder::NotBegun { generation: found } => found == generation && continues.is_none(),
        Disorder::Mixed { expected, found } => {
            found == generation && continues == Some(expected) && expected != found
        }
        Disorder::Backwards { newest: known, found } => {
            found == generation && known == newest && (found == 0 || found < newest)
        }
        // An input has not so many bytes, and no change.
        Disorder::TooLong { .. } | Disorder::Misfit { .. } => false,
    }
}

/// What is kept is the same after the next start.
pub(crate) fn is_kept(taken: &Snapshot) {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path().join("snapshot");
    snapshot_cache::store(&cache, taken).expect("there is room");
    let loaded = snapshot_cache::load(&cache).expect("it was stored");
    assert_eq!(loaded.as_ref(), Some(taken));
}
