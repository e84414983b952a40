//! Attaching: every program once, at the root of the hierarchy, by a pinned link that outlives
//! the agent. A program that is attached already is replaced in its place, so that no packet
//! goes unjudged and none is counted twice.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bulkhead_abi::programs;

use super::error::BpfError;
use super::pins;
use super::sys::{self, CgroupLink};

/// Each program and its `enum bpf_attach_type`.
pub(super) const ATTACH_TYPES: [(&str, u32); programs::ALL.len()] = [
    (programs::EGRESS, 1),
    (programs::INGRESS, 0),
    (programs::CONNECT4, 10),
    (programs::CONNECT6, 11),
    (programs::SENDMSG4, 14),
    (programs::SENDMSG6, 15),
];

/// A loaded program, to be attached.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) name: &'static str,
    pub(super) attach_type: u32,
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
}

/// The root of the hierarchy.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) id: u64,
}

/// What was done to attach every program.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attached {
    /// Programs that were attached anew.
    pub attached: Vec<&'static str>,
    /// Programs that took the place of an older one without a gap.
    pub replaced: Vec<&'static str>,
    /// Programs that were in place.
    pub kept: Vec<&'static str>,
}

/// How a program's link stands.
enum Standing {
    /// Nothing is pinned.
    Absent,
    /// Attached to our root.
    Ours { link: OwnedFd, program_id: u32, pinned_at: PathBuf },
    /// Attached elsewhere, or to a cgroup that is gone.
    Elsewhere { link: OwnedFd },
}

/// How to undo one step.
enum Undo {
    /// Detach what is new.
    Detach { path: PathBuf, link: OwnedFd },
    /// Detach what is new, and pin what was there.
    Repin { path: PathBuf, link: OwnedFd, old: OwnedFd },
    /// Give a link its program back.
    GiveBack { path: PathBuf, link: OwnedFd, program: OwnedFd, pinned_at: PathBuf },
}

/// Attaches what is not attached; after an error the links stand as before. Links that an agent
/// of another version has pinned in `others` go on with our programs, one by one: each judges by
/// its old program and tables or by its new ones, and never by none.
pub(super) fn attach_all(
    dir: &Path,
    others: &[PathBuf],
    root: &Root,
    loaded: &[Loaded],
) -> Result<Attached, BpfError> {
    // Look at everything before anything is touched.
    let standings = loaded
        .iter()
        .map(|program| Ok((program, standing_anywhere(dir, others, root, program)?)))
        .collect::<Result<Vec<_>, BpfError>>()?;

    let mut done = Attached::default();
    let mut undo = Vec::new();
    for (program, standing) in standings {
        let path = dir.join(program.name);
        let step = match standing {
            Standing::Ours { program_id, pinned_at, .. }
                if program_id == program.id && pinned_at == path =>
            {
                done.kept.push(program.name);
                continue;
            }
            Standing::Ours { link, program_id, pinned_at } => {
                done.replaced.push(program.name);
                replace((pinned_at, path), link, program_id, program)
            }
            Standing::Absent => {
                done.attached.push(program.name);
                attach(&path, root, program, None)
            }
            Standing::Elsewhere { link } => {
                done.attached.push(program.name);
                attach(&path, root, program, Some(link))
            }
        };
        match step {
            Ok(step) => undo.push(step),
            Err(error) => {
                take_back(undo);
                return Err(error);
            }
        }
    }
    undo.iter().for_each(end_replaced);
    Ok(done)
}

/// Whether a program of ours is what its pinned link runs on our root, as the kernel has it now.
pub(super) fn is_attached(dir: &Path, root: &Root, program: &Loaded) -> Result<bool, BpfError> {
    let standing = standing(&dir.join(program.name), root, program)?;
    Ok(matches!(standing, Standing::Ours { program_id, .. } if program_id == program.id))
}

/// Whether a link is there and attached to the root, whatever version of the program it has.
pub(super) fn is_linked(
    dir: &Path,
    others: &[PathBuf],
    root: &Root,
    program: &Loaded,
) -> Result<bool, BpfError> {
    let standing = standing_anywhere(dir, others, root, program)?;
    Ok(matches!(standing, Standing::Ours { .. }))
}

/// Whether anything that is pinned in that directory is attached to the root. What cannot be
/// asked is taken for attached: nothing of it ends then.
pub(super) fn any_linked(dir: &Path, root: &Root) -> bool {
    let links = pins::existing_children(dir).unwrap_or_default();
    links.iter().any(|path| {
        let link = sys::open_link(path);
        let asked = link.and_then(|link| sys::cgroup_link(link.as_fd()));
        asked.map_or(true, |info| info.is_some_and(|info| info.cgroup_id == root.id))
    })
}

