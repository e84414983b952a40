//! Connections within the connection.
//!
//! One socket carries two connections: on one the runtime calls the plugin, on the other the
//! plugin calls the runtime. A frame is the connection's number (u32), the payload's length (u32),
//! both big-endian, and the payload. Where one ttrpc message ends and the next begins has nothing
//! to do with frames.

use crate::ttrpc;

/// Bytes of a frame's header.
pub const HEADER: usize = 8;

/// Bytes of the payload of a message's first frame, at most.
///
/// The reference implementation hands each frame to one read of a buffer of 4,096 bytes, and fails
/// if it does not fit; what is left of a larger message is then read in one piece. It writes in
/// exactly that way, and queues at most 256 frames, so [`write()`] does the same: one frame of up
/// to this size, and one with all the rest.
pub const FIRST_PAYLOAD: usize = 4096;

/// A connection within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Connection {
    /// The runtime calls the plugin.
    Plugin = 1,
    /// The plugin calls the runtime.
    Runtime = 2,
}

impl Connection {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Plugin),
            2 => Some(Self::Runtime),
            _ => None,
        }
    }
}

/// A frame that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A frame of a connection that does not exist.
    #[error("a frame is for connection {0}; only 1 (plugin) and 2 (runtime) exist")]
    UnknownConnection(u32),
    /// A frame that is longer than any message.
    #[error("a frame announces {length} bytes, more than {limit}")]
    TooLong {
        /// Bytes that its header announces.
        length: u32,
        /// Bytes at most.
        limit: u32,
    },
}

/// Takes frames apart as bytes come, in any pieces. Holds no payload itself.
#[derive(Clone, Debug)]
pub struct Reader {
    header: [u8; HEADER],
    header_read: usize,
    /// The frame that is being read: its connection, and how much of its payload is to come.
    frame: Option<(Connection, u32)>,
    limit: u32,
}

impl Reader {
    /// A reader of frames that carry messages of at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        let limit = u32::try_from(max_message.saturating_add(ttrpc::HEADER)).unwrap_or(u32::MAX);
        Self { header: [0; HEADER], header_read: 0, frame: None, limit }
    }

    /// The next piece of payload in `input`, and whose it is; `input` moves behind it. `None`: all
    /// of `input` was read. After an error nothing more can be read.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<(Connection, &'a [u8])>, MuxError> {
        loop {
            if let Some((connection, left)) = self.frame {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = input.split_at(length);
                *input = rest;
                let left = left.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
                self.frame = (left > 0).then_some((connection, left));
                return Ok((!piece.is_empty()).then_some((connection, piece)));
            }
            let missing = &mut self.header[self.header_read..];
            let length = missing.len().min(input.len());
            missing[..length].copy_from_slice(&input[..length]);
            *input = &input[length..];
            self.header_read += length;
            if self.header_read < HEADER {
                return Ok(None);
            }
            let (connection, length) = self.check()?;
            self.header_read = 0;
            self.frame = (length > 0).then_some((connection, length));
        }
    }

    fn check(&self) -> Result<(Connection, u32), MuxError> {
        let word = |at: usize| {
            self.header[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let (number, length) = (word(0), word(4));
        let connection =
            Connection::from_number(number).ok_or(MuxError::UnknownConnection(number))?;
        if length > self.limit {
            return Err(MuxError::TooLong { length, limit: self.limit });
        }
        Ok((connection, length))
    }
}

/// Appends the frames of one ttrpc message, its header included.
pub fn write(connection: Connection, message: &[u8], out: &mut Vec<u8>) {
    let (first, rest) = message.split_at(message.len().min(FIRST_PAYLOAD));
    for payload in [first, rest] {
        let Ok(length) = u32::try_from(payload.len()) else { continue };
        if length > 0 {
            out.extend((connection as u32).to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> impl Strategy<Value = Connection> {
        prop_oneof![Just(Connection::Plugin), Just(Connection::Runtime)]
    }

    /// Everything that a reader gives for these pieces, joined per run of one connection.
    fn read(pieces: &[&[u8]]) -> Result<Vec<(Connection, Vec<u8>)>, MuxError> {
        let mut reader = Reader::new(ttrpc::MAX_MESSAGE);
        let mut read: Vec<(Connection, Vec<u8>)> = Vec::new();
        for mut input in pieces.iter().copied() {
            while let Some((connection, piece)) = reader.next(&mut input)? {
                match read.last_mut() {
                    Some((same, bytes)) if *same == connection => bytes.extend(piece),
                    _ => read.push((connection, piece.to_vec())),
                }
            }
            assert!(input.is_empty());
        }
        Ok(read)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_split_of_the_bytes_gives_the_same_payloads(
            messages in prop::collection::vec((connection(), prop::collection::vec(any::<u8>(), 0..9000)), 1..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut wire = Vec::new();
            let mut want: Vec<(Connection, Vec<u8>)> = Vec::new();
            for (connection, message) in messages.iter().filter(|(_, message)| !message.is_empty()) {
                write(*connection, message, &mut wire);
                match want.last_mut() {
                    Some((same, bytes)) if same == connection => bytes.extend(message),
                    _ => want.push((*connection, message.clone())),
                }
            }
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            places.extend([0, wire.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect();
            prop_assert_eq!(read(&pieces), Ok(want.clone()));
            let bytes: Vec<&[u8]> = wire.chunks(1).collect();
            prop_assert_eq!(read(&bytes), Ok(want));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = read(&[&bytes]) {
                let payload: usize = read.iter().map(|(_, piece)| piece.len()).sum();
                prop_assert!(payload <= bytes.len());
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused_and_stay_refused() {
        let limit = 4 * 1024 * 1024 + 10;
        let long = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(read(&[&long]), Err(MuxError::TooLong { length: u32::MAX, limit }));
        let unknown = [0, 0, 0, 3, 0, 0, 0, 0];
        assert_eq!(read(&[&unknown]), Err(MuxError::UnknownConnection(3)));
        let zero = [0; 8];
        assert_eq!(read(&[&zero]), Err(MuxError::UnknownConnection(0)));

        let mut reader = Reader::new(16);
        for _ in 0..2 {
            assert!(reader.next(&mut &[0, 0, 0, 2, 0, 0, 0, 27][..]).is_err());
        }
    }

    #[test]
    fn frames_are_cut_where_the_reference_implementation_reads() {
        let message = vec![7; 10_000];
        let mut wire = Vec::new();
        write(Connection::Runtime, &message, &mut wire);
        assert_eq!(&wire[..8], [0, 0, 0, 2, 0, 0, 0x10, 0]);
        assert_eq!(&wire[8 + 4096..][..8], [0, 0, 0, 2, 0, 0, 0x17, 0x10]);
        assert_eq!(wire.len(), 10_000 + 16);
    }
}
