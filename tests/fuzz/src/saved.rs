//! What an agent finds in its state directory beside the journal.

use std::fs;

use bulkhead_agent::{checkpoint, snapshot_cache};

use crate::values;

const BOOT: &str = "boot";
/// First bytes of a snapshot's file.
const MAGIC: &[u8; 8] = b"\x8bBHSNAP\n";

/// The first byte chooses a file, the rest is its content.
pub fn any_file(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 3 {
        0 => accounting(bytes),
        1 => cache(bytes),
        _ => {
            let version = 1_u32.to_le_bytes();
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&version), bytes);
            let parts = [&MAGIC[..], &version, &checksum.to_le_bytes(), bytes];
            cache(&parts.concat());
        }
    }
}

/// What is taken up is taken up again, and only in its own boot.
fn accounting(bytes: &[u8]) {
    let Ok(books) = checkpoint::decode(BOOT, bytes) else { return };
    let encoded = checkpoint::encode(BOOT, &books).expect("it can be written");
    assert_eq!(checkpoint::decode(BOOT, &encoded).ok(), Some(books));
    let elsewhere = checkpoint::decode("another", &encoded).expect("it can be read");
    assert!(
        elsewhere == bulkhead_core::Books::default(),
        "cgroup ids mean nothing in another boot"
    );
}

/// A file is one whole snapshot or an error, and reading changes nothing.
fn cache(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    fs::write(&path, bytes).expect("write it");
    match snapshot_cache::load(&path) {
        Ok(snapshot) => values::can_be_told(&snapshot.expect("the file is there")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert_eq!(fs::read(&path).expect("it is there"), bytes);
}
