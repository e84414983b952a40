//! What one connection is about: who calls whom, what runs, what is late. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::dispatch::{self, Call, RUNTIME_SERVICE, Told};
use crate::end::{End, Stage};
use crate::event::{Event, EventMask};
use crate::link::{Heard, Link};
use crate::messages::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest,
    UpdateContainersResponse,
};
use crate::mux::MuxError;
use crate::options::{Options, WhenLate};
use crate::pending::Pending;
use crate::plugin::{Plugin, Refusal};
use crate::runtime::{CallError, REQUEST_TIMEOUT, Runtime, RuntimeInfo, UpdateCall};
use crate::state::State;
use crate::ttrpc::{self, Code, Request, Status};

/// Requests that are worked on at once, at most; further ones wait in the socket.
const RUNNING: usize = 64;
/// Bytes that wait to be sent before no more requests are read.
const WAITING: usize = 1 << 20;
/// What exists is told in at most this many times the largest message.
const PIECES: usize = 64;

/// What a method of the plugin led to.
pub(crate) enum Outcome {
    Configured(Result<EventMask, Refusal>),
    Synchronized(Vec<ContainerUpdate>),
    Answered(Result<Vec<u8>, Status>),
}

/// What exists, as far as the runtime has told it.
#[derive(Default)]
struct Pieces {
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    bytes: usize,
}

pub(crate) struct Session<'a, P> {
    plugin: &'a Arc<P>,
    options: &'a Options,
    state: &'a watch::Sender<State>,
    /// What may be asked for, whatever the plugin wants.
    allowed: EventMask,
    link: Link,
    stage: Stage,
    /// Until when the runtime must have gone on with the registration, and how long it had.
    stage_ends: (Instant, Duration),
    /// Stream of the registration.
    registration: u32,
    runtime: Option<Arc<RuntimeInfo>>,
    events: EventMask,
    pieces: Pieces,
    told_what_exists: bool,
    running: JoinSet<Outcome>,
    streams: HashMap<Id, u32>,
    pending: BTreeMap<u32, Pending>,
    calls: mpsc::Sender<UpdateCall>,
    waiting: HashMap<u32, oneshot::Sender<Result<Vec<ContainerUpdate>, CallError>>>,
    closing: Option<End>,
}

impl<'a, P: Plugin> Session<'a, P> {
    /// A session that has begun to register.
    pub(crate) fn new(
        plugin: &'a Arc<P>,
        options: &'a Options,
        allowed: EventMask,
        state: &'a watch::Sender<State>,
        calls: mpsc::Sender<UpdateCall>,
    ) -> Self {
        let mut link = Link::new(options.max_message);
        let timeout = options.registration_timeout;
        let register = RegisterPluginRequest {
            plugin_name: options.plugin.name().to_owned(),
            plugin_idx: options.plugin.index(),
            // There is no Go module in here whose version could be told.
            nri_version: String::new(),
        };
        let request = to_runtime("RegisterPlugin", register.encode_to_vec(), timeout);
        // A name has no megabytes, so the request is small enough.
        let registration = link.call(&request).unwrap_or_default();
        Self {
            plugin,
            options,
            state,
            allowed,
            link,
            stage: Stage::Registering,
            stage_ends: (Instant::now() + timeout, timeout),
            registration,
            runtime: None,
            events: EventMask::NONE,
            pieces: Pieces::default(),
            told_what_exists: false,
            running: JoinSet::new(),
            streams: HashMap::new(),
            pending: BTreeMap::new(),
            calls,
            waiting: HashMap::new(),
            closing: None,
        }
    }

