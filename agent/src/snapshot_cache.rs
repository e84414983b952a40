//! The controller's last snapshot, on disk, whole: an agent that starts while the controller is
//! away applies what it knew last.

mod keeper;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bulkhead_core::Snapshot;
use bulkhead_proto::snapshots::{Refusal, snapshot, whole};
use bulkhead_proto::v1;
use prost::Message;

pub use keeper::Keeper;

use crate::faults::{Point, reach};
use crate::journal::storage::{Disk, Replacement};

/// First bytes of the file. Then: version u32, CRC-32C of the version and the chunks u32, both
/// little endian, and the chunks, each with its length before it: as they came from the
/// controller, or all as one.
const MAGIC: [u8; 8] = *b"\x8bBHSNAP\n";
/// The version that is written, and the newest that can be read.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;

/// Why there is no snapshot in the cache, or none could be put there.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotCacheError {
    /// The system refused.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else's file.
    #[error("{path} is no snapshot of Bulkhead; move it out of the state directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer agent.
    #[error(
        "{path} has snapshot format {version}, this agent knows up to {VERSION}; it is ignored \
         until the controller sends the next snapshot"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It was ours once.
    #[error("{path} is damaged; it is ignored until the controller sends the next snapshot")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// This version cannot mean what is in it.
    #[error("{path} is not valid; it is ignored until the controller sends the next snapshot")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Refusal,
    },
}

/// Keeps a snapshot in place of the last one. Cut at any moment, the one or the other is there,
/// whole. The file's directory must be there.
pub fn store(path: &Path, snapshot: &Snapshot) -> Result<(), SnapshotCacheError> {
    if !is_ours(path)? {
        return Err(SnapshotCacheError::Foreign { path: path.to_owned() });
    }
    let body = whole(snapshot).encode_length_delimited_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&checksum(VERSION, &body).to_le_bytes());
    bytes.extend_from_slice(&body);
    let written = Replacement::begin(&Disk, path).and_then(|mut file| {
        reach(Point::SnapshotKeep)?;
        file.write(&bytes)?;
        file.finish()
    });
    let written = written.and_then(|_| reach(Point::SnapshotKept));
    written.map_err(|source| system("write", path, source))
}

/// The snapshot that was kept; `None`: none was.
pub fn load(path: &Path) -> Result<Option<Snapshot>, SnapshotCacheError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let chunks = decode(path, &bytes)?;
    let refused = |source| SnapshotCacheError::Refused { path: path.to_owned(), source };
    snapshot(&chunks).map(Some).map_err(refused)
}

/// Also where there is nothing. Only its first bytes are read.
fn is_ours(path: &Path) -> Result<bool, SnapshotCacheError> {
    let mut first = Vec::new();
    let read = fs::File::open(path).and_then(|file| {
        let most = MAGIC.len().try_into().unwrap_or(u64::MAX);
        file.take(most).read_to_end(&mut first)
    });
    match read {
        Ok(_) => Ok(begins_as_ours(&first)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(system("read", path, source)),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SnapshotCacheError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(system("read", path, source)),
    }
}

fn system(operation: &'static str, path: &Path, source: io::Error) -> SnapshotCacheError {
    SnapshotCacheError::System { operation, path: path.to_owned(), source }
}

fn checksum(version: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&version.to_le_bytes()), body)
}

