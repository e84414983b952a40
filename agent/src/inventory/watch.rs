//! The kubelet's cgroups, watched: where no runtime tells of pods, one that comes is seen at once
//! and not only in the next turn.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bulkhead_core::inventory::{children_to_list, pod_directory};
use bulkhead_core::{Fact, PodFact, PodUid};
use bulkhead_nri::State;
use inotify::{EventMask, Events, Inotify, WatchDescriptor, WatchMask};
use tokio::sync::watch;

use crate::clock::Now;
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
    let mut cgroups = Cgroups::watch(kubepods)?;
    let look = move || {
        loop {
            let seen = cgroups.wait();
            let (pods, at) = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!(%error, "the kubelet's cgroups are not watched; each turn sees them");
                    return;
                }
            };
            let is_told = matches!(*runtime.borrow(), State::Connected { .. });
            if !is_told && owner.send(Event::Look(pods, at)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("kubepods".to_owned()).spawn(look).map(drop)
}

/// The kubelet's root and the directories of its classes, watched.
struct Cgroups {
    inotify: Inotify,
    root: WatchDescriptor,
    classes: HashSet<WatchDescriptor>,
    kubepods: PathBuf,
    /// When it was told last: what came since may be as old as that.
    told: Option<Now>,
}

impl Cgroups {
    fn watch(kubepods: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let root = add(&inotify, kubepods)?;
        let (classes, kubepods) = (HashSet::new(), kubepods.to_owned());
        let mut cgroups = Self { inotify, root, classes, kubepods, told: None };
        // Those that are there already are as old as may be.
        cgroups.watch_classes()?;
        Ok(cgroups)
    }

    /// Gives the pods that are in a class's directory that was not watched before: their own
    /// events went unseen.
    fn watch_classes(&mut self) -> io::Result<Vec<PodUid>> {
        let mut pods = Vec::new();
        let names = names(&self.kubepods)?;
        for class in children_to_list(names.iter().map(String::as_str)) {
            let path = self.kubepods.join(class);
            // Watched twice is watched once.
            if self.classes.insert(add(&self.inotify, &path)?) {
                pods.extend(self::names(&path)?.iter().filter_map(|name| pod_directory(name)));
            }
        }
        Ok(pods)
    }

    /// Waits until something comes or goes: which pods came, and when, or a little earlier.
    fn wait(&mut self) -> io::Result<(Vec<PodUid>, Now)> {
        if self.told.is_some() {
            std::thread::sleep(CALM);
        }
        let mut buffer = [0; BUFFER_BYTES];
        let (seen, at) = match self.inotify.read_events(&mut buffer) {
            Ok(events) => (Seen::of(events, &self.root), self.told.unwrap_or_else(Now::read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let events = self.inotify.read_events_blocking(&mut buffer)?;
                (Seen::of(events, &self.root), Now::read())
            }
            Err(error) => return Err(error),
        };
        let mut pods = seen.pods;
        if seen.in_root {
            // A class's directory may be new, and have pods already.
            pods.extend(self.watch_classes()?);
        }
        self.told = Some(Now::read());
        Ok((pods, at))
    }
}

/// What one read told.
struct Seen {
    /// Something changed directly below the root.
    in_root: bool,
    /// Pods whose cgroups came.
    pods: Vec<PodUid>,
}

impl Seen {
    fn of(events: Events<'_>, root: &WatchDescriptor) -> Self {
        let mut seen = Self { in_root: false, pods: Vec::new() };
        for event in events.filter(|event| event.mask.contains(EventMask::ISDIR)) {
            seen.in_root |= event.wd == *root;
            if event.mask.contains(EventMask::CREATE) {
                let name = event.name.and_then(|name| name.to_str());
                seen.pods.extend(name.and_then(pod_directory));
            }
        }
        seen
    }
}

fn add(inotify: &Inotify, path: &Path) -> io::Result<WatchDescriptor> {
    inotify.watches().add(path, WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR)
}

/// Names of what is in a directory.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(path)?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Tells the owner when no runtime tells of pods any more, or none ever did. Ends with whoever says
/// how it is with the runtime.
pub(super) async fn tell_when_away(mut runtime: watch::Receiver<State>, owner: Sender<Event>) {
    loop {
        let is_away = matches!(*runtime.borrow_and_update(), State::Disconnected { .. });
        if is_away && owner.send(Event::Learn(Fact::Pods(PodFact::RuntimeAway))).is_err() {
            return;
        }
        if runtime.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_come_are_told_with_when_and_those_in_a_new_class_too() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        make("burstable/podold");
        let mut cgroups = Cgroups::watch(root.path()).unwrap();
        let uids = |pods: Vec<PodUid>| {
            let mut texts: Vec<String> = pods.iter().map(ToString::to_string).collect();
            texts.sort_unstable();
            texts
        };
        let before = Now::read().since_boot_nanoseconds;
        make("burstable/podnew");
        let (pods, at) = cgroups.wait().unwrap();
        assert_eq!(uids(pods), ["new"]);
        assert!(at.since_boot_nanoseconds >= before);
        // These come while nobody reads: they are no younger than the last that was told.
        let before = Now::read().since_boot_nanoseconds;
        make("podguaranteed");
        make("besteffort/podhidden");
        make("unlike");
        let (pods, at) = cgroups.wait().unwrap();
        assert_eq!(uids(pods), ["guaranteed", "hidden"]);
        assert!(at.since_boot_nanoseconds <= before);
        std::fs::remove_dir(root.path().join("podguaranteed")).unwrap();
        assert_eq!(uids(cgroups.wait().unwrap().0), Vec::<String>::new());
    }
}
