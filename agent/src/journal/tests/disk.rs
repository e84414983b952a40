//! Disks that are full or fail.

use super::*;
use crate::journal::format::{HEADER_BYTES, RECORDS_AT};
use crate::journal::storage::{Disk, Storage};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A disk with limited space, that can fail to sync and to cut, and that shows the directory as
/// a crash between write and sync would leave it.
#[derive(Clone, Debug)]
pub(super) struct SmallDisk {
    pub(super) space: Arc<AtomicU64>,
    pub(super) no_sync: Arc<AtomicBool>,
    pub(super) no_cut: Arc<AtomicBool>,
    pub(super) crashes: Arc<Mutex<Option<Crashes>>>,
}

/// Copies of a directory, made before each sync.
#[derive(Debug)]
pub(super) struct Crashes {
    of: PathBuf,
    /// Bytes that are on the disk, by inode.
    synced: BTreeMap<u64, u64>,
    pub(super) copies: Vec<Crash>,
}

/// A directory, as it is while one file of it is about to be synced.
#[derive(Debug)]
pub(super) struct Crash {
    pub(super) directory: TempDir,
    /// The file.
    pub(super) syncing: PathBuf,
    /// So many bytes of it were on the disk before.
    pub(super) synced: usize,
}

impl Crashes {
    pub(super) fn new(of: &Path) -> Self {
        let synced = files(of, "").into_iter().map(|path| fs::metadata(path).unwrap());
        let synced = synced.map(|file| (file.ino(), file.len())).collect();
        Self { of: of.to_owned(), synced, copies: Vec::new() }
    }

    /// Segments of which not all is on the disk.
    pub(super) fn unsynced(&self) -> Vec<PathBuf> {
        let unsynced = |path: &PathBuf| {
            let file = fs::metadata(path).unwrap();
            self.synced.get(&file.ino()).is_none_or(|synced| *synced < file.len())
        };
        segments(&self.of).into_iter().filter(unsynced).collect()
    }

    fn add(&mut self, syncing: &File) {
        let syncing = syncing.metadata().unwrap();
        let mut names = files(&self.of, "").into_iter();
        let name = names.find(|path| fs::metadata(path).unwrap().ino() == syncing.ino()).unwrap();
        let directory = copy(&self.of);
        let synced = self.synced.insert(syncing.ino(), syncing.len()).unwrap_or(0);
        self.copies.push(Crash {
            syncing: directory.path().join(name.file_name().unwrap()),
            synced: usize::try_from(synced).unwrap(),
            directory,
        });
    }
}

impl SmallDisk {
    pub(super) fn new() -> Self {
        Self {
            space: Arc::new(AtomicU64::new(u64::MAX)),
            no_sync: Arc::default(),
            no_cut: Arc::default(),
            crashes: Arc::default(),
        }
    }

    pub(super) fn open(&self, directory: &Path, limits: Limits) -> (Journal, Recovered) {
        self.open_in_boot(directory, limits, BOOT)
    }

    pub(super) fn open_in_boot(
        &self,
        directory: &Path,
        limits: Limits,
        boot: &str,
    ) -> (Journal, Recovered) {
        Journal::open_on(Box::new(self.clone()), directory, limits, boot).unwrap()
    }

    pub(super) fn leave(&self, bytes: u64) {
        self.space.store(bytes, Ordering::Relaxed);
    }
}

impl Storage for SmallDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let wanted = u64::try_from(bytes.len()).unwrap();
        let left = self.space.load(Ordering::Relaxed);
        let written = usize::try_from(wanted.min(left)).unwrap();
        Disk.write_at(file, &bytes[..written], offset)?;
        self.space.store(left - wanted.min(left), Ordering::Relaxed);
        if wanted > left { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if let Some(crashes) = &mut *self.crashes.lock().unwrap() {
            crashes.add(file);
        }
        if self.no_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        // A real sync adds nothing to what a test can see, but seconds.
        Ok(())
    }

    fn sync_directory_of(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        if self.no_cut.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        Disk.truncate(file, length)
    }
}

#[test]
fn a_full_disk_costs_no_number_and_nothing_that_was_there() {
    for left in 0..200 {
        let (directory, disk) = (directory(), SmallDisk::new());
        let (mut journal, _) = disk.open(directory.path(), SMALL);
        journal.append(&[record(1, 1, 1)]).unwrap();
        let before = content(directory.path());
        disk.leave(left);
        let big: Vec<UsageRecord> = (0..10).map(|cgroup| record(cgroup, 1, 2)).collect();
        let error = journal.append_with(&big, Some(b"never written")).unwrap_err();
        assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
        assert!(error.is_full());
        assert_eq!(content(directory.path()), before);
        assert_eq!(sequences(&read(&journal.reader(), Sequence(0))), [1]);
        disk.leave(u64::MAX);
        assert_eq!(journal.append(&[record(1, 1, 3)]).unwrap(), Sequence(2));
        assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 3]);
        drop(journal);
        let (journal, recovered) = open(directory.path());
        assert_eq!((recovered.truncated, recovered.damaged.len()), (None, 0));
        assert_eq!(recovered.checkpoint, None);
        assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 3]);
    }
}

#[test]
fn a_disk_that_is_full_where_a_segment_would_begin_costs_nothing_either() {
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    let mut confirmed = 0;
    for value in 1..=60 {
        disk.leave(if value % 3 == 0 { value } else { u64::MAX });
        if let Ok(last) = journal.append(&[record(1, value, value)]) {
            confirmed += 1;
            assert_eq!(last, Sequence(confirmed));
        }
    }
    assert!(confirmed >= 40);
    assert_eq!(files(directory.path(), ".tmp"), Vec::<PathBuf>::new());
    assert_eq!(read(&journal.reader(), Sequence(0)).len(), usize::try_from(confirmed).unwrap());
}

