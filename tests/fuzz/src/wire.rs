//! A journal's segments in bytes, written from the description of the format and not by the
//! program's own code: checksums are right, whatever the rest says.

/// Bytes of one header.
pub const HEADER_BYTES: usize = 128;

/// Kinds of records.
pub const USAGE: u32 = 0x4755_48b1;
/// The owner's state.
pub const CHECKPOINT: u32 = 0x4b43_48b2;
/// Every batch up to its sequence is durable elsewhere.
pub const ACKNOWLEDGED: u32 = 0x4b41_48b3;

/// What a header says.
#[derive(Clone, Debug)]
pub struct Header {
    /// Of the format.
    pub version: u32,
    /// Identity of the journal.
    pub journal: [u8; 16],
    /// Lowest sequence number.
    pub base: u64,
    /// Bases up to here are replaced by it.
    pub covers: u64,
    /// Records that were dropped.
    pub coarsened: u64,
    /// Boot id.
    pub boot: Vec<u8>,
}

impl Header {
    /// One copy.
    pub fn copy(&self) -> Vec<u8> {
        let mut copy = b"\x8bBHJRN\r\n".to_vec();
        copy.extend_from_slice(&self.version.to_le_bytes());
        copy.extend_from_slice(&[0; 4]);
        copy.extend_from_slice(&self.journal);
        for number in [self.base, self.covers, self.coarsened] {
            copy.extend_from_slice(&number.to_le_bytes());
        }
        copy.extend_from_slice(&self.boot[..self.boot.len().min(40)]);
        copy.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&copy);
        copy.extend_from_slice(&crc.to_le_bytes());
        copy
    }
}

/// One record.
pub fn record(kind: u32, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are short");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
