//! The protocol without its meaning: bytes in, calls out; answers in, bytes out. No I/O.

use prost::Message;
use tracing::debug;

use crate::mux::{self, Connection, MuxError};
use crate::ttrpc::{self, Code, Header, Incoming, Kind, Request, Response, Status};

/// What came from the runtime.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The runtime calls.
    Request { stream: u32, request: Request },
    /// The runtime answers a call of ours.
    Response { stream: u32, response: Result<Vec<u8>, Status> },
}

#[derive(Debug)]
pub(crate) struct Link {
    frames: mux::Reader,
    requests: ttrpc::Reader,
    responses: ttrpc::Reader,
    limit: usize,
    /// Stream of the runtime's latest call.
    latest: u32,
    /// Stream of our next call.
    next: u32,
    outgoing: Vec<u8>,
}

impl Link {
    pub(crate) fn new(max_message: usize) -> Self {
        Self {
            frames: mux::Reader::new(max_message),
            requests: ttrpc::Reader::new(max_message),
            responses: ttrpc::Reader::new(max_message),
            limit: max_message,
            latest: 0,
            next: 1,
            outgoing: Vec::new(),
        }
    }

    /// Reads `bytes`; what cannot be a call is answered here.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<Heard>, MuxError> {
        let mut heard = Vec::new();
        while let Some((connection, mut piece)) = self.frames.next(&mut bytes)? {
            match connection {
                Connection::Plugin => {
                    while let Some(incoming) = self.requests.next(&mut piece) {
                        heard.extend(self.request(&incoming));
                    }
                }
                Connection::Runtime => {
                    while let Some(incoming) = self.responses.next(&mut piece) {
                        heard.extend(response(incoming, self.limit));
                    }
                }
            }
        }
        Ok(heard)
    }

    fn request(&mut self, incoming: &Incoming) -> Option<Heard> {
        let (Incoming::Message(header, _) | Incoming::Oversized(header)) = incoming;
        let stream = header.stream;
        let refused = match (incoming, header.kind) {
            (_, Kind::Response | Kind::Other(_)) => {
                debug!(?header, "ignored what no caller sends");
                return None;
            }
            _ if stream % 2 == 0 => Err((Code::INVALID_ARGUMENT, "a caller's streams are odd")),
            (_, Kind::Data) => Err((Code::INVALID_ARGUMENT, "there is no such stream")),
            _ if stream <= self.latest => {
                Err((Code::INVALID_ARGUMENT, "a stream's number is higher than all before it"))
            }
            (Incoming::Message(header, payload), Kind::Request) => {
                self.latest = stream;
                decode(*header, payload)
            }
            (Incoming::Oversized(_), Kind::Request) => {
                self.latest = stream;
                Err((Code::RESOURCE_EXHAUSTED, "the message is larger than the plugin takes"))
            }
        };
        match refused {
            Ok(request) => Some(Heard::Request { stream, request }),
            Err((code, reason)) => {
                debug!(?header, reason, "refused a message");
                self.answer(stream, Err(Status::new(code, reason)));
                None
            }
        }
    }

    /// Answers a call of the runtime's.
    pub(crate) fn answer(&mut self, stream: u32, answer: Result<Vec<u8>, Status>) {
        let payload = Response::from(answer).encode_to_vec();
        let message = ttrpc::message(stream, Kind::Response, &payload).unwrap_or_else(|| {
            let reason = format!("the answer would take {} bytes", payload.len());
            let status = Status::new(Code::RESOURCE_EXHAUSTED, reason);
            let payload = Response::from(Err(status)).encode_to_vec();
            ttrpc::message(stream, Kind::Response, &payload).unwrap_or_default()
        });
        mux::write(Connection::Plugin, &message, &mut self.outgoing);
    }

    /// Calls the runtime; returns the call's stream, or the request's length if it is too large.
    pub(crate) fn call(&mut self, request: &Request) -> Result<u32, usize> {
        let payload = request.encode_to_vec();
        let message = ttrpc::message(self.next, Kind::Request, &payload).ok_or(payload.len())?;
        mux::write(Connection::Runtime, &message, &mut self.outgoing);
        let stream = self.next;
        self.next = self.next.wrapping_add(2);
        Ok(stream)
    }

    /// Bytes to send.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// The first bytes of [`Self::outgoing`] were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outgoing.drain(..count);
    }

    /// Nothing can be sent any more.
    pub(crate) fn mute(&mut self) {
        self.outgoing.clear();
    }
}

fn decode(header: Header, payload: &[u8]) -> Result<Request, (Code, &'static str)> {
    if header.flags & ttrpc::REMOTE_OPEN != 0 {
        return Err((Code::UNIMPLEMENTED, "calls with streams are not supported"));
    }
    Request::decode(payload).map_err(|_| (Code::INVALID_ARGUMENT, "the request cannot be read"))
}

fn response(incoming: Incoming, limit: usize) -> Option<Heard> {
    match incoming {
        Incoming::Message(header, payload) if header.kind == Kind::Response => {
            let response = match Response::decode(&*payload) {
                Ok(response) => response.into(),
                Err(error) => Err(Status::new(Code::INTERNAL, error.to_string())),
            };
            Some(Heard::Response { stream: header.stream, response })
        }
        Incoming::Oversized(header) if header.kind == Kind::Response => {
            let reason = format!("the answer takes {} bytes, more than {limit}", header.length);
            let response = Err(Status::new(Code::RESOURCE_EXHAUSTED, reason));
            Some(Heard::Response { stream: header.stream, response })
        }
        Incoming::Message(header, _) | Incoming::Oversized(header) => {
            debug!(?header, "ignored what no callee sends");
            None
        }
    }
}
