//! The kinds of node that the lab has.

use std::fmt;

/// A kind of node: its kernel, and what runs on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, clap::ValueEnum)]
pub(crate) enum Guest {
    /// Debian 12's kernel, 6.1, and nothing else: a busybox, an init of our own, no systemd.
    #[value(name = "6.1")]
    Oldest,
    /// Debian 13: kernel 6.12, systemd.
    #[value(name = "6.12")]
    Usual,
    /// Debian's next, which changes daily: kernel 7, systemd.
    #[value(name = "7")]
    Newest,
}

impl Guest {
    /// The Debian suite that it is made of.
    pub(super) fn suite(self) -> &'static str {
        match self {
            Self::Oldest => "bookworm",
            Self::Usual => "trixie",
            Self::Newest => "forky",
        }
    }
}

/// "6.12"
impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oldest => "6.1",
            Self::Usual => "6.12",
            Self::Newest => "7",
        })
    }
}
