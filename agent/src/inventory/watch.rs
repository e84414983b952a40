//! The kubelet's cgroups, watched: where no runtime tells of pods, one that comes is seen at once
//! and not only in the next turn.

use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bulkhead_core::inventory::children_to_list;
use bulkhead_nri::State;
use inotify::{EventMask, Inotify, WatchMask};
use tokio::sync::watch;

use crate::owner::Event;

/// Cgroups come in bursts: a look after each of them would find one more each time.
const CALM: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 4_096;

/// Has the owner look when a cgroup of a pod comes or goes while the runtime does not tell. Ends
/// with the owner.
pub fn watch_cgroups(
    kubepods: &Path,
    owner: Sender<Event>,
    runtime: watch::Receiver<State>,
) -> io::Result<()> {
    let mut inotify = Inotify::init()?;
    let watch = |inotify: &Inotify, path: &Path| {
        let changes = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        inotify.watches().add(path, changes)
    };
    let root = watch(&inotify, kubepods)?;
    let watch_classes = {
        let kubepods = kubepods.to_owned();
        move |inotify: &Inotify| -> io::Result<()> {
            let entries = std::fs::read_dir(&kubepods)?.filter_map(Result::ok);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let names: Vec<String> = names.collect();
            for class in children_to_list(names.iter().map(String::as_str)) {
                // Watched twice is watched once.
                watch(inotify, &kubepods.join(class))?;
            }
            Ok(())
        }
    };
    watch_classes(&inotify)?;
    let look = move || {
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let seen = inotify.read_events_blocking(&mut buffer).map(|events| {
                let mut directories = events.filter(|event| event.mask.contains(EventMask::ISDIR));
                directories.any(|event| event.wd == root)
            });
            let failed = match seen {
                // A class's directory may be new.
                Ok(true) => watch_classes(&inotify).err(),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                tracing::warn!(%error, "the kubelet's cgroups are not watched; each turn sees them");
                return;
            }
            let is_told = matches!(*runtime.borrow(), State::Connected { .. });
            if !is_told && owner.send(Event::Look).is_err() {
                return;
            }
            std::thread::sleep(CALM);
        }
    };
    std::thread::Builder::new().name("kubepods".to_owned()).spawn(look).map(drop)
}
