//! A journal as it was written, and then anything done to its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bulkhead_agent::journal::Journal;

use super::{BOOT, ROOMY, content, read, record, value_of};
use crate::choices::Choices;

/// What was written.
struct Written {
    /// Values by batch.
    batches: BTreeMap<u64, Vec<u64>>,
    /// Every state that was ever put.
    checkpoints: Vec<Vec<u8>>,
    last: u64,
}

/// How files were damaged.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// Anything at all.
    any: bool,
    /// Whole files are gone, or the ends of files.
    shorter: bool,
}

/// What is found is what was written, some of it; what is lost is told; numbers are not used
/// twice; and a second look finds nothing more to mend.
pub fn any_damage(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut choices = Choices::new(data);
    let written = write(&mut choices, directory);
    let mut done = Done::default();
    for _ in 0..=choices.below(4) {
        damage(&mut choices, directory, &mut done);
    }
    let before = content(directory);
    let (mut journal, found) = match Journal::open(directory, ROOMY, BOOT) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(done.any, "an undamaged journal is opened: {error}");
            assert_eq!(content(directory), before, "a refused journal is left alone");
            return;
        }
    };
    let batches = read(&journal.reader(), 0);
    for (boot, batch) in &batches {
        assert_eq!(boot, BOOT);
        let values: Vec<u64> = batch.records.iter().filter_map(value_of).collect();
        assert_eq!(written.batches.get(&batch.sequence), Some(&values), "as it was written");
    }
    assert!(found.checkpoint.as_ref().is_none_or(|it| written.checkpoints.contains(it)));
    let expected = written.batches.range(found.acknowledged.0 + 1..).count();
    let told = !found.damaged.is_empty() || found.truncated.is_some();
    if !told && !done.shorter {
        let there = batches.iter().filter(|(_, batch)| batch.sequence > found.acknowledged.0);
        assert_eq!(there.count(), expected, "nothing is lost in silence");
    }
    let next = journal.append(&[record(1, 1_000_000)]).expect("it goes on");
    assert!(done.shorter || next.0 > written.last, "{next} was given to another batch");
    let acknowledged = journal.reader().acknowledged().0;
    let now = read(&journal.reader(), acknowledged);
    drop(journal);
    let (journal, again) = Journal::open(directory, ROOMY, BOOT).expect("it was mended");
    assert_eq!((again.damaged, again.truncated), (Vec::new(), None));
    assert_eq!((again.acknowledged.0, again.checkpoint), (acknowledged, found.checkpoint));
    assert_eq!(read(&journal.reader(), acknowledged), now);
}

fn write(choices: &mut Choices<'_>, directory: &Path) -> Written {
    let (mut journal, _) = Journal::open(directory, ROOMY, BOOT).expect("an empty directory");
    let mut written = Written { batches: BTreeMap::new(), checkpoints: Vec::new(), last: 0 };
    let mut value = 0;
    for _ in 0..=choices.below(24) {
        let records: Vec<_> = (0..=choices.below(3))
            .map(|cgroup| {
                value += 1;
                record(cgroup.into(), value)
            })
            .collect();
        let checkpoint =
            choices.yes().then(|| vec![choices.byte(); 1 + usize::from(choices.byte())]);
        let sequence = journal.append_with(&records, checkpoint.as_deref()).expect("there is room");
        let values = value + 1 - u64::try_from(records.len()).expect("few")..=value;
        written.batches.insert(sequence.0, values.collect());
        written.checkpoints.extend(checkpoint);
        if choices.below(16) == 1 {
            journal.acknowledge(sequence).expect("there is room");
        }
    }
    written.last = journal.last().0;
    written
}

fn damage(choices: &mut Choices<'_>, directory: &Path, done: &mut Done) {
    let files = content(directory);
    let index = usize::from(choices.byte()) % files.len().max(1);
    let Some((name, mut bytes)) = files.into_iter().nth(index) else { return };
    let path = directory.join(&name);
    let at = match bytes.len() {
        0 => 0,
        length => (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % length,
    };
    let count = usize::from(choices.byte());
    let end = (at + count).min(bytes.len());
    match choices.below(8) {
        0 => return,
        1 | 2 if at < bytes.len() => bytes[at] ^= choices.byte().max(1),
        3 => bytes[at..end].fill(choices.byte()),
        4 => {
            bytes.truncate(at);
            done.shorter = true;
        }
        5 => {
            bytes.splice(at..at, choices.bytes(count).iter().copied());
        }
        6 => {
            bytes.drain(at..end);
            done.shorter = true;
        }
        _ => {
            fs::remove_file(&path).expect("it is there");
            (done.any, done.shorter) = (true, true);
            return;
        }
    }
    done.any = true;
    fs::write(&path, bytes).expect("write what is damaged");
}
