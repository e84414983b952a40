//! Files whose content survives a crash, or was never there.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::faults::{self, Point, reach};

/// End of the name of a file that is not complete yet.
pub(crate) const UNFINISHED: &str = ".tmp";

/// What a journal asks of a disk. Tests have one that is full, or that fails to sync.
pub(crate) trait Storage: fmt::Debug + Send {
    /// Writes all of `bytes`, or some of them and an error.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns after what was written is on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Returns after the names in a file's directory are on the disk.
    fn sync_directory_of(&self, path: &Path) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
}

/// The real disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk;

impl Storage for Disk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        reach(Point::DiskWrite)?;
        file.write_all_at(bytes, offset)?;
        reach(Point::DiskWritten)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        reach(Point::DiskSynced)
    }

    fn sync_directory_of(&self, path: &Path) -> io::Result<()> {
        sync_directory_of(path)?;
        reach(Point::DiskDirectorySynced)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        reach(Point::DiskTruncate)?;
        file.set_len(length)?;
        reach(Point::DiskTruncated)
    }
}

/// A file that takes its name, and whatever had it before, only when it is complete and on the
/// disk. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Replacement<'a> {
    storage: &'a dyn Storage,
    path: PathBuf,
    unfinished: PathBuf,
    file: Option<File>,
    length: u64,
}

impl<'a> Replacement<'a> {
    /// Begins a file that will be `path`.
    pub(crate) fn begin(storage: &'a dyn Storage, path: &Path) -> io::Result<Self> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        faults::pass(Point::DiskBegun);
        Ok(Self { storage, path: path.to_owned(), unfinished, file: Some(file), length: 0 })
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.storage.write_at(file, bytes, self.length)?;
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Bytes that were written.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Puts it in place.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        let placed = self
            .storage
            .sync(&file)
            .and_then(|()| reach(Point::DiskRename))
            .and_then(|()| fs::rename(&self.unfinished, &self.path))
            .and_then(|()| reach(Point::DiskRenamed))
            .and_then(|()| self.storage.sync_directory_of(&self.path));
        if placed.is_err() {
            let _ = fs::remove_file(&self.unfinished);
        }
        placed.map(|()| file)
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Makes the names in a file's directory durable.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
