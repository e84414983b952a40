//! How the kubelet names the cgroups of pods, with either of its cgroup drivers.
//!
//! Guaranteed pods are directly below the root, others below the directory of their class:
//! `kubepods-pod<uid>.slice`, `kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice` with
//! systemd (which has '_' for '-' within a component), `pod<uid>`, `burstable/pod<uid>` without.

use std::fmt;

use super::PodUid;

/// What a pod asked for decides where its cgroup is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QosClass {
    /// Directly below the root.
    Guaranteed,
    /// One level deeper.
    Burstable,
    /// One level deeper.
    BestEffort,
}

impl QosClass {
    /// The classes that have a directory, with its name.
    const WITH_DIRECTORY: [(Self, &'static str); 2] =
        [(Self::Burstable, "burstable"), (Self::BestEffort, "besteffort")];

    /// The class whose directory, directly below the kubelet's root, has this name.
    fn of_directory(name: &str) -> Option<Self> {
        let last = match name.strip_suffix(".slice") {
            Some(slice) => slice.rsplit_once('-')?.1,
            None => name,
        };
        let mut classes = Self::WITH_DIRECTORY.into_iter();
        classes.find(|(_, class)| *class == last).map(|(class, _)| class)
    }
}

/// The cgroup of a pod, below the kubelet's root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodPath {
    relative: String,
    uid: PodUid,
    class: QosClass,
}

/// Why a path is no pod's cgroup.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PodPathError {
    /// It is elsewhere.
    #[error(
        "the pod's cgroup {path} is not below the kubelet's root {root}; if the kubelet has another \
         one, give it with --kubepods-root"
    )]
    Elsewhere {
        /// What the runtime told.
        path: String,
        /// Where we look.
        root: String,
    },
    /// It is not named as the kubelet names pods.
    #[error(
        "the cgroup {0} is not named as a kubelet names pods' cgroups; is the pod a kubelet's?"
    )]
    Unlike(String),
}

impl PodPath {
    /// From a path below the kubelet's root.
    pub fn from_relative(relative: &str) -> Result<Self, PodPathError> {
        let unlike = || PodPathError::Unlike(relative.to_owned());
        let (class, name) = match relative.split_once('/') {
            None => (QosClass::Guaranteed, relative),
            Some((directory, name)) => {
                (QosClass::of_directory(directory).ok_or_else(unlike)?, name)
            }
        };
        let uid = pod_directory(name).ok_or_else(unlike)?;
        Ok(Self { relative: relative.to_owned(), uid, class })
    }

    /// From what a runtime tells as the parent of a sandbox: an absolute path, or the name of a
    /// slice of systemd's. `root`: the kubelet's root below the mount of cgroup v2, as
    /// `kubepods.slice`.
    pub fn from_cgroup_parent(parent: &str, root: &str) -> Result<Self, PodPathError> {
        let last = parent.rsplit_once('/').map_or(parent, |(_, last)| last);
        // Of a slice, the last name says all.
        let path = match last.strip_suffix(".slice") {
            Some(_) => expand_slice(last),
            None => parent.trim_matches('/').to_owned(),
        };
        let root = root.trim_matches('/');
        let below = path.strip_prefix(root).and_then(|below| below.strip_prefix('/'));
        match below {
            Some(below) => Self::from_relative(below),
            None => Err(PodPathError::Elsewhere { path, root: root.to_owned() }),
        }
    }

    /// Below the kubelet's root.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// The pod's UID.
    pub const fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// Its class.
    pub const fn class(&self) -> QosClass {
        self.class
    }
}

impl fmt::Display for PodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.relative)
    }
}

/// The UID in the name of a pod's directory; `None`: it is no pod's.
pub fn pod_directory(name: &str) -> Option<PodUid> {
    let last = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once('-')?.1,
        None => name,
    };
    last.strip_prefix("pod")?.parse().ok()
}

/// Which of the names directly below the kubelet's root hold pods themselves: those of classes.
pub fn children_to_list<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.filter(|name| QosClass::of_directory(name).is_some()).collect()
}

/// Where systemd puts a slice: '-' nests, so `a-b.slice` is `a.slice/a-b.slice`.
pub fn expand_slice(name: &str) -> String {
    let Some(stem) = name.strip_suffix(".slice").filter(|stem| *stem != "-") else {
        return String::new();
    };
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let slices = ends.filter(|end| *end > 0).map(|end| format!("{}.slice", &stem[..end]));
    slices.collect::<Vec<_>>().join("/")
}
