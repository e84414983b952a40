use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use bulkhead_core::sample::UnixNanos;
use bulkhead_core::usage::{Epoch, UsageRecord, Window};
use bulkhead_core::{CgroupId, Meter, VirtualClusterName, VirtualClusterNumber};
use bulkhead_proto::v1;

use super::*;
use crate::query::{Reading, Span};

mod model;

impl Ledger {
    /// Everything that usage is made of, without the numbers that rows happen to have.
    pub(crate) fn dump(&self) -> Result<Vec<String>, LedgerError> {
        const VALUES: [&str; 2] = [
            "SELECT 'record', i.name, n.name, b.boot_id, s.cgroup, s.epoch, r.window_start,
                    r.window_length, r.counted
             FROM record r JOIN series s ON s.id = r.series JOIN boot b ON b.id = s.boot
             JOIN node n ON n.id = b.node JOIN identity i ON i.number = s.virtual_cluster",
            "SELECT 'peak', i.name, n.name, b.boot_id, s.cgroup, s.epoch, p.span, p.highest
             FROM peak p JOIN series s ON s.id = p.series JOIN boot b ON b.id = s.boot
             JOIN node n ON n.id = b.node JOIN identity i ON i.number = s.virtual_cluster",
        ];
        const PARTS: [&str; 2] = [
            "SELECT 'coverage', i.name, n.name, c.families, c.start, c.end FROM coverage c
             JOIN node n ON n.id = c.node JOIN identity i ON i.number = c.virtual_cluster",
            "SELECT 'pair', i.name, n.name, p.first_start FROM pair p
             JOIN node n ON n.id = p.node JOIN identity i ON i.number = p.virtual_cluster",
        ];
        self.read("dump", |transaction| {
            let mut all = Vec::new();
            for part in VALUES.iter().chain(&PARTS) {
                let mut statement = transaction.prepare(part)?;
                let columns = statement.column_count();
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let values = (0..columns).map(|column| {
                        let blob = row.get_ref(column)?.as_blob().ok();
                        let packed = blob.map(|packed| values::Values::unpack(packed).unwrap());
                        let plain: rusqlite::types::Value = row.get(column)?;
                        Ok(packed.map_or(format!("{plain:?}"), |values| format!("{values:?}")))
                    });
                    all.push(values.collect::<rusqlite::Result<Vec<_>>>()?.join(", "));
                }
            }
            all.sort();
            Ok(all)
        })
    }
}

fn stream(journal: &str) -> StreamKey {
    StreamKey { node: "n1".to_owned(), journal: journal.to_owned(), boot: "b1".to_owned() }
}

fn record(name: &str, number: u32, start: u64, value: u64) -> UsageRecord {
    UsageRecord {
        virtual_cluster: name.parse().unwrap(),
        number: VirtualClusterNumber::new(number).unwrap(),
        cgroup: CgroupId(7),
        epoch: Epoch(0),
        window: Window { start: UnixNanos(start), length_nanoseconds: 60 },
        values: BTreeMap::from([(Meter::CPU_USAGE, value)]),
    }
}

fn batch(sequence: u64, value: u64) -> Batch {
    Batch { sequence, records: vec![record("a", 1, 60, value)] }
}

fn names(names: &[&str]) -> BTreeSet<VirtualClusterName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn a_batch_that_is_here_already_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    let merged = ledger.merge(&stream("j"), &batch(5, 10), 1).unwrap();
    assert_eq!((merged.acknowledged, merged.duplicate), (5, false));
    let before = ledger.dump().unwrap();
    for sequence in [5, 4, 1] {
        let merged = ledger.merge(&stream("j"), &batch(sequence, 99), 1).unwrap();
        assert_eq!((merged.acknowledged, merged.duplicate), (5, true));
    }
    assert_eq!(ledger.dump().unwrap(), before);
    assert_eq!(ledger.acknowledged(&stream("j")).unwrap(), 5);
    assert_eq!(ledger.acknowledged(&stream("other")).unwrap(), 0);
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let ledger = Ledger::open(dir.path(), None).unwrap();
        ledger.merge(&stream("j"), &batch(1, 10), 1).unwrap();
        ledger.dump().unwrap()
    };
    let ledger = Ledger::open(dir.path(), None).unwrap();
    assert_eq!(ledger.dump().unwrap(), before);
    assert_eq!(ledger.acknowledged(&stream("j")).unwrap(), 1);
}

