//! Why a packet or call is not judged by the tables.

/// A packet or call that has no verdict from [`bulkhead_abi::decide`].
#[derive(Clone, Copy)]
pub(crate) enum Unjudged {
    /// The agent has not filled the tables yet.
    NotReady,
    /// Its cgroup is not below a virtual cluster: a socket of the root itself, of nobody at all, or
    /// of somebody who is left alone.
    NotBelow,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// Its cgroup is below the root, but no virtual cluster that we know: a new one, or one that
    /// was removed while processes lived on.
    UnknownCgroup,
    /// Too short for the addresses of its own header.
    TooShort,
}