/// How a program's link stands: ours, or where we have none, that of another version.
fn standing_anywhere(
    dir: &Path,
    others: &[PathBuf],
    root: &Root,
    program: &Loaded,
) -> Result<Standing, BpfError> {
    let own = standing(&dir.join(program.name), root, program)?;
    if !matches!(own, Standing::Absent) {
        return Ok(own);
    }
    for other in others {
        let theirs = standing(&other.join(program.name), root, program)?;
        if matches!(theirs, Standing::Ours { .. }) {
            return Ok(theirs);
        }
    }
    Ok(own)
}

fn standing(path: &Path, root: &Root, program: &Loaded) -> Result<Standing, BpfError> {
    let link = match sys::open_link(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Absent),
        opened => opened.map_err(BpfError::file("open pinned link", path))?,
    };
    let info = sys::cgroup_link(link.as_fd()).map_err(BpfError::file("ask about link", path))?;
    Ok(match info {
        Some(CgroupLink { program_id, cgroup_id, attach_type })
            if cgroup_id == root.id && attach_type == program.attach_type =>
        {
            Standing::Ours { link, program_id, pinned_at: path.to_owned() }
        }
        _ => Standing::Elsewhere { link },
    })
}

/// Gives a link another program, and its pin the place of ours. An agent that is killed in
/// between leaves a link that the next one finds where it was.
fn replace(
    (pinned_at, path): (PathBuf, PathBuf),
    link: OwnedFd,
    old_id: u32,
    program: &Loaded,
) -> Result<Undo, BpfError> {
    let old =
        sys::program(old_id).map_err(BpfError::file("open the program of link", &pinned_at))?;
    sys::replace_program(link.as_fd(), program.fd.as_fd())
        .map_err(BpfError::file("replace the program of link", &pinned_at))?;
    if pinned_at != path
        && let Err(error) = fs::rename(&pinned_at, &path)
    {
        let failed = BpfError::file("move to our directory the pin", &pinned_at)(error);
        take_back(vec![Undo::GiveBack { path: pinned_at.clone(), link, program: old, pinned_at }]);
        return Err(failed);
    }
    Ok(Undo::GiveBack { path, link, program: old, pinned_at })
}

/// The new link works before the old one ends: rather judged twice than not at all.
fn attach(
    path: &Path,
    root: &Root,
    program: &Loaded,
    old: Option<OwnedFd>,
) -> Result<Undo, BpfError> {
    let link = sys::attach(program.fd.as_fd(), root.fd.as_fd(), program.attach_type)
        .map_err(BpfError::file("attach to the root of the hierarchy, for link", path))?;
    if old.is_some() {
        fs::remove_file(path).map_err(BpfError::file("remove pin", path))?;
    }
    let path = path.to_owned();
    let pinned = pin(link.as_fd(), &path);
    let undo = match old {
        None => Undo::Detach { path, link },
        Some(old) => Undo::Repin { path, link, old },
    };
    match pinned {
        Ok(()) => Ok(undo),
        Err(error) => {
            take_back(vec![undo]);
            Err(error)
        }
    }
}

fn pin(link: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    sys::pin(link, path).map_err(BpfError::file("pin link", path))
}

/// Ends a link whose place was taken, now and not when the kernel comes round to it.
fn end_replaced(step: &Undo) {
    if let Undo::Repin { path, old, .. } = step
        && let Err(error) = sys::detach(old.as_fd())
    {
        tracing::warn!(link = %path.display(), %error, "cannot detach from another cgroup");
    }
}

/// Undoes steps, newest first. What fails here is told but does not hide the error that led
/// here; the next cycle sees it, because it asks the kernel.
fn take_back(steps: Vec<Undo>) {
    for step in steps.into_iter().rev() {
        let (path, undone) = match step {
            Undo::Detach { path, link } => {
                let undone = sys::detach(link.as_fd()).and_then(|()| unpin(&path));
                (path, undone)
            }
            Undo::Repin { path, link, old } => {
                let undone = sys::detach(link.as_fd())
                    .and_then(|()| unpin(&path))
                    .and_then(|()| sys::pin(old.as_fd(), &path));
                (path, undone)
            }
            Undo::GiveBack { path, link, program, pinned_at } => {
                let moved =
                    |()| if pinned_at == path { Ok(()) } else { fs::rename(&path, &pinned_at) };
                let undone = sys::replace_program(link.as_fd(), program.as_fd()).and_then(moved);
                (path, undone)
            }
        };
        if let Err(error) = undone {
            tracing::warn!(link = %path.display(), %error, "cannot put a link back as it was");
        }
    }
}

/// Removes a pin, which the step that failed may not have made.
fn unpin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