#[test]
fn another_boot_is_another_series() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    ledger.merge(&stream("j"), &batch(1, 10), 1).unwrap();
    let rebooted = StreamKey { boot: "b2".to_owned(), ..stream("j") };
    ledger.merge(&rebooted, &batch(2, 3), 1).unwrap();
    let records = ledger.dump().unwrap();
    assert_eq!(records.iter().filter(|row| row.contains("record")).count(), 2, "{records:?}");
}

#[test]
fn numbers_last_and_are_never_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = {
        let ledger = Ledger::open(dir.path(), None).unwrap();
        let first = ledger.numbers(&names(&["a", "b"])).unwrap();
        assert_eq!(ledger.numbers(&names(&["b"])).unwrap().len(), 1);
        first
    };
    let ledger = Ledger::open(dir.path(), None).unwrap();
    let later = ledger.numbers(&names(&["b", "c"])).unwrap();
    let [b, c] = ["b", "c"].map(|name| name.parse::<VirtualClusterName>().unwrap());
    assert_eq!(later[&b], numbers[&b]);
    assert!(numbers.values().all(|given| *given != later[&c]));
}

/// A disk went, and the sum over all of them with it.
#[test]
fn a_counter_that_falls_does_not_grow_until_it_passes_its_highest() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    let high = 1 << 63;
    let values = [high - 10, high + 5, 20, high - 1, high + 6, high + 9];
    let records = (0..).zip(values).map(|(n, value)| record("a", 1, n * 60, value)).collect();
    ledger.merge(&stream("j"), &Batch { sequence: 1, records }, 1).unwrap();
    let levels = |edges: &[u64]| {
        let spans: Vec<Span> =
            edges.windows(2).map(|edge| Span { start: edge[0], end: edge[1] }).collect();
        let mut facts = ledger.facts(&Selection::default(), &spans).unwrap();
        let Some((_, Reading::Counter(levels))) = facts.series.pop() else {
            panic!("one counter: {facts:?}");
        };
        levels
    };
    let (fell, risen) = (high + 5, high + 6);
    let every = levels(&[0, 60, 120, 180, 240, 300, 360]);
    assert_eq!(every, [0, high - 10, fell, fell, fell, risen, high + 9]);
    // What an edge shows does not depend on where the question begins.
    assert_eq!(levels(&[180, 240, 300, 360]), every[3..]);
    assert_eq!(levels(&[0, 360]), [0, high + 9]);
}

#[test]
fn an_agent_s_numbers_are_taken_over_where_free_and_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    // The agent outlived our data directory.
    let learnt = Batch { sequence: 1, records: vec![record("a", 41, 0, 5)] };
    ledger.merge(&stream("j"), &learnt, 1).unwrap();
    let numbers = ledger.numbers(&names(&["a", "b"])).unwrap();
    assert_eq!(numbers.values().map(|number| number.get()).collect::<Vec<_>>(), [41, 42]);
    // Its number is another, its number is of another name, its number is the last there is.
    let odd = [("a", 7), ("c", 41), ("d", u32::MAX), ("e", 7)];
    let records = odd.map(|(name, number)| record(name, number, 60, 9)).to_vec();
    let merged = ledger.merge(&stream("j"), &Batch { sequence: 2, records }, 1).unwrap();
    assert_eq!(merged.acknowledged, 2);
    let given = ledger.numbers(&names(&["a", "b", "c", "d", "e", "f"])).unwrap();
    let given: Vec<u32> = given.values().map(|number| number.get()).collect();
    assert_eq!(given, [41, 42, 43, 44, 7, 45]);
    let rows = ledger.dump().unwrap();
    for name in ["a", "c", "d", "e"] {
        let of = |row: &&String| row.contains("record") && row.contains(&format!("\"{name}\""));
        let expected = if name == "a" { 2 } else { 1 };
        assert_eq!(rows.iter().filter(of).count(), expected, "{name}: {rows:?}");
    }
}

type Make = fn(&Path);

