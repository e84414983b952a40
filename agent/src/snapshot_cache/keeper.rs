//! Keeps snapshots without keeping anybody waiting for the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use bulkhead_core::Snapshot;

use super::{SnapshotCacheError, store};

/// Writes the newest snapshot into its file. Where a write takes longer than the next change,
/// what is between them is never written.
#[derive(Debug)]
pub struct Keeper {
    file: PathBuf,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    /// Taken, to end.
    snapshots: Option<Sender<Arc<Snapshot>>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// One that writes at once, in the caller's thread.
    pub const fn new(file: PathBuf) -> Self {
        Self { file, writing: None }
    }

    /// From now on another thread writes. Where there can be none, the caller's goes on.
    pub fn begin(&mut self) {
        let (snapshots, newer) = channel();
        let file = self.file.clone();
        let thread =
            thread::Builder::new().name("snapshot".to_owned()).spawn(move || write(&file, &newer));
        match thread {
            Ok(thread) => {
                let (snapshots, thread) = (Some(snapshots), Some(thread));
                self.writing = Some(Writing { snapshots, thread });
            }
            Err(error) => tracing::warn!(%error, "snapshots are written between turns"),
        }
    }

    /// Keeps a snapshot in place of the last one, soon.
    pub fn keep(&self, snapshot: &Arc<Snapshot>) {
        let snapshots = self.writing.as_ref().and_then(|writing| writing.snapshots.as_ref());
        match snapshots.map(|snapshots| snapshots.send(Arc::clone(snapshot))) {
            Some(Ok(())) => {}
            None | Some(Err(_)) => keep(&self.file, snapshot),
        }
    }
}

impl Drop for Writing {
    /// What was given is written when this returns.
    fn drop(&mut self) {
        self.snapshots = None;
        if let Some(thread) = self.thread.take() {
            // It has said itself what went wrong.
            let _ = thread.join();
        }
    }
}

fn write(file: &Path, snapshots: &Receiver<Arc<Snapshot>>) {
    while let Ok(first) = snapshots.recv() {
        let newest = snapshots.try_iter().last().unwrap_or(first);
        keep(file, &newest);
    }
}

/// Keeps what the controller said for the next start. Where it cannot be kept, nothing is: an
/// older one would take back what stands, and with none everything stays.
fn keep(file: &Path, snapshot: &Snapshot) {
    let Err(error) = store(file, snapshot) else { return };
    tracing::error!(%error, "after a restart with the controller away, nothing is known");
    if matches!(error, SnapshotCacheError::Foreign { .. }) {
        return;
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, file = %file.display(), "an outdated snapshot stays");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    #[test]
    fn the_newest_is_there_after_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("snapshot");
        let snapshot = |generation| Arc::new(Snapshot { generation, ..Snapshot::default() });
        let mut keeper = Keeper::new(file.clone());
        keeper.keep(&snapshot(1));
        assert_eq!(load(&file).unwrap().unwrap().generation, 1);
        keeper.begin();
        (2..300).for_each(|generation| keeper.keep(&snapshot(generation)));
        drop(keeper);
        assert_eq!(load(&file).unwrap().unwrap().generation, 299);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_foreign_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("snapshot");
        std::fs::write(&file, "hello").unwrap();
        Keeper::new(file.clone()).keep(&Arc::default());
        assert_eq!(std::fs::read(&file).unwrap(), b"hello");
    }
}
