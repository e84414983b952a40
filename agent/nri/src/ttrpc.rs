//! Calls: ttrpc, unary requests only, which is all that NRI uses.
//!
//! A message is the payload's length (u32), the stream's number (u32), both big-endian, a type and
//! flags (a byte each), and the payload: a [`Request`] or a [`Response`]. Callers number their
//! streams 1, 3, 5, …

use std::fmt;

/// Bytes of a message's header.
pub const HEADER: usize = 10;

/// Bytes of a message's payload at most: 4 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Bytes that are set aside for a payload before any of it has come.
const EARLY: usize = 16 << 10;

/// Flag of a request whose caller will send more: not used by NRI.
pub(crate) const REMOTE_OPEN: u8 = 2;

/// A call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Request {
    /// Full name of the service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Name of the method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The request's message.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits, in nanoseconds; 0 for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// The answer to a call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    /// Absent, or with [`Code::OK`]: the call succeeded.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The answer's message.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

impl From<Result<Vec<u8>, Status>> for Response {
    fn from(answer: Result<Vec<u8>, Status>) -> Self {
        match answer {
            Ok(payload) => Self { status: None, payload },
            Err(status) => Self { status: Some(status), payload: Vec::new() },
        }
    }
}

impl From<Response> for Result<Vec<u8>, Status> {
    fn from(response: Response) -> Self {
        match response.status {
            Some(status) if status.code != Code::OK.0 => Err(status),
            _ => Ok(response.payload),
        }
    }
}

/// How a call ended, in gRPC's terms.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// A [`Code`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Status {
    /// A status with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.0, message: message.into() }
    }

    /// Its code.
    pub const fn code(&self) -> Code {
        Code(self.code)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {})", self.message, self.code)
    }
}

/// A code of gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

impl Code {
    /// Success.
    pub const OK: Self = Self(0);
    /// A request that makes no sense.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// More than can be taken.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// Not in this state.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// No such method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// A defect of the callee.
    pub const INTERNAL: Self = Self(13);
    /// Not now.
    pub const UNAVAILABLE: Self = Self(14);
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins a call.
    Request,
    /// Ends a call.
    Response,
    /// Belongs to a call that is a stream: not used by NRI.
    Data,
    /// Of a newer version of ttrpc.
    Other(u8),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            other => Self::Other(other),
        }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub length: u32,
    /// The call that the message belongs to.
    pub stream: u32,
    /// What the message is.
    pub kind: Kind,
    /// Meaning depends on the kind.
    pub flags: u8,
}

/// A message, or what is left of one that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Message(Header, Vec<u8>),
    /// A message that is larger than allowed; its payload was skipped.
    Oversized(Header),
}

#[derive(Clone, Debug)]
enum Progress {
    Header { bytes: [u8; HEADER], read: usize },
    Payload { header: Header, payload: Vec<u8> },
    Skip { header: Header, left: usize },
}

impl Progress {
    const START: Self = Self::Header { bytes: [0; HEADER], read: 0 };
}

/// Puts messages together as bytes come, in any pieces. Takes memory for what has come, not for
/// what a header announces.
#[derive(Clone, Debug)]
pub struct Reader {
    progress: Progress,
    limit: usize,
}

impl Reader {
    /// A reader of messages of at most `limit` bytes of payload.
    pub fn new(limit: usize) -> Self {
        Self { progress: Progress::START, limit }
    }

