//! A directory of YAML and JSON files, read whole and watched.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Event, EventMask, EventOwned, EventStream, Inotify, WatchMask};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use crate::ledger::GoodFile;

/// Largest file in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// What is changed is read when nothing more has changed for so long: files that are put in place
/// one right after the other are one change.
const QUIET: Duration = Duration::from_millis(5);

/// As [`QUIET`], while a file is being written: it may be half of one.
const WRITING: Duration = Duration::from_millis(100);

/// Changes that never stop are not waited for any longer.
const LONGEST: Duration = Duration::from_secs(1);

/// How often the directory is read without being told: what a symlink points to, or a directory
/// that was put in this one's place, tells nothing.
const ANYWAY: Duration = Duration::from_secs(30);

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

/// Why the directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system refused.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{path} has more than 16 MiB; split it")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Directory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every `*.yaml`, `*.yml` and `*.json`, by name; names that begin with a dot are skipped.
    pub(crate) fn read(&self) -> Result<Vec<GoodFile>, ReadError> {
        let failed = |source| system("list", &self.0, source);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let wanted = path.extension().is_some_and(|extension| {
                ["yaml", "yml", "json"].iter().any(|known| extension == *known)
            });
            if !wanted || name.starts_with('.') {
                continue;
            }
            let name = name.to_owned();
            // It may have gone since it was listed.
            if let Some(content) = Self::content(&path)? {
                files.push(GoodFile { name, content });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn content(path: &Path) -> Result<Option<String>, ReadError> {
        let failed = |source| system("read", path, source);
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(None);
        }
        let mut content = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut content).map_err(failed)?;
        if u64::try_from(content.len()).is_ok_and(|bytes| bytes > MAX_BYTES) {
            return Err(ReadError::TooLarge { path: path.to_owned() });
        }
        Ok(Some(content))
    }

    /// Begins to watch. Whoever reads after this and then waits for [`Changes::next`] misses
    /// nothing.
    pub(crate) fn watch(&self) -> io::Result<Changes> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE
            | WatchMask::MOVE_SELF
            | WatchMask::ATTRIB;
        inotify.watches().add(&self.0, mask)?;
        let events = inotify.into_event_stream(vec![0; 4_096])?;
        Ok(Changes { events, being_written: BTreeSet::new() })
    }
}

/// Changes of a directory.
pub(crate) struct Changes {
    events: EventStream<Vec<u8>>,
    /// Names of files that were begun and are not closed yet.
    being_written: BTreeSet<OsString>,
}

impl Changes {
    /// Waits for a change, and until it is quiet again; not for ever without one.
    pub(crate) async fn next(&mut self) {
        let Ok(Some(first)) = tokio::time::timeout(ANYWAY, self.events.next()).await else {
            return;
        };
        let longest = Instant::now() + LONGEST;
        self.note(first);
        loop {
            let wait = if self.being_written.is_empty() { QUIET } else { WRITING };
            let until = longest.min(Instant::now() + wait);
            let Ok(Some(event)) = tokio::time::timeout_at(until, self.events.next()).await else {
                return;
            };
            self.note(event);
        }
    }

    /// Keeps which files are being written. An error is no event of any file: what is there is
    /// read all the same.
    fn note(&mut self, event: io::Result<EventOwned>) {
        let Ok(Event { mask, name: Some(name), .. }) = event else {
            return;
        };
        if mask.intersects(EventMask::CREATE | EventMask::MODIFY) {
            self.being_written.insert(name);
        } else if !mask.contains(EventMask::ATTRIB) {
            self.being_written.remove(&name);
        }
    }
}

fn system(operation: &'static str, path: &Path, source: io::Error) -> ReadError {
    ReadError::System { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().to_owned());
        (dir, directory)
    }

    /// Well before the directory would be read anyway.
    async fn is_told(changes: &mut Changes) {
        tokio::time::timeout(ANYWAY / 3, changes.next()).await.expect("the change is told");
    }

    #[tokio::test]
    async fn each_kind_of_change_is_told() {
        let (dir, directory) = directory();
        let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
        let mut changes = directory.watch().unwrap();
        fs::write(&a, "1").unwrap();
        is_told(&mut changes).await;
        fs::rename(&a, &b).unwrap();
        is_told(&mut changes).await;
        fs::remove_file(&b).unwrap();
        is_told(&mut changes).await;
        fs::remove_dir(dir.path()).unwrap();
        is_told(&mut changes).await;
    }

    /// A file that is read half has fewer objects than it should.
    #[tokio::test]
    async fn what_is_being_written_is_waited_for() {
        let (dir, directory) = directory();
        let mut changes = directory.watch().unwrap();
        let mut file = fs::File::create(dir.path().join("a.yaml")).unwrap();
        fs::write(dir.path().join("b.yaml"), "whole").unwrap();
        let begun = Instant::now();
        let writing = async {
            for _ in 0..5 {
                tokio::time::sleep(WRITING / 5).await;
                io::Write::write_all(&mut file, b"x: 1\n").unwrap();
            }
            drop(file);
            Instant::now()
        };
        let (closed, told) = tokio::join!(writing, async {
            changes.next().await;
            Instant::now()
        });
        assert!(told >= closed, "told before it was closed");
        assert!(told - begun < LONGEST, "told {:?} after it was begun", told - begun);
    }

    #[tokio::test]
    async fn changes_that_never_stop_are_told() {
        let (dir, directory) = directory();
        let mut changes = directory.watch().unwrap();
        let path = dir.path().join("a.yaml");
        let for_ever = async {
            loop {
                fs::write(&path, "1").unwrap();
                tokio::time::sleep(QUIET / 2).await;
            }
        };
        let told = async { tokio::time::timeout(ANYWAY / 3, changes.next()).await };
        tokio::select! {
            told = told => told.expect("the change is told"),
            () = for_ever => {}
        }
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_named() {
        let (dir, directory) = directory();
        let path = dir.path().join("a.yaml");
        fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = directory.read().unwrap_err().to_string();
        assert!(error.contains("a.yaml") && error.contains("split it"), "{error}");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = directory.read().unwrap_err().to_string();
        assert!(error.contains("a.yaml"), "{error}");
    }
}
