//! How soon a question about usage is answered after a long time.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bulkhead_controller::Ledger;
use bulkhead_proto::{time, v1};
use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::statistics::{TOLERATED_SPREAD, median, spread};

use super::load::{BEGIN, Load, WINDOW};
use super::ours;
use super::peer::Table;

const DAY: u64 = 24 * 60 * WINDOW;

/// The question's days, at the end.
const ASKED_DAYS: u64 = 30;

/// Measures the question for the last 30 days, day by day.
pub(super) fn measure(scratch: &Path, rounds: u32, days: u64, machine: &str) -> Result<Vec<Row>> {
    ensure!(days > ASKED_DAYS, "the question is for {ASKED_DAYS} days, with some before them");
    let ledger = Ledger::open(&scratch.join("long"), None).context("open a ledger")?;
    let mut table = Table::create(&scratch.join("long.db"))?;
    let mut load = Load::of(1, 1);
    while load.now() < BEGIN + days * DAY {
        // One batch for many windows, as after an outage.
        let mut turns = (0..24 * 60).flat_map(|_| load.last_turns());
        let mut first = turns.next().context("a day has windows")?;
        for turn in turns {
            first.batch.records.extend(turn.batch.records);
        }
        ours(&ledger, &first)?;
        table.merge(&first)?;
    }
    let end = load.now();
    let start = end - ASKED_DAYS * DAY;
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        let used = total(&ledger, &question(Some((start, end)), Some(DAY)), end)?;
        mine.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        let peer = table.ask((start, end), DAY)?;
        theirs.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(used == peer, "the ledger says {used} ns of CPU time, the table {peer}");
        eprintln!("round {round}: ours {:?} ms, peer {:?} ms", mine.last(), theirs.last());
    }
    Ok(vec![row(&mine, &theirs, days, machine)])
}

fn row(mine: &[f64], theirs: &[f64], days: u64, machine: &str) -> Row {
    let (ours, peer, noise) = (median(mine), median(theirs), spread(theirs));
    Row {
        name: format!("a usage question after {days} days of one-minute windows"),
        unit: "ms".to_owned(),
        ours,
        peer: Some(peer),
        peer_name: Some(format!(
            "SQLite {}, one table with a row for each value, GROUP BY day",
            rusqlite::version()
        )),
        ratio: (noise <= TOLERATED_SPREAD).then_some(ours / peer),
        goal: "none was set".to_owned(),
        met: None,
        spread: format!(
            "middle half within {:.0} % (peer {:.0} %), {} rounds",
            spread(mine) * 100.0,
            noise * 100.0,
            mine.len()
        ),
        machine: machine.to_owned(),
        note: format!(
            "one virtual cluster on one node, all meters, the last {ASKED_DAYS} days, day by day; \
             both grow with the number of virtual clusters, the peer also with the days before; \
             the pages are in the system's cache"
        ),
        profile: String::new(),
    }
}

/// CPU time of all that there is, nanoseconds.
pub(super) fn cpu_time(ledger: &Ledger, now: u64) -> Result<u64> {
    total(ledger, &question(None, None), now)
}

fn question(range: Option<(u64, u64)>, step: Option<u64>) -> v1::QueryUsageRequest {
    v1::QueryUsageRequest {
        start: range.map(|(start, _)| time::timestamp(start)),
        end: range.map(|(_, end)| time::timestamp(end)),
        step: step.map(time::duration),
        ..v1::QueryUsageRequest::default()
    }
}

/// CPU time of all pages of an answer, nanoseconds.
fn total(ledger: &Ledger, question: &v1::QueryUsageRequest, now: u64) -> Result<u64> {
    let mut question = question.clone();
    let mut sum = 0;
    loop {
        let page = ledger.answer(&question, now).context("ask for usage")?;
        sum += page.rows.iter().filter_map(|row| Some(row.cpu?.usage_nanoseconds)).sum::<u64>();
        if page.next_page_token.is_empty() {
            return Ok(sum);
        }
        question.page_token = page.next_page_token;
    }
}
