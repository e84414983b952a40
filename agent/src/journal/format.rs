//! What a journal's segment looks like in bytes. No I/O.
//!
//! A segment is a header, the same header again, and records. All numbers are little endian.
//!
//! ```text
//! header  0 magic 8 | 8 version u32 | 12 zero 4 | 16 journal id 16 | 32 base u64
//!        40 covers u64 | 48 coarsened u64 | 56 boot id 40 | 96 zero 28 | 124 crc u32
//! record  0 length u32 | 4 kind u32 | 8 sequence u64 | 16 crc u32 | 20 payload
//! ```
//!
//! A checksum (CRC-32C) is over everything before it, and a record's also over its payload. The
//! header is there twice because without it no record of the segment can be booked: one bad
//! sector then costs a few records at most.

use uuid::Uuid;

/// First bytes of each header. The first is no text and the last no end of line that a transfer
/// as text would keep.
pub(super) const MAGIC: [u8; 8] = *b"\x8bBHJRN\r\n";
/// The version that is written, and the newest that can be read.
pub(super) const VERSION: u32 = 1;
/// Bytes of one header.
pub(super) const HEADER_BYTES: usize = 128;
/// Where records begin.
pub(super) const RECORDS_AT: usize = 2 * HEADER_BYTES;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 20;
/// Longest payload in bytes; a longer length is damage.
pub(super) const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// The highest number that a batch can have: what the controller's ledger can keep. Nothing
/// counts so far, so a higher one is damage, and one more than it still fits.
pub(super) const LAST_SEQUENCE: u64 = i64::MAX.unsigned_abs();
/// Longest boot id in bytes; the kernel's has 36.
pub(super) const MAX_BOOT_BYTES: usize = 40;

const CRC_AT: usize = HEADER_BYTES - 4;

/// What a segment says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Whose sequence numbers these are.
    pub(super) journal: Uuid,
    /// The lowest number that a batch in it can have.
    pub(super) base: u64,
    /// It stands for every segment with a base up to here; 0: only for itself.
    pub(super) covers: u64,
    /// Usage records that were dropped because newer ones in it say the same and more.
    pub(super) coarsened: u64,
    /// The boot in which its batches were counted: cgroup ids mean nothing in another.
    pub(super) boot: String,
}

/// Why bytes are not a segment of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderProblem {
    /// Something else's file.
    Foreign,
    /// Of a format that came after this program.
    Newer {
        /// Its version.
        version: u32,
    },
    /// It was ours once.
    Damaged,
}

impl Header {
    /// The header, twice.
    pub(super) fn encode(&self) -> [u8; RECORDS_AT] {
        let mut copy = [0; HEADER_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&VERSION.to_le_bytes());
        copy[16..32].copy_from_slice(self.journal.as_bytes());
        copy[32..40].copy_from_slice(&self.base.to_le_bytes());
        copy[40..48].copy_from_slice(&self.covers.to_le_bytes());
        copy[48..56].copy_from_slice(&self.coarsened.to_le_bytes());
        let boot = self.boot.as_bytes();
        let length = boot.len().min(MAX_BOOT_BYTES);
        copy[56..56 + length].copy_from_slice(&boot[..length]);
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let mut both = [0; RECORDS_AT];
        both[..HEADER_BYTES].copy_from_slice(&copy);
        both[HEADER_BYTES..].copy_from_slice(&copy);
        both
    }

    /// From the first bytes of a file; also whether both copies are good.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, bool), HeaderProblem> {
        let first = Self::decode_copy(bytes);
        let second = Self::decode_copy(bytes.get(HEADER_BYTES..).unwrap_or_default());
        match (first, second) {
            (Ok(first), second) => {
                let both = second.as_ref() == Ok(&first);
                Ok((first, both))
            }
            (Err(_), Ok(second)) => Ok((second, false)),
            (Err(problem), Err(_)) => Err(problem),
        }
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let magic = &bytes[..bytes.len().min(MAGIC.len())];
        if !MAGIC.starts_with(magic) {
            return Err(HeaderProblem::Foreign);
        }
        match u32_at(bytes, 8) {
            Some(version) if version > VERSION => return Err(HeaderProblem::Newer { version }),
            _ => {}
        }
        Self::decode_fields(bytes).ok_or(HeaderProblem::Damaged)
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let copy = bytes.get(..HEADER_BYTES)?;
        if u32_at(copy, CRC_AT)? != crc32c::crc32c(&copy[..CRC_AT]) {
            return None;
        }
        let covers = u64_at(copy, 40).filter(|covers| *covers <= LAST_SEQUENCE)?;
        let boot = copy.get(56..56 + MAX_BOOT_BYTES)?;
        let length = boot.iter().position(|byte| *byte == 0).unwrap_or(MAX_BOOT_BYTES);
        Some(Self {
            journal: Uuid::from_slice(copy.get(16..32)?).ok()?,
            base: u64_at(copy, 32)?,
            covers,
            coarsened: u64_at(copy, 48)?,
            boot: str::from_utf8(&boot[..length]).ok()?.to_owned(),
        })
    }
}

