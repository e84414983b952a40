//! One directory of the cgroup v2 file system, opened so that no symbolic link and no ".." can
//! lead elsewhere; everything in it is reached through its descriptor.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use bulkhead_core::CgroupId;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::{CgroupError, Operation};
use crate::faults::{self, Point};

/// An open directory of the cgroup v2 file system.
#[derive(Debug)]
pub struct CgroupDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A directory below another, as getdents(2) gives it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Child {
    /// Its name.
    pub name: String,
    /// Its cgroup's id, which is its inode number.
    pub id: CgroupId,
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
const STEP: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl CgroupDir {
    /// Opens an absolute path. Refused: symbolic links anywhere in it, "..", and directories
    /// that are not of cgroup v2.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let below_slash = below_slash(path)?;
        let slash = open("/", STEP | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(|errno| system(Operation::Open, Path::new("/"), errno))?;
        let fd = open_below(slash.as_fd(), &below_slash, path)?;
        Self::checked(fd, path.to_owned())
    }

    /// Opens a directory in this one.
    pub(super) fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let path = self.path.join(name);
        let fd = open_below(self.fd.as_fd(), Path::new(name), &path)?;
        Self::checked(fd, path)
    }

    /// The directory above; `None` where that is not of cgroup v2.
    pub(super) fn parent(&self) -> Result<Option<Self>, CgroupError> {
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        let fd = openat(&self.fd, "..", DIRECTORY, Mode::empty())
            .map_err(|errno| system(Operation::Open, &path, errno))?;
        match Self::checked(fd, path) {
            Ok(parent) => Ok(Some(parent)),
            Err(CgroupError::NotCgroup2 { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> Result<Self, CgroupError> {
        let status = fstatfs(&fd).map_err(|errno| system(Operation::Open, &path, errno))?;
        let magic = status.filesystem_type();
        if magic == CGROUP2_SUPER_MAGIC {
            Ok(Self { fd, path })
        } else {
            Err(CgroupError::NotCgroup2 { path, magic: magic.0 })
        }
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of this cgroup. A cgroup directory's inode number is that id on 64-bit
    /// machines (since Linux 5.5).
    pub fn id(&self) -> Result<CgroupId, CgroupError> {
        let status = fstat(&self.fd).map_err(|errno| system(Operation::Read, &self.path, errno))?;
        Ok(CgroupId(status.st_ino))
    }

    /// A path that leads to this very directory, wherever it has been moved, for code that takes
    /// paths only.
    pub(super) fn descriptor_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Creates a directory in this one; false: it was there.
    pub(super) fn create_child(&self, name: &str) -> Result<bool, CgroupError> {
        self.reach(Point::CgroupCreate, name)?;
        match mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => self.reach(Point::CgroupCreated, name).map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(system(Operation::Create, &self.path.join(name), errno)),
        }
    }

    /// Removes an empty directory in this one; false: it was not there.
    pub(super) fn remove_child(&self, name: &str) -> Result<bool, CgroupError> {
        self.reach(Point::CgroupRemove, name)?;
        match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => self.reach(Point::CgroupRemoved, name).map(|()| true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(system(Operation::Remove, &self.path.join(name), errno)),
        }
    }

    fn reach(&self, point: Point, name: &str) -> Result<(), CgroupError> {
        faults::reach(point).map_err(|error| {
            let operation = Operation::Write("a fault point".to_owned());
            system(operation, &self.path.join(name), super::errno_of(&error))
        })
    }

    /// The directories in this one, by name.
    pub(super) fn children(&self) -> Result<Vec<Child>, CgroupError> {
        let failed = |errno| system(Operation::List, &self.path, errno);
        let mut listing = Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut children = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed)?;
            // Only ASCII names are ours; another one is shown as well as it can be.
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "." || name == ".." || entry.file_type() != Some(Type::Directory) {
                continue;
            }
            children.push(Child { name, id: CgroupId(entry.ino()) });
        }
        children.sort();
        Ok(children)
    }

    /// The names of the files in this directory.
    pub(super) fn files(&self) -> Result<std::collections::BTreeSet<String>, CgroupError> {
        let failed = |errno| system(Operation::List, &self.path, errno);
        let mut listing = Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut files = std::collections::BTreeSet::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed)?;
            if entry.file_type() == Some(Type::File) {
                files.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(files)
    }

    /// Opens a file for reading; `None`: it is not there, or PSI is off.
    pub(super) fn open_file(&self, file: &str) -> Result<Option<File>, CgroupError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.fd, file, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(system(Operation::Open, &self.path.join(file), errno)),
        }
    }

    /// A file's text; `None`: it is not there.
    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>, CgroupError> {
        let Some(mut open) = self.open_file(file)? else {
            return Ok(None);
        };
        let mut text = String::new();
        open.read_to_string(&mut text).map_err(|error| {
            system(Operation::Read, &self.path.join(file), super::errno_of(&error))
        })?;
        Ok(Some(text))
    }