#[test]
fn an_acknowledgement_makes_room_on_a_full_disk() {
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    for value in 1..=40 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    disk.leave(0);
    let error = journal.acknowledge(Sequence(35)).unwrap_err();
    assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
    assert_eq!(journal.reader().acknowledged(), Sequence(35));
    assert!(segments(directory.path()).len() <= 2);
    disk.leave(u64::MAX);
    journal.append(&[record(1, 41, 41)]).unwrap();
    drop(journal);
    assert_eq!(open(directory.path()).1.acknowledged, Sequence(35));
}

#[test]
fn after_a_failed_sync_the_file_is_not_trusted_any_more() {
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    journal.append(&[record(1, 1, 1)]).unwrap();
    disk.no_sync.store(true, Ordering::Relaxed);
    let error = journal.append(&[record(1, 1, 2)]).unwrap_err();
    assert!(matches!(error, JournalError::System { .. }), "{error}");
    disk.no_sync.store(false, Ordering::Relaxed);
    assert_eq!(journal.append(&[record(1, 1, 3)]).unwrap(), Sequence(2));
    assert_eq!(segments(directory.path()).len(), 2);
    drop(journal);
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.damaged, []);
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 3]);
}

#[test]
fn a_number_is_not_given_twice_where_its_batch_could_not_be_cut_off() {
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    journal.append(&[record(1, 1, 1)]).unwrap();
    disk.no_sync.store(true, Ordering::Relaxed);
    disk.no_cut.store(true, Ordering::Relaxed);
    journal.append(&[record(1, 1, 2)]).unwrap_err();
    disk.no_sync.store(false, Ordering::Relaxed);
    assert_eq!(journal.append(&[record(1, 1, 3)]).unwrap(), Sequence(3));
    assert_eq!(cpu_values(&read(&journal.reader(), Sequence(0))), [1, 3]);
    drop(journal);
    // That it survived is right too: it is true, and its number is its own.
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.damaged, []);
    let batches = read(&journal.reader(), Sequence(0));
    assert_eq!((cpu_values(&batches), sequences(&batches)), (vec![1, 2, 3], vec![1, 2, 3]));
}

#[test]
fn a_journal_opens_on_a_full_disk() {
    let (directory, disk) = (directory(), SmallDisk::new());
    let (mut journal, _) = disk.open(directory.path(), SMALL);
    journal.append(&[record(1, 1, 1)]).unwrap();
    drop(journal);
    let path = segments(directory.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    disk.leave(10);
    let (mut journal, recovered) = disk.open(directory.path(), SMALL);
    assert!(recovered.truncated.is_some());
    assert!(journal.append(&[record(1, 1, 2)]).unwrap_err().is_full());
    disk.leave(u64::MAX);
    assert!(journal.append(&[record(1, 1, 3)]).unwrap() > Sequence(1));
}

/// A start that is ended, or whose disk is full, between finding damage and beginning the segment
/// whose name keeps the jump of numbers: the next start must still see that the end was not whole.
#[test]
fn no_number_is_given_twice_however_early_the_start_that_found_damage_ended() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 4] = [
        ("a torn tail", |bytes| bytes.truncate(bytes.len() - 1)),
        ("a torn tail, and damage before", |bytes| {
            bytes.truncate(bytes.len() - 1);
            bytes[RECORDS_AT + 5] ^= 0x10;
        }),
        ("a torn tail, and a damaged header", |bytes| {
            bytes.truncate(bytes.len() - 1);
            bytes[30] ^= 0x10;
        }),
        ("no header", |bytes| {
            bytes[30] ^= 0x10;
            bytes[HEADER_BYTES + 30] ^= 0x10;
        }),
    ];
    let whole = directory();
    let mut journal = open(whole.path()).0;
    for value in 1..=3 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    // The controller has the third, and has not said so.
    drop(journal);
    for (what, harm) in harms {
        let mut failed = 0;
        for left in (0..).step_by(13) {
            let (copy, disk) = (copy(whole.path()), SmallDisk::new());
            let path = segments(copy.path()).remove(0);
            let mut bytes = fs::read(&path).unwrap();
            harm(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            for start in 0..3 {
                disk.leave(left);
                disk.no_cut.store(start == 1, Ordering::Relaxed);
                let opened = Journal::open_on(Box::new(disk.clone()), copy.path(), SMALL, BOOT);
                let full = |(mut journal, _): (Journal, Recovered)| {
                    disk.leave(0);
                    journal.append(&[record(1, 4, 4)]).is_err_and(|error| error.is_full())
                };
                failed += u32::from(opened.is_ok_and(full));
            }
            let (mut journal, _) = open(copy.path());
            let given = journal.append(&[record(1, 4, 4)]).unwrap();
            assert!(given > Sequence(3), "{what}, {left} bytes of room: {given} is given again");
            drop(journal);
            let (journal, recovered) = open(copy.path());
            assert_eq!((recovered.truncated, recovered.damaged.len()), (None, 0), "{what}, {left}");
            assert!(cpu_values(&read(&journal.reader(), Sequence(0))).ends_with(&[4]));
            if left > 3 * bytes.len() as u64 {
                break;
            }
        }
        assert!(failed > 20, "{what}: the disk was full {failed} times");
    }
}
