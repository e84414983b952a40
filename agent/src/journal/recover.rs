//! Finding out what a journal's directory holds, and mending it.
//!
//! First everything is looked at, and what is not ours or newer than we are is an error before
//! anything was changed. Then each segment is read. Bytes after the last good record of the last
//! segment are an append that a crash cut: they are cut off. Any other damage is bad storage:
//! the segment is kept aside as `….damaged` for whoever wants to look, and a segment with its
//! good records takes its place. Refusing to start would stop metering for records that newer
//! ones supersede anyway, because records are cumulative.
//!
//! Where the end of the last segment is not whole, nobody can say how much was behind it: the
//! controller may have had many batches of a file that lost its end. So numbers go on behind all
//! that any segment could have held: what got one of theirs would be taken for a duplicate.
//! What shows that is taken away ([`Mending`]) only when a segment has begun whose name keeps the
//! jump: a start that is ended before that, or finds the disk full, leaves it for the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::Contents;
use super::error::JournalError;
use super::format::{Header, HeaderProblem, RECORDS_AT, VERSION};
use super::latest::Latest;
use super::recovered::{Damaged, TornTail};
use super::segment::{Segment, base_of, name};
use super::storage::{Replacement, Storage, UNFINISHED, sync_directory_of};

/// In the name of a segment that is kept aside.
const ASIDE: &str = ".damaged";

/// The beginning of no record.
const TORN: u8 = 0xff;

/// More batches than any segment can hold: a journal has 4 GiB at most.
const MOST_BATCHES: u64 = 1 << 32;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By base. Each is mended.
    pub(super) segments: Vec<Segment>,
    /// Of the newest checkpoint of this boot.
    pub(super) checkpoint: Option<Vec<u8>>,
    pub(super) acknowledged: u64,
    /// The highest sequence number that was ever given, as far as can be told.
    pub(super) highest: u64,
    pub(super) latest: Latest,
    pub(super) truncated: Option<TornTail>,
    pub(super) damaged: Vec<Damaged>,
    /// To be carried out when numbers have gone on in a new segment.
    pub(super) mendings: Vec<Mending>,
    /// Files that earlier runs kept aside.
    pub(super) kept_aside: Vec<PathBuf>,
}

/// What takes away the last sign that the end of the last segment was not whole.
#[derive(Debug)]
pub(super) enum Mending {
    /// Cuts off what is behind the last good record.
    Cut { path: PathBuf, file: Arc<File>, length: u64 },
    /// Removes a segment that is kept aside under another name.
    Remove { path: PathBuf },
}

impl Mending {
    pub(super) fn carry_out(&self, storage: &dyn Storage) -> Result<(), JournalError> {
        match self {
            Self::Cut { path, file, length } => storage
                .truncate(file, *length)
                .and_then(|()| storage.sync(file))
                .map_err(|source| JournalError::system("cut the torn tail of", path, source)),
            Self::Remove { path } => fs::remove_file(path)
                .and_then(|()| sync_directory_of(path))
                .map_err(|source| JournalError::system("keep aside", path, source)),
        }
    }
}

struct Candidate {
    path: PathBuf,
    base: u64,
    /// With whether both copies are good; `None`: neither is.
    header: Option<(Header, bool)>,
}

/// Looks, mends and reads. `boot`: the one that is now.
pub(super) fn recover(
    storage: &dyn Storage,
    directory: &Path,
    boot: &str,
) -> Result<Found, JournalError> {
    let mut found = Found::default();
    let (candidates, unfinished) = list(directory, &mut found)?;
    let candidates = look(candidates)?;
    for path in unfinished {
        remove(&path)?;
    }
    let (mut covered, mut most_covered) = (0, 0);
    let mut candidates = candidates.into_iter().peekable();
    while let Some(candidate) = candidates.next() {
        let next = candidates.peek().map(|next| next.base);
        if candidate.base <= covered {
            // A crash came between putting the shorter segment in place and this.
            remove(&candidate.path)?;
            continue;
        }
        covered = candidate.header.as_ref().map_or(covered, |(header, _)| header.covers);
        most_covered = covered.max(most_covered);
        found.highest = found.highest.max(candidate.base - 1);
        take(storage, &mut found, candidate, boot, next)?;
    }
    // A segment with a number up to there would be taken for one that is done with.
    found.highest = found.highest.max(found.acknowledged).max(most_covered);
    Ok(found)
}

type Listed = (Vec<(u64, PathBuf)>, Vec<PathBuf>);

fn list(directory: &Path, found: &mut Found) -> Result<Listed, JournalError> {
    let failed = |source| JournalError::system("list", directory, source);
    let mut segments = Vec::new();
    let mut unfinished = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let text = path.to_string_lossy();
        if let Some(base) = base_of(&path) {
            segments.push((base, path));
        } else if text.ends_with(UNFINISHED) {
            unfinished.push(path);
        } else if text.contains(ASIDE) {
            found.kept_aside.push(path);
        }
    }
    segments.sort();
    found.kept_aside.sort();
    Ok((segments, unfinished))
}

fn look(segments: Vec<(u64, PathBuf)>) -> Result<Vec<Candidate>, JournalError> {
    let mut candidates = Vec::new();
    let mut journal = None;
    for (base, path) in segments {
        let header = match Header::decode(&beginning(&path)?) {
            Ok(header) => Some(header),
            Err(HeaderProblem::Damaged) => None,
            Err(HeaderProblem::Foreign) => return Err(JournalError::Foreign { path }),
            Err(HeaderProblem::Newer { version }) => {
                return Err(JournalError::NewerVersion { path, version, known: VERSION });
            }
        };
        if let Some((header, _)) = &header {
            let expected = *journal.get_or_insert(header.journal);
            if header.journal != expected {
                let (found, expected) = (header.journal.to_string(), expected.to_string());
                return Err(JournalError::Mixed { path, found, expected });
            }
            if header.base != base {
                let name = name(header.base);
                return Err(JournalError::Misnamed { path, base: header.base, name });
            }
        }
        candidates.push(Candidate { path, base, header });
    }
    Ok(candidates)
}