    /// A file's text; it must be there.
    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        self.read_if_there(file)?
            .ok_or_else(|| system(Operation::Read, &self.path.join(file), Errno::ENOENT))
    }

    /// Writes `text` to a file with one write(2), as cgroup files want it.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        let failed =
            |errno| system(Operation::Write(text.to_owned()), &self.path.join(file), errno);
        self.reach(Point::CgroupWrite, file)?;
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, file, flags, Mode::empty()).map_err(failed)?;
        let written = File::from(fd)
            .write(text.as_bytes())
            .map_err(|error| failed(super::errno_of(&error)))?;
        self.reach(Point::CgroupWritten, file)?;
        if written == text.len() { Ok(()) } else { Err(failed(Errno::EIO)) }
    }
}

/// For clone3 with `CLONE_INTO_CGROUP`, and for attaching programs.
impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn system(operation: Operation, path: &Path, errno: Errno) -> CgroupError {
    CgroupError::System { operation, path: path.to_owned(), errno }
}

/// The path without its leading slash; only plain names may follow.
fn below_slash(path: &Path) -> Result<PathBuf, CgroupError> {
    let bad = || CgroupError::BadPath { path: path.to_owned() };
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(bad());
    }
    let mut below = PathBuf::new();
    for component in components {
        match component {
            Component::Normal(name) => below.push(name),
            _ => return Err(bad()),
        }
    }
    if below.as_os_str().is_empty() { Err(bad()) } else { Ok(below) }
}

fn open_below(dir: BorrowedFd<'_>, below: &Path, full: &Path) -> Result<OwnedFd, CgroupError> {
    let how = OpenHow::new()
        .flags(DIRECTORY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(dir, below, how) {
        Ok(fd) => Ok(fd),
        // A link is on the way (the walk names it), or the system call is missing or filtered.
        Err(Errno::ELOOP | Errno::ENOTDIR | Errno::ENOSYS | Errno::EPERM) => walk(dir, below, full),
        Err(errno) => Err(system(Operation::Open, full, errno)),
    }
}

/// Opens `below` one name at a time, following nothing.
fn walk(dir: BorrowedFd<'_>, below: &Path, full: &Path) -> Result<OwnedFd, CgroupError> {
    let failed = |errno| system(Operation::Open, full, errno);
    let mut here = dir.try_clone_to_owned().map_err(|error| failed(super::errno_of(&error)))?;
    let depth = below.components().count();
    for (index, name) in below.components().enumerate() {
        let status =
            fstatat(&here, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
            let left = depth - index - 1;
            let link = full.ancestors().nth(left).unwrap_or(full).to_owned();
            return Err(CgroupError::Symlink { path: full.to_owned(), link });
        }
        here = openat(&here, name.as_os_str(), STEP | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(failed)?;
    }
    openat(&here, ".", DIRECTORY, Mode::empty()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        for path in ["", "sys/fs/cgroup", "/", "/sys/fs/cgroup/../..", "./x"] {
            let refused = CgroupDir::open(Path::new(path)).unwrap_err();
            assert_eq!(refused, CgroupError::BadPath { path: path.into() });
        }
    }

    #[test]
    fn other_file_systems_are_refused() {
        let error = CgroupDir::open(Path::new("/proc/self")).unwrap_err();
        // /proc/self is itself a link.
        assert!(matches!(error, CgroupError::Symlink { .. }), "{error}");
        let error = CgroupDir::open(Path::new("/proc/sys")).unwrap_err();
        assert!(matches!(error, CgroupError::NotCgroup2 { magic: 0x9fa0, .. }), "{error}");
    }

    #[test]
    fn the_walk_names_the_link_wherever_it_is() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("real/inner")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        symlink("inner", base.join("real/last")).unwrap();
        for (path, link) in [("link/inner", "link"), ("real/last", "real/last"), ("link", "link")] {
            let (path, link) = (base.join(path), base.join(link));
            let refused = CgroupError::Symlink { path: path.clone(), link };
            assert_eq!(CgroupDir::open(&path).unwrap_err(), refused);
            let slash = open("/", STEP | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            let below = below_slash(&path).unwrap();
            assert_eq!(walk(slash.as_fd(), &below, &path).unwrap_err(), refused);
        }
        let slash = open("/", STEP | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let path = base.join("real/inner");
        walk(slash.as_fd(), &below_slash(&path).unwrap(), &path).unwrap();
    }

    #[test]
    fn an_absent_path_is_named_with_the_mend() {
        let error = CgroupDir::open(Path::new("/sys/fs/no-such-place")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot open /sys/fs/no-such-place; it is not there"), "{text}");
    }
}
