//! Names and numbers of things, made once at the edge and valid after.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The name of a virtual cluster: a DNS label (RFC 1123), 1 to 63 characters of `a-z`, `0-9`
/// and `-`, beginning and ending with a letter or digit. So it can be a cgroup directory: it
/// holds no dot, slash or space and collides with no control file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VirtualClusterName(String);

/// Why a text is not the name of a virtual cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a virtual cluster's name is empty; give it 1 to 63 characters of a-z, 0-9 and '-'")]
    Empty,
    /// It is too long.
    #[error("virtual cluster name \"{name}\" has {length} characters; at most 63 are possible")]
    TooLong {
        /// Its first characters.
        name: String,
        /// Its length in characters.
        length: usize,
    },
    /// It has a character that a DNS label has not.
    #[error(
        "virtual cluster name \"{name}\" is no DNS label (RFC 1123); use a-z, 0-9 and '-', with a \
         letter or digit first and last"
    )]
    NotALabel {
        /// The name.
        name: String,
    },
}

impl VirtualClusterName {
    /// Longest name in characters.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VirtualClusterName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let length = name.chars().count();
        if length > Self::MAX_LEN {
            return Err(NameError::TooLong { name: name.chars().take(70).collect(), length });
        }
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
            return Err(NameError::NotALabel { name: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for VirtualClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number that the kernel tables know a virtual cluster by. Given by the controller, the
/// same on every node, never 0 and never reused for another name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VirtualClusterNumber(NonZeroU32);

impl VirtualClusterNumber {
    /// `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// As the kernel tables have it.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for VirtualClusterNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kernel's id of a cgroup: unique for as long as the machine is up, so a directory that is
/// removed and made again is another incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CgroupId(pub u64);

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names() {
        for name in ["a", "team-a", "0", &"x".repeat(63)] {
            assert_eq!(name.parse::<VirtualClusterName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!("".parse::<VirtualClusterName>(), Err(NameError::Empty));
        assert!(matches!(
            "x".repeat(64).parse::<VirtualClusterName>(),
            Err(NameError::TooLong { length: 64, .. })
        ));
        for name in ["..", "a/b", "a.b", "A", "-a", "a-", "ä", "a b", "a\0"] {
            let refused = Err(NameError::NotALabel { name: name.to_owned() });
            assert_eq!(name.parse::<VirtualClusterName>(), refused);
        }
    }
}