    /// Bytes to send.
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.link.outgoing()
    }

    /// Bytes to send, and the plugin's methods that run.
    pub(crate) fn parts(&mut self) -> (&[u8], &mut JoinSet<Outcome>) {
        (self.link.outgoing(), &mut self.running)
    }

    /// The first bytes to send were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.link.sent(count);
    }

    /// The runtime reads no more.
    pub(crate) fn mute(&mut self) {
        self.link.mute();
    }

    /// Whether more can be read now.
    pub(crate) fn wants_input(&self) -> bool {
        self.closing.is_none()
            && self.running.len() < RUNNING
            && self.link.outgoing().len() < WAITING
    }

    /// Why the session ends as soon as its answers are sent, if it does.
    pub(crate) fn closing(&self) -> Option<&End> {
        self.closing.as_ref()
    }

    pub(crate) fn close(&mut self, end: End) {
        self.closing.get_or_insert(end);
    }

    pub(crate) fn into_end(self) -> End {
        self.closing.unwrap_or(End::Stopped)
    }

    /// The runtime closed the connection.
    pub(crate) fn closed(&mut self) {
        let late = self.pending.values().find(|it| it.in_vain()).map(|it| it.method);
        let refused = self.stage == Stage::Synchronizing && !self.told_what_exists;
        self.close(match late {
            None if refused => End::SubscriptionRefused { events: self.events },
            late => End::ClosedByRuntime { late },
        });
    }

    /// Bytes came.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), MuxError> {
        for heard in self.link.receive(bytes)? {
            match heard {
                Heard::Request { stream, request } => self.request(stream, &request),
                Heard::Response { stream, response } => self.response(stream, response),
            }
        }
        Ok(())
    }

    fn request(&mut self, stream: u32, request: &Request) {
        let length = request.payload.len();
        match dispatch::call(request) {
            Err(status) => {
                warn!(method = request.method, %status, "a request that cannot be answered");
                self.link.answer(stream, Err(status));
            }
            Ok(Call::Unknown) => self.link.answer(stream, Ok(Vec::new())),
            Ok(Call::Shutdown) => {
                self.link.answer(stream, Ok(Vec::new()));
                self.close(End::Shutdown);
            }
            Ok(Call::Configure(configure)) => self.configure(stream, request, configure),
            Ok(Call::Synchronize(what)) => self.synchronize(stream, request, length, what),
            Ok(Call::Told(told)) => self.told(stream, request, *told),
        }
    }

    fn configure(&mut self, stream: u32, request: &Request, configure: ConfigureRequest) {
        let runtime = Arc::new(RuntimeInfo::from(configure));
        info!(runtime = runtime.name, version = runtime.version, "the runtime introduced itself");
        self.runtime = Some(Arc::clone(&runtime));
        let (plugin, handle) = (Arc::clone(self.plugin), Runtime { calls: self.calls.clone() });
        self.run(stream, request, "Configure", None, async move {
            let configured = plugin.configure(&runtime, handle).await;
            Outcome::Configured(configured.map(|()| plugin.events(&runtime)))
        });
    }

    fn synchronize(
        &mut self,
        stream: u32,
        request: &Request,
        length: usize,
        what: SynchronizeRequest,
    ) {
        if self.runtime.is_none() {
            let status = Status::new(Code::FAILED_PRECONDITION, "Configure comes first");
            return self.link.answer(stream, Err(status));
        }
        self.told_what_exists = true;
        self.pieces.bytes = self.pieces.bytes.saturating_add(length);
        if self.pieces.bytes > self.options.max_message.saturating_mul(PIECES) {
            self.pieces = Pieces::default();
            let status = Status::new(Code::RESOURCE_EXHAUSTED, "too many pods and containers");
            return self.link.answer(stream, Err(status));
        }
        self.pieces.pods.extend(what.pods);
        self.pieces.containers.extend(what.containers);
        if what.more {
            let response = SynchronizeResponse { update: Vec::new(), more: true };
            return self.link.answer(stream, Ok(response.encode_to_vec()));
        }
        let Pieces { pods, containers, .. } = std::mem::take(&mut self.pieces);
        let plugin = Arc::clone(self.plugin);
        self.run(stream, request, "Synchronize", None, async move {
            Outcome::Synchronized(plugin.synchronize(pods, containers).await)
        });
    }

    fn told(&mut self, stream: u32, request: &Request, told: Told) {
        let event = told.event();
        if !self.events.contains(event) {
            // Also the way to subscribe to nothing: see `configured`.
            return self.link.answer(stream, Ok(Vec::new()));
        }
        let plugin = Arc::clone(self.plugin);
        self.run(stream, request, event.name(), Some(event), async move {
            Outcome::Answered(dispatch::tell(&*plugin, told).await)
        });
    }

    fn run(
        &mut self,
        stream: u32,
        request: &Request,
        method: &'static str,
        event: Option<Event>,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let told = u64::try_from(request.timeout_nano).unwrap_or(0);
        let configured = self.runtime.as_ref().map_or(REQUEST_TIMEOUT, |it| it.request_timeout);
        let allowed = if told > 0 { Duration::from_nanos(told) } else { configured };
        let received = Instant::now();
        self.pending.insert(stream, Pending { method, event, received, allowed, answered: false });
        let task = self.running.spawn(work);
        self.streams.insert(task.id(), stream);
    }

    /// A method of the plugin came to its end.
    pub(crate) fn finished(&mut self, finished: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match finished {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => {
                error!(%error, "the plugin failed while it was told something");
                let status = Status::new(Code::INTERNAL, "the plugin failed");
                (error.id(), Outcome::Answered(Err(status)))
            }
        };
        let Some(stream) = self.streams.remove(&id) else { return };
        let Some(pending) = self.pending.remove(&stream) else { return };
        if let Some(took) = pending.too_long() {
            let Pending { method, allowed, answered, .. } = pending;
            warn!(method, ?took, ?allowed, answered, "the plugin was slower than it should be");
        }
        match outcome {
            Outcome::Configured(wanted) => self.configured(stream, wanted),
            Outcome::Synchronized(update) => self.synchronized(stream, update),
            Outcome::Answered(answer) if !pending.answered => self.link.answer(stream, answer),
            Outcome::Answered(_) => {}
        }
    }

    fn configured(&mut self, stream: u32, wanted: Result<EventMask, Refusal>) {
        let Some(runtime) = &self.runtime else { return };
        match wanted {
            Err(refusal) => {
                self.link.answer(stream, Err(refusal.clone().into()));
                self.close(End::ConfigurationRefused(refusal));
            }
            Ok(wanted) => {
                self.events =
                    wanted.intersection(runtime.known_events()).intersection(self.allowed);
                let missing = wanted.without(self.events);
                if !missing.is_empty() {
                    info!(%missing, "events that this runtime does not know are left out");
                }
                // Nothing would mean everything; the removal of pods is the least that there is.
                let least = EventMask::from(Event::RemovePodSandbox);
                let asked = if self.events.is_empty() { least } else { self.events };
                let response = ConfigureResponse { events: asked.to_wire() };
                self.link.answer(stream, Ok(response.encode_to_vec()));
                self.enter(Stage::Synchronizing, self.options.synchronization_timeout);
            }
        }
    }

    fn synchronized(&mut self, stream: u32, update: Vec<ContainerUpdate>) {
        let response = SynchronizeResponse { update, more: false };
        self.link.answer(stream, Ok(response.encode_to_vec()));
        let Some(runtime) = &self.runtime else { return };
        if self.stage < Stage::Serving && self.closing.is_none() {
            let (runtime, events) = (Arc::clone(runtime), self.events);
            info!(%events, "connected to the runtime");
            let since = SystemTime::now();
            self.state.send_replace(State::Connected { runtime, events, since });
            self.stage = Stage::Serving;
        }
    }

    fn enter(&mut self, stage: Stage, timeout: Duration) {
        self.stage = stage;
        self.stage_ends = (Instant::now() + timeout, timeout);
    }

    fn response(&mut self, stream: u32, response: Result<Vec<u8>, Status>) {
        if stream == self.registration {
            if let Err(status) = response {
                self.close(End::RegistrationRefused(status));
            }
            return;
        }
        let Some(caller) = self.waiting.remove(&stream) else { return };
        let failed = response.map_err(CallError::Refused).and_then(|payload| {
            Ok(UpdateContainersResponse::decode(&*payload).map_err(CallError::Unreadable)?.failed)
        });
        // A caller that went away does not want to know.
        let _ = caller.send(failed);
    }

    /// The plugin calls the runtime.
    pub(crate) fn update_containers(&mut self, call: UpdateCall) {
        let UpdateCall { update, evict, answer } = call;
        let payload = UpdateContainersRequest { update, evict }.encode_to_vec();
        match self.link.call(&to_runtime("UpdateContainers", payload, Duration::ZERO)) {
            Ok(stream) => drop(self.waiting.insert(stream, answer)),
            Err(length) => {
                let limit = ttrpc::MAX_MESSAGE;
                let _ = answer.send(Err(CallError::TooLarge { length, limit }));
            }
        }
    }

    /// When [`Self::late`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let when_late = self.options.when_late;
        let answers = self.pending.values().filter_map(|pending| pending.answer_by(when_late));
        let stage =
            (self.stage < Stage::Serving && self.closing.is_none()).then_some(self.stage_ends.0);
        answers.chain(stage).min()
    }

    /// Answers in the plugin's place what is late, gives up on a runtime that is.
    pub(crate) fn late(&mut self) {
        let (now, when_late) = (Instant::now(), self.options.when_late);
        for (stream, pending) in &mut self.pending {
            let Some(event) = pending.event else { continue };
            if pending.answer_by(when_late).is_some_and(|by| by <= now) {
                pending.answered = true;
                warn!(%event, allowed = ?pending.allowed, ?when_late, "answered in the plugin's place");
                let refusal = match when_late {
                    WhenLate::Refuse => dispatch::late_refusal(event),
                    WhenLate::Accept | WhenLate::Wait => None,
                };
                self.link.answer(*stream, refusal.unwrap_or(Ok(Vec::new())));
            }
        }
        let (ends, after) = self.stage_ends;
        if self.stage < Stage::Serving && ends <= now {
            self.close(End::RegistrationTimedOut { stage: self.stage, after });
        }
    }
}

fn to_runtime(method: &str, payload: Vec<u8>, timeout: Duration) -> Request {
    Request {
        service: RUNTIME_SERVICE.to_owned(),
        method: method.to_owned(),
        payload,
        timeout_nano: i64::try_from(timeout.as_nanos()).unwrap_or(0),
    }
}