/// Also what was cut within its first bytes.
fn begins_as_ours(bytes: &[u8]) -> bool {
    MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())])
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Vec<v1::SnapshotChunk>, SnapshotCacheError> {
    let damaged = || SnapshotCacheError::Damaged { path: path.to_owned() };
    if !begins_as_ours(bytes) {
        return Err(SnapshotCacheError::Foreign { path: path.to_owned() });
    }
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let version = number(MAGIC.len()).ok_or_else(damaged)?;
    if version > VERSION {
        return Err(SnapshotCacheError::NewerVersion { path: path.to_owned(), version });
    }
    let mut body = bytes.get(HEADER_BYTES..).ok_or_else(damaged)?;
    if number(MAGIC.len() + 4) != Some(checksum(version, body)) {
        return Err(damaged());
    }
    let mut chunks: Vec<v1::SnapshotChunk> = Vec::new();
    while !body.is_empty() {
        chunks.push(Message::decode_length_delimited(&mut body).map_err(|_| damaged())?);
    }
    let whole = chunks.first().is_some_and(|first| first.first)
        && chunks.last().is_some_and(|last| last.last);
    if whole { Ok(chunks) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// As a controller cuts them.
    fn chunks() -> Vec<v1::SnapshotChunk> {
        let cluster = |name: &str, number| v1::AgentVirtualCluster {
            name: name.to_owned(),
            number,
            spec: Some(v1::VirtualClusterSpec {
                addresses: vec!["10.1.0.7".to_owned()],
                ..v1::VirtualClusterSpec::default()
            }),
            node_ports: vec![v1::NodePort { protocol: 6, port: 30_000 + number }],
        };
        vec![
            v1::SnapshotChunk {
                generation: 7,
                first: true,
                virtual_clusters: vec![cluster("a", 1)],
                ..v1::SnapshotChunk::default()
            },
            v1::SnapshotChunk {
                generation: 7,
                last: true,
                virtual_clusters: vec![cluster("b", 2)],
                node_addresses: vec!["10.0.0.1".to_owned()],
                ..v1::SnapshotChunk::default()
            },
        ]
    }

    fn told() -> Snapshot {
        snapshot(&chunks()).unwrap()
    }

    /// What another program wrote, with its checksum.
    fn write(cache: &Path, chunks: &[v1::SnapshotChunk]) {
        let body: Vec<u8> =
            chunks.iter().flat_map(Message::encode_length_delimited_to_vec).collect();
        let checksum = checksum(VERSION, &body).to_le_bytes();
        fs::write(cache, [&MAGIC[..], &VERSION.to_le_bytes(), &checksum, &body].concat()).unwrap();
    }

    fn cache() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("snapshot");
        (directory, cache)
    }

    #[test]
    fn what_was_kept_is_there_again() {
        let (directory, cache) = cache();
        assert_eq!(load(&cache).unwrap(), None);
        store(&cache, &told()).unwrap();
        assert_eq!(told().virtual_clusters.len(), 2);
        assert_eq!(load(&cache).unwrap(), Some(told()));
        // As versions before this one kept it.
        write(&cache, &chunks());
        assert_eq!(load(&cache).unwrap(), Some(told()));
        store(&cache, &Snapshot { generation: 8, ..told() }).unwrap();
        assert_eq!(load(&cache).unwrap().unwrap().generation, 8);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_anywhere_is_found_and_mended_by_the_next() {
        let (_directory, cache) = cache();
        store(&cache, &told()).unwrap();
        let good = fs::read(&cache).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&cache, &bytes).unwrap();
            load(&cache).unwrap_err();
            fs::write(&cache, &good[..at]).unwrap();
            let error = load(&cache).unwrap_err();
            assert!(matches!(error, SnapshotCacheError::Damaged { .. }), "{error}");
            store(&cache, &told()).unwrap();
            load(&cache).unwrap().unwrap();
        }
    }

    #[test]
    fn other_files_and_newer_ones_are_told() {
        let (_directory, cache) = cache();
        fs::write(&cache, "hello").unwrap();
        let error = load(&cache).unwrap_err();
        assert!(matches!(error, SnapshotCacheError::Foreign { .. }), "{error}");
        let error = store(&cache, &told()).unwrap_err();
        assert!(matches!(error, SnapshotCacheError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&cache).unwrap(), b"hello");

        fs::remove_file(&cache).unwrap();
        store(&cache, &told()).unwrap();
        let mut bytes = fs::read(&cache).unwrap();
        bytes[8] = 2;
        fs::write(&cache, &bytes).unwrap();
        let error = load(&cache).unwrap_err();
        assert!(matches!(error, SnapshotCacheError::NewerVersion { version: 2, .. }), "{error}");
        store(&cache, &told()).unwrap();
    }

    #[test]
    fn what_is_whole_but_wrong_is_refused() {
        let (_directory, cache) = cache();
        let mut wrong = chunks();
        wrong[1].virtual_clusters[0].number = 1;
        write(&cache, &wrong);
        let error = load(&cache).unwrap_err();
        assert!(matches!(error, SnapshotCacheError::Refused { .. }), "{error}");
        write(&cache, &wrong[..1]);
        let error = load(&cache).unwrap_err();
        assert!(matches!(error, SnapshotCacheError::Damaged { .. }), "{error}");
    }
}