fn beginning(path: &Path) -> Result<Vec<u8>, JournalError> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_file());
    if !is_file {
        return Err(JournalError::Foreign { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(RECORDS_AT).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| JournalError::system("read", path, source))?;
    Ok(bytes)
}

fn take(
    storage: &dyn Storage,
    found: &mut Found,
    candidate: Candidate,
    boot: &str,
    next: Option<u64>,
) -> Result<(), JournalError> {
    let path = &candidate.path;
    let is_last = next.is_none();
    let bytes = fs::read(path).map_err(|source| JournalError::system("read", path, source))?;
    let Some((header, both)) = candidate.header else {
        let aside =
            link_aside(path).map_err(|source| JournalError::system("keep aside", path, source))?;
        found.damaged.push(Damaged::whole(path, aside, bytes.len()));
        let removal = Mending::Remove { path: path.clone() };
        if is_last {
            found.highest += MOST_BATCHES;
            found.mendings.push(removal);
            return Ok(());
        }
        return removal.carry_out(storage);
    };
    let this_boot = header.boot == boot;
    let latest = &mut found.latest;
    let contents = Contents::read(&bytes, found.highest, |batch| {
        if this_boot {
            latest.note(batch);
        }
    });
    if let Some(range) = contents.checkpoint.clone().filter(|_| this_boot) {
        found.checkpoint = Some(bytes[range].to_vec());
    }
    found.acknowledged = found.acknowledged.max(contents.acknowledged);
    found.highest = contents.last().unwrap_or(found.highest);
    let good_end = contents.good.last().map_or(RECORDS_AT, |range| range.end);
    let lost_at_end = bytes.len().saturating_sub(good_end);
    // A segment gets its name only when both its headers are on the disk.
    let is_cut = bytes.len() < RECORDS_AT || contents.is_damaged_after_last();
    // Or was when numbers jumped, but the agent was ended before it was mended.
    let was_last = next.is_none_or(|next| next > found.highest + MOST_BATCHES);
    let is_given_up = is_last && is_cut;
    if is_given_up {
        found.highest += MOST_BATCHES;
    }
    let torn = was_last && both && contents.damage.len() == 1 && lost_at_end > 0;
    let segment = if torn {
        found.truncated = Some(TornTail::new(path, good_end, lost_at_end));
        open(path, header, &contents, good_end)?
    } else if both && contents.damage.is_empty() {
        open(path, header, &contents, bytes.len())?
    } else {
        let (segment, damaged) = repair(storage, path, header, &bytes, (&contents, is_given_up))?;
        found.damaged.push(damaged);
        segment
    };
    let cut = (torn || is_given_up).then(|| Mending::Cut {
        path: segment.path.clone(),
        file: Arc::clone(&segment.file),
        length: segment.length,
    });
    found.segments.push(segment);
    match cut {
        Some(cut) if is_last => found.mendings.push(cut),
        Some(cut) => cut.carry_out(storage)?,
        None => {}
    }
    Ok(())
}

fn open(
    path: &Path,
    header: Header,
    contents: &Contents,
    length: usize,
) -> Result<Segment, JournalError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| JournalError::system("open", path, source))?;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let entries = contents.entries.clone();
    Ok(Segment { header, path: path.to_owned(), file: Arc::new(file), length, entries })
}

/// Puts a segment with the good records in place; one that is `torn` also looks so until it is cut.
fn repair(
    storage: &dyn Storage,
    path: &Path,
    header: Header,
    bytes: &[u8],
    (contents, torn): (&Contents, bool),
) -> Result<(Segment, Damaged), JournalError> {
    let failed = |source| JournalError::system("put the good records in place of", path, source);
    let aside = link_aside(path).map_err(failed)?;
    let mut mended = Replacement::begin(storage, path).map_err(failed)?;
    let mut all = header.encode().to_vec();
    for range in &contents.good {
        all.extend_from_slice(&bytes[range.clone()]);
    }
    mended.write(&all).map_err(failed)?;
    if torn {
        mended.write(&[TORN]).map_err(failed)?;
    }
    let file = Arc::new(mended.finish().map_err(failed)?);
    let after = contents.entries.first().map_or(0, |entry| entry.sequence - 1);
    let entries = Contents::read(&all, after, |_| {}).entries;
    let length = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let damaged = Damaged::new(path, aside, contents);
    Ok((Segment { header, path: path.to_owned(), file, length, entries }, damaged))
}

/// Gives a file a second name that says what it is. A link, so that there is no moment in which
/// a crash would leave it without its first name.
pub(super) fn link_aside(path: &Path) -> io::Result<PathBuf> {
    let original = fs::metadata(path)?;
    for attempt in 0..u32::MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(ASIDE);
        if attempt > 0 {
            aside.push(format!(".{attempt}"));
        }
        let aside = PathBuf::from(aside);
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                // From a run that was ended before it could put the good records in place.
                let other = fs::symlink_metadata(&aside)?;
                if (other.dev(), other.ino()) == (original.dev(), original.ino()) {
                    return Ok(aside);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn remove(path: &Path) -> Result<(), JournalError> {
    fs::remove_file(path).map_err(|source| JournalError::system("remove", path, source))
}
