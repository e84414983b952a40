//! The tables.

use rusqlite::Connection;

/// "BKHD": whose database this is, in its header.
pub(super) const APPLICATION_ID: u32 = 0x424b_4844;

/// Version of the tables, in the header too.
pub(super) const VERSION: u32 = 2;

/// Times are nanoseconds since the Unix epoch. `number` of an identity is never given again.
/// `series` is a dictionary: what a record would otherwise repeat. `counted` and `highest` are
/// packed values of meters (see `values`); in `record`, counters are the highest so far, so that
/// one row says what they stood at. `peak` has the highest values of gauges in each hour.
/// `coverage` holds, for each combination of families of meters that came together, the spans of
/// time for which there are records; spans that touch are one.
const TABLES: &str = "
CREATE TABLE identity (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE generation (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    value INTEGER NOT NULL
) STRICT;
INSERT INTO generation VALUES (1, 0);
CREATE TABLE good_file (
    name TEXT PRIMARY KEY,
    content TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_seen INTEGER NOT NULL,
    facts BLOB NOT NULL
) STRICT;
CREATE TABLE boot (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL REFERENCES node,
    boot_id TEXT NOT NULL,
    UNIQUE (node, boot_id)
) STRICT;
CREATE TABLE stream (
    node INTEGER NOT NULL REFERENCES node,
    journal TEXT NOT NULL,
    acknowledged INTEGER NOT NULL,
    PRIMARY KEY (node, journal)
) STRICT, WITHOUT ROWID;
CREATE TABLE pair (
    virtual_cluster INTEGER NOT NULL REFERENCES identity,
    node INTEGER NOT NULL REFERENCES node,
    first_start INTEGER NOT NULL,
    PRIMARY KEY (virtual_cluster, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    virtual_cluster INTEGER NOT NULL REFERENCES identity,
    boot INTEGER NOT NULL REFERENCES boot,
    cgroup INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    UNIQUE (virtual_cluster, boot, cgroup, epoch)
) STRICT;
CREATE TABLE record (
    series INTEGER NOT NULL REFERENCES series,
    window_start INTEGER NOT NULL,
    window_length INTEGER NOT NULL,
    counted BLOB NOT NULL,
    PRIMARY KEY (series, window_start, window_length)
) STRICT, WITHOUT ROWID;
CREATE TABLE peak (
    series INTEGER NOT NULL REFERENCES series,
    span INTEGER NOT NULL,
    highest BLOB NOT NULL,
    PRIMARY KEY (series, span)
) STRICT, WITHOUT ROWID;
CREATE TABLE coverage (
    virtual_cluster INTEGER NOT NULL REFERENCES identity,
    node INTEGER NOT NULL REFERENCES node,
    families INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    PRIMARY KEY (virtual_cluster, node, families, start)
) STRICT, WITHOUT ROWID;
";

/// What SQLite keeps of the file in memory, KiB: the pages that the newest windows of a hundred
/// nodes are on.
const CACHE_KIB: i64 = 64 << 10;

/// Pages of the log after which it is put into the file: 64 MiB, so that a page that many batches
/// change is not written there for each of them.
const CHECKPOINT_PAGES: i64 = 16 << 10;

/// Makes the tables where there are none, and sets how SQLite keeps them: a commit is on disk
/// when it returns (FULL), and readers do not wait for writers (WAL).
pub(super) fn prepare(
    connection: &mut Connection,
    page_limit: Option<u32>,
) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    // After the tables, so that the header says whose file it is before WAL can hold it back.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    if let Some(pages) = page_limit {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    Ok(())
}
