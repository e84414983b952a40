//! How a plugin is connected.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use crate::runtime::REGISTRATION_TIMEOUT;
use crate::ttrpc;

/// Where runtimes listen for plugins unless they are told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";

/// Who the plugin is: its name, and its place among the plugins of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName {
    name: String,
    index: u8,
}

/// A name or index that runtimes refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name with a character that is not allowed, or an empty one.
    #[error("{0:?} cannot name a plugin: use one or more of a-z A-Z 0-9 - _ . +")]
    Name(String),
    /// An index with more than two digits.
    #[error("{0} cannot be a plugin's index: use 0 to 99")]
    Index(u8),
}

impl PluginName {
    /// A plugin `name`, called in the order of `index` (0 to 99): lower ones are asked first.
    pub fn new(name: impl Into<String>, index: u8) -> Result<Self, NameError> {
        let name = name.into();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if name.is_empty() || !name.chars().all(good) {
            return Err(NameError::Name(name));
        }
        if index > 99 {
            return Err(NameError::Index(index));
        }
        Ok(Self { name, index })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index as runtimes want it: two digits.
    pub fn index(&self) -> String {
        format!("{:02}", self.index)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{}", self.index, self.name)
    }
}

/// What is answered in a plugin's place when nine tenths of a request's time are gone.
///
/// A runtime that gets no answer closes the connection, goes on without the plugin, and later
/// synchronizes it again; so every choice but `Wait` keeps the plugin connected. `Configure` and
/// `Synchronize` always wait: an answer in the plugin's place would be a lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLate {
    /// Yes, with no change: what the runtime itself would do without the plugin.
    #[default]
    Accept,
    /// No, to what can be refused (pods, creation, start and change of containers); yes to the
    /// rest.
    Refuse,
    /// Nothing: the runtime decides, and closes the connection.
    Wait,
}

/// How a plugin is connected.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who the plugin is.
    pub plugin: PluginName,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// What is answered in a plugin's place when it is late.
    pub when_late: WhenLate,
    /// Bytes of a message at most. 4 MiB, as other implementations of ttrpc have it. Runtimes
    /// with NRI before 0.8 (containerd before 1.7.26) send what exists in one message of any
    /// size: on nodes with thousands of containers, more lets them synchronize.
    pub max_message: usize,
    /// How long the runtime may take to configure the plugin.
    pub registration_timeout: Duration,
    /// How long the runtime may take until it has told what exists. It waits for pods that are
    /// being made.
    pub synchronization_timeout: Duration,
    /// How long methods that still run when the connection ends may go on.
    pub drain: Duration,
    /// How the connection is made again.
    pub backoff: Backoff,
}

impl Options {
    /// The usual ones, at [`DEFAULT_SOCKET`].
    pub fn new(plugin: PluginName) -> Self {
        Self {
            plugin,
            socket: DEFAULT_SOCKET.into(),
            when_late: WhenLate::default(),
            max_message: ttrpc::MAX_MESSAGE,
            registration_timeout: REGISTRATION_TIMEOUT,
            synchronization_timeout: Duration::from_mins(1),
            drain: Duration::from_secs(2),
            backoff: Backoff::default(),
        }
    }
}

/// How long to wait before a connection is made again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait; each further one is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// After a connection that lasted this long, waits begin with the first again.
    pub healthy_after: Duration,
    /// Chooses a duration between zero and the given one: half of each wait is chosen by it, so
    /// that plugins that were cut off together do not come back together.
    pub jitter: fn(Duration) -> Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            healthy_after: Duration::from_secs(30),
            jitter: random_part,
        }
    }
}

impl Backoff {
    /// The wait after this many failures in a row (0 is the first).
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        let half = whole / 2;
        half + (self.jitter)(half).min(half)
    }
}

/// A duration between zero and the given one, from the standard library's random hash keys.
fn random_part(longest: Duration) -> Duration {
    let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    let random = RandomState::new().build_hasher().finish();
    Duration::from_nanos(random.checked_rem(nanoseconds.saturating_add(1)).unwrap_or(0))
}