    /// The next message that ends in `input`; `input` moves behind it. `None`: all of `input` was
    /// read.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        loop {
            match &mut self.progress {
                Progress::Header { bytes, read } => {
                    let piece = take(input, HEADER - *read);
                    bytes[*read..][..piece.len()].copy_from_slice(piece);
                    *read += piece.len();
                    if *read < HEADER {
                        return None;
                    }
                    let header = parse(*bytes);
                    self.progress = self.begin(header);
                }
                Progress::Payload { header, payload } => {
                    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                    payload.extend(take(input, length - payload.len()));
                    if payload.len() < length {
                        return None;
                    }
                    let message = Incoming::Message(*header, std::mem::take(payload));
                    self.progress = Progress::START;
                    return Some(message);
                }
                Progress::Skip { header, left } => {
                    *left -= take(input, *left).len();
                    if *left > 0 {
                        return None;
                    }
                    let skipped = Incoming::Oversized(*header);
                    self.progress = Progress::START;
                    return Some(skipped);
                }
            }
        }
    }

    fn begin(&self, header: Header) -> Progress {
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > self.limit {
            return Progress::Skip { header, left: length };
        }
        Progress::Payload { header, payload: Vec::with_capacity(length.min(EARLY)) }
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    piece
}

fn parse(bytes: [u8; HEADER]) -> Header {
    let word =
        |at: usize| bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    let kind = Kind::from_number(bytes[8]);
    Header { length: word(0), stream: word(4), kind, flags: bytes[9] }
}

/// A message with its header; `None` if the payload is larger than any receiver takes.
pub fn message(stream: u32, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > MAX_MESSAGE {
        return None;
    }
    let length = u32::try_from(payload.len()).ok()?;
    let mut message = Vec::with_capacity(HEADER + payload.len());
    message.extend(length.to_be_bytes());
    message.extend(stream.to_be_bytes());
    message.extend([kind.number(), 0]);
    message.extend(payload);
    Some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Request),
            Just(Kind::Response),
            Just(Kind::Data),
            (4..=255u8).prop_map(Kind::Other)
        ]
    }

    fn read(limit: usize, pieces: &[&[u8]]) -> Vec<Incoming> {
        let mut reader = Reader::new(limit);
        let mut read = Vec::new();
        for mut input in pieces.iter().copied() {
            while let Some(message) = reader.next(&mut input) {
                read.push(message);
            }
            assert!(input.is_empty());
        }
        read
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_messages(
            messages in prop::collection::vec(
                (any::<u32>(), kind(), prop::collection::vec(any::<u8>(), 0..600)), 0..6),
            limit in 0..800usize,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut wire = Vec::new();
            let mut want = Vec::new();
            for (stream, kind, payload) in messages {
                wire.extend(message(stream, kind, &payload).expect("it is small"));
                let length = u32::try_from(payload.len()).expect("it is small");
                let header = Header { length, stream, kind, flags: 0 };
                want.push(if payload.len() > limit {
                    Incoming::Oversized(header)
                } else {
                    Incoming::Message(header, payload)
                });
            }
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            places.extend([0, wire.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect();
            prop_assert_eq!(&read(limit, &pieces), &want);
            let bytes: Vec<&[u8]> = wire.chunks(1).collect();
            prop_assert_eq!(&read(limit, &bytes), &want);
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut reader = Reader::new(MAX_MESSAGE);
        let announced = [0, 0x40, 0, 0, 0, 0, 0, 1, 1, 0, b'x'];
        assert_eq!(reader.next(&mut &announced[..]), None);
        let Progress::Payload { payload, .. } = &reader.progress else {
            panic!("a message of exactly 4 MiB is allowed: {reader:?}")
        };
        assert!(payload.capacity() <= EARLY, "{} bytes", payload.capacity());

        let mut reader = Reader::new(MAX_MESSAGE);
        assert_eq!(reader.next(&mut &[0xff; 64][..]), None);
        assert!(matches!(reader.progress, Progress::Skip { left, .. } if left == 0xffff_ffff - 54));
    }

    #[test]
    fn what_no_receiver_takes_is_not_written() {
        assert_eq!(message(1, Kind::Request, &vec![0; MAX_MESSAGE + 1]), None);
        let written = message(3, Kind::Response, b"ab").expect("it is small");
        assert_eq!(written, [0, 0, 0, 2, 0, 0, 0, 3, 2, 0, b'a', b'b']);
    }
}
