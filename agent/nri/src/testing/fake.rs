use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::dispatch::{PLUGIN_SERVICE, RUNTIME_SERVICE};
use crate::event::EventMask;
use crate::messages::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, Empty, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest,
    UpdateContainersResponse,
};
use crate::mux::{self, Connection};
use crate::ttrpc::{self, Incoming, Kind, Request, Response, Status};

/// A runtime that does what a test says. Methods fail where a test could not go on: when the
/// plugin closed the connection (`UnexpectedEof`), or said what it should not (`InvalidData`).
#[derive(Debug)]
pub struct FakeRuntime<S> {
    stream: S,
    frames: mux::Reader,
    responses: ttrpc::Reader,
    requests: ttrpc::Reader,
    /// Stream of the next call.
    next: u32,
    answers: HashMap<u32, Result<Vec<u8>, Status>>,
    asked: VecDeque<(u32, Request)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FakeRuntime<S> {
    /// A runtime to which a plugin has just connected.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            frames: mux::Reader::new(ttrpc::MAX_MESSAGE),
            responses: ttrpc::Reader::new(ttrpc::MAX_MESSAGE),
            requests: ttrpc::Reader::new(ttrpc::MAX_MESSAGE),
            next: 1,
            answers: HashMap::new(),
            asked: VecDeque::new(),
        }
    }

    /// Takes the plugin's registration, configures it as `name` `version`, and tells it what
    /// exists. Returns what it subscribed to; fails with `InvalidInput` if the events were not
    /// among those that this runtime `knows`, where a real one would close the connection.
    pub async fn handshake(
        &mut self,
        (name, version): (&str, &str),
        knows: EventMask,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> io::Result<EventMask> {
        self.registration().await?;
        let configure = ConfigureRequest {
            runtime_name: name.to_owned(),
            runtime_version: version.to_owned(),
            ..ConfigureRequest::default()
        };
        let answer: ConfigureResponse = self.call("Configure", &configure).await?;
        let (events, unknown) = EventMask::from_wire(answer.events);
        let extra = events.without(knows);
        if unknown != 0 || !extra.is_empty() {
            let message = format!("the plugin wants {extra} and the bits {unknown:#x}");
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let exists = SynchronizeRequest { pods, containers, more: false };
        self.call::<_, SynchronizeResponse>("Synchronize", &exists).await?;
        Ok(if answer.events == 0 { knows } else { events })
    }

    /// Waits for the plugin's registration, and accepts it.
    pub async fn registration(&mut self) -> io::Result<RegisterPluginRequest> {
        let (stream, registration) = self.requested("RegisterPlugin").await?;
        self.reply(stream, Ok(Empty {}.encode_to_vec())).await?;
        Ok(registration)
    }

    /// Waits for a call of the plugin's, by its method; returns its stream.
    pub async fn requested<M: Message + Default>(&mut self, method: &str) -> io::Result<(u32, M)> {
        while self.asked.is_empty() {
            self.read().await?;
        }
        match self.asked.pop_front() {
            Some((stream, request))
                if request.service == RUNTIME_SERVICE && request.method == method =>
            {
                Ok((stream, M::decode(&*request.payload).map_err(invalid)?))
            }
            other => Err(invalid(format!("{method} was expected, not {other:?}"))),
        }
    }

    /// Waits for the plugin to ask for changes of containers; says which of them `failed`.
    pub async fn update_containers(
        &mut self,
        failed: Vec<ContainerUpdate>,
    ) -> io::Result<UpdateContainersRequest> {
        let (stream, request) = self.requested("UpdateContainers").await?;
        self.reply(stream, Ok(UpdateContainersResponse { failed }.encode_to_vec())).await?;
        Ok(request)
    }

    /// Answers a call of the plugin's.
    pub async fn reply(&mut self, stream: u32, reply: Result<Vec<u8>, Status>) -> io::Result<()> {
        let payload = Response::from(reply).encode_to_vec();
        self.write(Connection::Runtime, stream, Kind::Response, &payload).await
    }

    /// Calls the plugin and waits for its answer; a refusal is an error of the kind `Other`, with
    /// the [`Status`] in it.
    pub async fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &str,
        request: &Q,
    ) -> io::Result<A> {
        let stream = self.begin(method, request, Duration::ZERO).await?;
        match self.answer(stream).await? {
            Ok(payload) => A::decode(&*payload).map_err(invalid),
            Err(status) => Err(io::Error::other(Refused(status))),
        }
    }

    /// Calls the plugin; returns the call's stream. A `timeout` of zero is not told.
    pub async fn begin<Q: Message>(
        &mut self,
        method: &str,
        request: &Q,
        timeout: Duration,
    ) -> io::Result<u32> {
        let request = Request {
            service: PLUGIN_SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(timeout.as_nanos()).map_err(invalid)?,
        };
        let stream = self.next;
        self.next += 2;
        let payload = request.encode_to_vec();
        self.write(Connection::Plugin, stream, Kind::Request, &payload).await?;
        Ok(stream)
    }

    /// Waits for the answer to a call.
    pub async fn answer(&mut self, stream: u32) -> io::Result<Result<Vec<u8>, Status>> {
        loop {
            if let Some(answer) = self.answers.remove(&stream) {
                return Ok(answer);
            }
            self.read().await?;
        }
    }

    /// Sends a message as it is.
    pub async fn write(
        &mut self,
        connection: Connection,
        stream: u32,
        kind: Kind,
        payload: &[u8],
    ) -> io::Result<()> {
        let message = ttrpc::message(stream, kind, payload);
        let message = message.ok_or_else(|| invalid("the message is too large"))?;
        let mut wire = Vec::new();
        mux::write(connection, &message, &mut wire);
        self.raw(&wire).await
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits for the plugin to close the connection.
    pub async fn closed(&mut self) -> io::Result<()> {
        loop {
            match self.read().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = &buffer[..length];
        while let Some((connection, mut piece)) = self.frames.next(&mut bytes).map_err(invalid)? {
            let reader = match connection {
                Connection::Plugin => &mut self.responses,
                Connection::Runtime => &mut self.requests,
            };
            while let Some(incoming) = reader.next(&mut piece) {
                let Incoming::Message(header, payload) = incoming else {
                    return Err(invalid(format!("{incoming:?}")));
                };
                match (connection, header.kind) {
                    (Connection::Plugin, Kind::Response) => {
                        let answer = Response::decode(&*payload).map_err(invalid)?.into();
                        self.answers.insert(header.stream, answer);
                    }
                    (Connection::Runtime, Kind::Request) => {
                        let request = Request::decode(&*payload).map_err(invalid)?;
                        self.asked.push_back((header.stream, request));
                    }
                    _ => return Err(invalid(format!("{header:?}"))),
                }
            }
        }
        Ok(())
    }
}

/// What a plugin's refusal is to a test.
#[derive(Debug, thiserror::Error)]
#[error("the plugin refused: {0}")]
struct Refused(Status);

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
