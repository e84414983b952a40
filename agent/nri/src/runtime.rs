//! The runtime at the other end.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::event::EventMask;
use crate::messages::{ConfigureRequest, ContainerEviction, ContainerUpdate};
use crate::ttrpc::Status;

/// What a runtime tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Its name: `containerd`, `cri-o`.
    pub name: String,
    /// Its version, as it writes it: `1.7.24~ds1`, `v2.1.9`.
    pub version: String,
    /// Version of NRI, where the runtime tells it.
    pub nri_version: Option<String>,
    /// The plugin's configuration from the runtime's side; only plugins that the runtime starts
    /// itself have one.
    pub config: String,
    /// How long a request may take; 2 s where the runtime does not tell.
    pub request_timeout: Duration,
    /// How long a registration may take; 5 s where the runtime does not tell.
    pub registration_timeout: Duration,
}

/// What runtimes use that do not tell, and that are not configured otherwise.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

impl RuntimeInfo {
    /// The events that this runtime knows, from its versions. A runtime of which too little is
    /// known gets [`EventMask::BASE`], which every runtime knows.
    pub fn known_events(&self) -> EventMask {
        if let Some(nri) = self.nri_version.as_deref().and_then(release) {
            return if nri >= (0, 10) { EventMask::ALL } else { EventMask::BASE };
        }
        // The first releases that were built with NRI 0.10.
        let first = match &*self.name {
            "containerd" => (2, 2),
            "cri-o" | "crio" | "CRI-O" => (1, 34),
            _ => return EventMask::BASE,
        };
        match release(&self.version) {
            Some(version) if version >= first => EventMask::ALL,
            _ => EventMask::BASE,
        }
    }
}

impl From<ConfigureRequest> for RuntimeInfo {
    fn from(request: ConfigureRequest) -> Self {
        let timeout = |milliseconds: i64, otherwise: Duration| match u64::try_from(milliseconds) {
            Ok(told) if told > 0 => Duration::from_millis(told),
            _ => otherwise,
        };
        Self {
            request_timeout: timeout(request.request_timeout, REQUEST_TIMEOUT),
            registration_timeout: timeout(request.registration_timeout, REGISTRATION_TIMEOUT),
            name: request.runtime_name,
            version: request.runtime_version,
            nri_version: (!request.nri_version.is_empty()).then_some(request.nri_version),
            config: request.config,
        }
    }
}

/// Major and minor number of a version such as `v1.7.24~ds1`, `2.2.0-rc.1`, `0.10`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..end].parse().ok()?))
}

/// The way to ask the runtime for something. It works as long as the connection that it came with.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub(crate) calls: mpsc::Sender<UpdateCall>,
}

/// One call of [`Runtime::update_containers`] on its way to the connection.
#[derive(Debug)]
pub(crate) struct UpdateCall {
    pub(crate) update: Vec<ContainerUpdate>,
    pub(crate) evict: Vec<ContainerEviction>,
    pub(crate) answer: oneshot::Sender<Result<Vec<ContainerUpdate>, CallError>>,
}

/// Why a call to the runtime failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection ended before an answer came.
    #[error(
        "the connection to the runtime ended before it answered UpdateContainers; \
         ask again when it is back"
    )]
    Disconnected,
    /// The runtime answered with an error.
    #[error("the runtime refused UpdateContainers: {0}")]
    Refused(Status),
    /// The request is larger than a message can be.
    #[error("UpdateContainers would take {length} bytes, more than {limit}: ask for less at once")]
    TooLarge {
        /// Bytes of the request.
        length: usize,
        /// Bytes at most.
        limit: usize,
    },
    /// The runtime's answer is no message.
    #[error("the runtime's answer to UpdateContainers cannot be read: {0}")]
    Unreadable(#[from] prost::DecodeError),
}

impl Runtime {
    /// Asks the runtime to change containers, outside of any request of its own. Returns the
    /// changes that failed.
    ///
    /// **Never wait for this in a method of [`Plugin`](crate::Plugin):** the runtime holds one
    /// lock while it waits for plugins, and this call wants the same one. Runtimes up to the
    /// newest (NRI 0.12) do not act on `evict` here; there an eviction can only be asked for in
    /// the answer to a request.
    pub async fn update_containers(
        &self,
        update: Vec<ContainerUpdate>,
        evict: Vec<ContainerEviction>,
    ) -> Result<Vec<ContainerUpdate>, CallError> {
        let (answer, answered) = oneshot::channel();
        let call = UpdateCall { update, evict, answer };
        self.calls.send(call).await.map_err(|_| CallError::Disconnected)?;
        answered.await.map_err(|_| CallError::Disconnected)?
    }
}
