//! Features and answers.

use std::fmt;
use std::io;

use nix::errno::Errno;

use super::scene::Scene;

/// Something that a kernel can do or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// What part of the kernel it is of.
    pub group: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What we do with it.
    pub used: &'static str,
    /// What we do where it is absent.
    pub fallback: &'static str,
    /// What came of trying it.
    pub answer: Answer,
}

/// What came of trying a feature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It works.
    Present,
    /// The kernel lacks it; with what it said.
    Absent(String),
    /// It could not be tried on this machine, and why not.
    Unseen(String),
}

impl Answer {
    /// "present", "absent" or "unseen"
    pub fn word(&self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent(_) => "absent",
            Self::Unseen(_) => "unseen",
        }
    }

    /// Why not; `None` where it is present.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Present => None,
            Self::Absent(why) | Self::Unseen(why) => Some(why),
        }
    }
}

/// "present", or "absent: why"
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why() {
            None => f.write_str(self.word()),
            Some(why) => write!(f, "{}: {why}", self.word()),
        }
    }
}

/// A refusal for want of permission says nothing about the kernel.
impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        let Some(number) = error.raw_os_error() else {
            return Self::Absent(error.to_string());
        };
        let errno = Errno::from_raw(number);
        match errno {
            Errno::EPERM | Errno::EACCES => {
                Self::Unseen(format!("this machine refuses it: {errno:?}"))
            }
            // The kernel's own ENOTSUPP, which no header for programs names.
            Errno::UnknownErrno => Self::Absent(format!("errno {number}")),
            errno => Self::Absent(format!("{errno:?}")),
        }
    }
}

impl<T> From<io::Result<T>> for Answer {
    fn from(tried: io::Result<T>) -> Self {
        tried.map_or_else(Self::from, |_| Self::Present)
    }
}

/// A feature and how it is tried: name, use, fallback, trial.
pub(super) type Row = (&'static str, &'static str, &'static str, fn(&Scene) -> Answer);

/// Tries a group of features; without a place each is unseen.
pub(super) fn answered(
    features: &mut Vec<Feature>,
    group: &'static str,
    rows: &[Row],
    scene: &Result<&Scene, String>,
) {
    features.extend(rows.iter().map(|&(name, used, fallback, trial)| {
        let answer = match scene {
            Ok(scene) => trial(scene),
            Err(why) => Answer::Unseen(why.clone()),
        };
        Feature { group, name, used, fallback, answer }
    }));
}
