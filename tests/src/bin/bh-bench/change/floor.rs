//! What the machine itself takes from a rename to the event that tells of it.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::prober::now;

/// Renames a file below `home` and returns how long it took until another thread had the event.
pub(super) fn once(home: &Path) -> Result<Duration> {
    let dir = home.join("floor");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("make an inotify")?;
    inotify.add_watch(&dir, AddWatchFlags::IN_MOVED_TO).context("watch a directory")?;
    let (beside, path) = (home.join("floor.new"), dir.join("file"));
    fs::write(&beside, "new").with_context(|| format!("write {}", beside.display()))?;
    let (ready, is_ready) = mpsc::channel();
    let watcher = thread::spawn(move || {
        // Whoever waits for this is there until the thread is joined.
        let _ = ready.send(());
        inotify.read_events().map(|_| now())
    });
    is_ready.recv().context("the watching thread has ended")?;
    // It has to sleep in its read.
    thread::sleep(Duration::from_micros(200));
    let begun = now();
    fs::rename(&beside, &path).with_context(|| format!("replace {}", path.display()))?;
    let told = watcher.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
    Ok(told.context("read an event")?.saturating_sub(begun))
}