/// What a record is. The numbers are unlikely in other data, so that a scan finds the next
/// record after damage quickly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A usage batch; its sequence is the batch's.
    Usage = 0x4755_48b1,
    /// The owner's state; its sequence is the last batch's before it.
    Checkpoint = 0x4b43_48b2,
    /// Every batch up to its sequence is durable at the controller. No payload.
    Acknowledged = 0x4b41_48b3,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Usage, Self::Checkpoint, Self::Acknowledged]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    /// What it is.
    pub(super) kind: Kind,
    /// See [`Kind`].
    pub(super) sequence: u64,
    /// A prost message or the owner's bytes.
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends its bytes. `None`, and nothing is appended: the payload is too long.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        if self.payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        let length = u32::try_from(self.payload.len()).ok()?;
        let start = out.len();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(self.kind as u32).to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), self.payload);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(self.payload);
        Some(())
    }

    /// The record at the beginning of `bytes` and its length in bytes; `None`: there is no
    /// whole, good one.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        // The kind first: it ends most tries of a scan.
        let kind = Kind::from_number(u32_at(bytes, 4)?)?;
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        if length > MAX_PAYLOAD_BYTES {
            return None;
        }
        let end = RECORD_HEADER_BYTES + length;
        let payload = bytes.get(RECORD_HEADER_BYTES..end)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), payload);
        if u32_at(bytes, 16)? != crc {
            return None;
        }
        Some((Self { kind, sequence: u64_at(bytes, 8)?, payload }, end))
    }
}

/// A part of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece<'a> {
    /// A good record.
    Record {
        /// Where it begins, counted from the beginning of what is scanned.
        offset: usize,
        /// Where it ends.
        end: usize,
        /// The record.
        record: Record<'a>,
    },
    /// Bytes that are no record, up to the next good one or the end.
    Damage {
        /// Where it begins.
        offset: usize,
        /// Where it ends.
        end: usize,
    },
}

/// Reads records one after another, and finds the next good one after damage.
#[derive(Clone, Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Scan<'a> {
    /// Of records from the beginning of `bytes` on.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        if let Some((record, length)) = Record::decode(rest) {
            self.offset += length;
            return Some(Piece::Record { offset, end: self.offset, record });
        }
        let good = |skip: &usize| Record::decode(&rest[*skip..]).is_some();
        self.offset += (1..rest.len()).find(good).unwrap_or(rest.len());
        Some(Piece::Damage { offset, end: self.offset })
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            journal: Uuid::from_u128(7),
            base: 11,
            covers: 12,
            coarsened: 13,
            boot: "7f8f6c7e-3ad6-4f4c-8b51-0f5a8f5ad0a1".to_owned(),
        }
    }

    #[test]
    fn headers_are_read_as_written() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok((header(), true)));
        let longest = Header { boot: "x".repeat(MAX_BOOT_BYTES), ..header() };
        assert_eq!(Header::decode(&longest.encode()), Ok((longest, true)));
    }

    #[test]
    fn one_bad_copy_of_the_header_is_no_loss() {
        for at in 0..RECORDS_AT {
            let mut bytes = header().encode();
            bytes[at] ^= 0x40;
            assert_eq!(Header::decode(&bytes), Ok((header(), false)), "byte {at}");
        }
    }

    #[test]
    fn other_files_newer_versions_and_damage_are_told_apart() {
        assert_eq!(Header::decode(b"SQLite format 3\0"), Err(HeaderProblem::Foreign));
        assert_eq!(Header::decode(b"x"), Err(HeaderProblem::Foreign));
        assert_eq!(Header::decode(b""), Err(HeaderProblem::Damaged));
        assert_eq!(Header::decode(&header().encode()[..100]), Err(HeaderProblem::Damaged));
        let mut bytes = header().encode();
        for copy in [0, HEADER_BYTES] {
            bytes[copy + 8] = 2;
        }
        assert_eq!(Header::decode(&bytes), Err(HeaderProblem::Newer { version: 2 }));
    }

    #[test]
    fn a_scan_finds_the_records_after_damage() {
        let mut bytes = Vec::new();
        for sequence in 1..=3 {
            let record = Record { kind: Kind::Usage, sequence, payload: b"abc" };
            record.encode(&mut bytes).unwrap();
        }
        let length = bytes.len() / 3;
        bytes[length + 9] ^= 1;
        let pieces: Vec<Piece<'_>> = Scan::new(&bytes).collect();
        assert!(matches!(pieces[0], Piece::Record { offset: 0, .. }));
        assert_eq!(pieces[1], Piece::Damage { offset: length, end: 2 * length });
        assert!(matches!(pieces[2], Piece::Record { record: Record { sequence: 3, .. }, .. }));
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let payload = vec![0; MAX_PAYLOAD_BYTES + 1];
        let mut out = Vec::new();
        assert_eq!(
            Record { kind: Kind::Usage, sequence: 1, payload: &payload }.encode(&mut out),
            None
        );
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn records_are_read_as_written(sequence: u64, payload: Vec<u8>) {
            let record = Record { kind: Kind::Checkpoint, sequence, payload: &payload };
            let mut bytes = Vec::new();
            record.encode(&mut bytes).unwrap();
            prop_assert_eq!(Record::decode(&bytes), Some((record, bytes.len())));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Record::decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn a_flipped_bit_is_found(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = Vec::new();
            Record { kind: Kind::Usage, sequence: 9, payload: &payload }.encode(&mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Record::decode(&bytes), None);
        }

        #[test]
        fn garbage_never_stops_a_scan(bytes: Vec<u8>) {
            let covered: usize = Scan::new(&bytes)
                .map(|piece| match piece {
                    Piece::Record { offset, end, .. } | Piece::Damage { offset, end } => end - offset,
                })
                .sum();
            prop_assert_eq!(covered, bytes.len());
        }
    }
}