#[test]
fn a_file_that_is_not_ours_is_named_and_not_touched() {
    let text = |path: &Path| fs::write(path, "my notes\n").unwrap();
    let long = |path: &Path| fs::write(path, "my notes\n".repeat(100)).unwrap();
    let other = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE notes (n)").unwrap();
    };
    let newer = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA application_id=1112229956; PRAGMA user_version=9; CREATE TABLE n (n)",
            )
            .unwrap();
    };
    let older = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA application_id=1112229956; PRAGMA user_version=1; CREATE TABLE n (n)",
            )
            .unwrap();
    };
    let kinds: [(Make, &str); 5] = [
        (text, "no SQLite database"),
        (long, "no SQLite database"),
        (other, "of another program"),
        (newer, "has ledger version 9"),
        (older, "has ledger version 1, this program knows 2 only"),
    ];
    for (make, found) in kinds {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        make(&path);
        let before = fs::read(&path).unwrap();
        let error = Ledger::open(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains(found) && error.contains("ledger.db"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let beside = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(beside, 2, "the file and our lock");
    }
}

#[test]
fn what_was_used_is_read_by_its_owner_only() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    {
        let ledger = Ledger::open(dir.path(), None).unwrap();
        ledger.merge(&stream("j"), &batch(1, 10), 1).unwrap();
        for name in [FILE, "ledger.db-wal", "ledger.db-shm"] {
            assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(ledger.acknowledged(&stream("j")).unwrap(), 1);
}

/// A batch that failed half way leaves nothing behind, also not in what the writer remembers.
#[test]
fn what_was_taken_back_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), None).unwrap();
    ledger.merge(&stream("j"), &batch(1, 10), 1).unwrap();
    let before = ledger.dump().unwrap();
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    let refuse = "CREATE TRIGGER no BEFORE INSERT ON stream
                  BEGIN SELECT RAISE(ABORT, 'no room'); END";
    other.execute_batch(refuse).unwrap();
    let records = vec![record("a", 1, 60, 99), record("a", 1, 120, 100), record("b", 2, 60, 5)];
    let second = Batch { sequence: 2, records };
    ledger.merge(&stream("j"), &second, 1).unwrap_err();
    assert_eq!(ledger.dump().unwrap(), before);
    other.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(ledger.merge(&stream("j"), &second, 1).unwrap().acknowledged, 2);
    let fresh_dir = tempfile::tempdir().unwrap();
    let fresh = Ledger::open(fresh_dir.path(), None).unwrap();
    for batch in [&batch(1, 10), &second] {
        fresh.merge(&stream("j"), batch, 1).unwrap();
    }
    assert_eq!(ledger.dump().unwrap(), fresh.dump().unwrap());
}

#[test]
fn a_second_controller_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Ledger::open(dir.path(), None).unwrap();
    let second = Ledger::open(dir.path(), None);
    assert!(matches!(second, Err(LedgerError::InUse { .. })), "{second:?}");
}

#[test]
fn a_full_disk_stores_nothing_and_room_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), Some(40)).unwrap();
    let large = |sequence| Batch {
        sequence,
        records: (0..400).map(|n| record("a", 1, sequence * 60_000 + n * 60, 5)).collect(),
    };
    let mut stored = 0;
    let error = loop {
        match ledger.merge(&stream("j"), &large(stored + 1), 1) {
            Ok(merged) => stored = merged.acknowledged,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the limit is not kept");
    };
    assert!(matches!(error, LedgerError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("ledger.db"), "{error}");
    assert_eq!(ledger.acknowledged(&stream("j")).unwrap(), stored);
    let before = ledger.dump().unwrap();
    drop(ledger);
    let ledger = Ledger::open(dir.path(), None).unwrap();
    assert_eq!(ledger.dump().unwrap(), before);
    assert_eq!(ledger.merge(&stream("j"), &large(stored + 1), 1).unwrap().acknowledged, stored + 1);
}

#[test]
fn nodes_generations_and_good_files_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let facts = v1::NodeFacts { addresses: vec!["10.0.0.1".to_owned()], ..Default::default() };
    let node = KnownNode { name: "n1".to_owned(), last_seen: 9, facts };
    let files = vec![GoodFile { name: "a.yaml".to_owned(), content: "x: 1".to_owned() }];
    {
        let ledger = Ledger::open(dir.path(), None).unwrap();
        assert_eq!(ledger.good_files().unwrap(), []);
        ledger.remember_node(&node).unwrap();
        ledger.remember_files(&files).unwrap();
        assert_eq!(ledger.count_generations(1).unwrap(), 1);
    }
    let ledger = Ledger::open(dir.path(), None).unwrap();
    ledger.merge(&stream("j"), &batch(1, 1), 20).unwrap();
    assert_eq!(ledger.nodes().unwrap(), [KnownNode { last_seen: 20, ..node }]);
    assert_eq!(ledger.good_files().unwrap(), files);
    assert_eq!(ledger.count_generations(64).unwrap(), 65);
}
