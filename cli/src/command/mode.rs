//! `enforce` and `observe`: show what would break, ask, change the mode, wait until it stands.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_api::object::Mode;
use bulkhead_proto::v1;
use bulkhead_proto::v1::query_usage_request::GroupBy;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::Session;
use super::usage::timestamp;
use crate::args::{Global, ModeArgs, Output};
use crate::breakage::{Breakage, breakage};
use crate::cluster::Cluster;
use crate::cluster::described::{Described, Progress, mode_change, word};
use crate::error::{CliError, Kind};
use crate::help::CalledAs;
use crate::out;
use crate::render::{self, Look};
use crate::view::change::{Change, Changes, Outcome};
use crate::view::usage::Row;

/// How far back is looked for what would break.
const BACK: SignedDuration = SignedDuration::from_hours(24);
/// How often is asked whether it stands.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// Asks, changes and waits.
pub(crate) async fn run(
    global: &Global,
    args: &ModeArgs,
    mode: Mode,
) -> Result<ExitCode, CliError> {
    let cluster = Cluster::open(global).await?;
    let mut names = args.names.clone();
    names.sort();
    names.dedup();
    let mut changes = Vec::new();
    // All of them first: a misspelt name must change nothing.
    for name in &names {
        let described = Described::of(&cluster.virtual_cluster(name).await?);
        changes.push((described, None));
    }
    if mode == Mode::Enforce {
        let range = range();
        let rows = rows(global, &names, range).await;
        for (described, found) in &mut changes {
            let row = rows.as_ref().map(|rows| {
                let own = |row: &&Row| row.virtual_cluster.as_ref() == Some(&described.name);
                rows.iter().find(own).cloned()
            });
            *found = Some(breakage(described, range, &row.map_err(Clone::clone)));
        }
        show(&changes, global.output)?;
    }
    if !args.dry_run && !args.yes && !agreed(mode, &names)? {
        out::note("nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let mut done = Changes { items: Vec::new() };
    for (described, would_deny) in changes {
        done.items.push(change(&cluster, args, mode, &described, would_deny).await);
    }
    if !args.dry_run {
        wait(&cluster, args.wait, mode, &mut done).await;
    }
    let look = Look { now: Zoned::now(), wide: global.output == Output::Wide, details: false };
    out::write(&render::document(&done, global.output, &look)?)?;
    let all = done.items.iter().all(|it| matches!(it.outcome, Outcome::Applied | Outcome::DryRun));
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn range() -> (Timestamp, Timestamp) {
    let end = Timestamp::now();
    (end.checked_sub(BACK).unwrap_or(Timestamp::UNIX_EPOCH), end)
}

/// What the ledger has of these, each in one row; or why it could not be asked.
async fn rows(
    global: &Global,
    names: &[String],
    (start, end): (Timestamp, Timestamp),
) -> Result<Vec<Row>, String> {
    let question = v1::QueryUsageRequest {
        start: Some(timestamp(start)),
        end: Some(timestamp(end)),
        group_by: vec![GroupBy::VirtualCluster.into()],
        virtual_clusters: names.to_vec(),
        ..Default::default()
    };
    let answer = async {
        // The controller of this very cluster, unless --server names one.
        let session = Session::open(global, CalledAs::KubectlPlugin).await?;
        session.client.usage(&question).await
    };
    let rows = answer.await.map_err(|error| error.to_string())?;
    Ok(rows.into_iter().map(Row::from).collect())
}

/// Before the question: where scripts read the answer, to standard error.
fn show(changes: &[(Described, Option<Breakage>)], output: Output) -> Result<(), CliError> {
    let told = changes
        .iter()
        .filter_map(|(described, found)| found.as_ref().map(|found| found.told(&described.name)));
    let text: String = told.collect();
    match output {
        Output::Table | Output::Wide => out::write(&text),
        Output::Json | Output::Yaml | Output::Csv => {
            text.lines().for_each(out::note);
            Ok(())
        }
    }
}

/// Whether whoever sits at the terminal says yes.
fn agreed(mode: Mode, names: &[String]) -> Result<bool, CliError> {
    let operation = format!("set {}", word(mode));
    let failed = |error: io::Error| CliError::new(Kind::Output, &operation, error);
    if !io::stdin().is_terminal() {
        let problem = "nobody can be asked: standard input is no terminal";
        return Err(CliError::new(Kind::Usage, operation, problem).mended_by("say --yes"));
    }
    let mut ask = io::stderr();
    write!(ask, "Set {} for {}? [y/N] ", word(mode), names.join(", ")).map_err(failed)?;
    ask.flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

async fn change(
    cluster: &Cluster,
    args: &ModeArgs,
    mode: Mode,
    described: &Described,
    would_deny: Option<Breakage>,
) -> Change {
    let api = cluster.virtual_clusters();
    let change = mode_change(Some(word(mode)));
    let changed = cluster.change(&api, &described.name, &change, args.dry_run).await;
    let (outcome, message) = match changed {
        Err(error) => (Outcome::Failed, error.to_string()),
        Ok(_) if args.dry_run => (Outcome::DryRun, "the API server would take it".to_owned()),
        Ok(_) => (Outcome::Pending, String::new()),
    };
    Change {
        name: described.name.clone(),
        before: described.asked.clone(),
        mode: word(mode).to_owned(),
        outcome,
        message,
        would_deny,
    }
}

/// Until everything stands, or the time is over.
async fn wait(cluster: &Cluster, limit: Duration, mode: Mode, changes: &mut Changes) {
    let all = async {
        loop {
            let mut is_waiting = false;
            for change in changes.items.iter_mut().filter(|it| it.outcome == Outcome::Pending) {
                (change.outcome, change.message) = match cluster.virtual_cluster(&change.name).await
                {
                    Err(error) => (Outcome::Pending, error.to_string()),
                    Ok(object) => match Described::of(&object).progress(mode) {
                        Progress::Done(message) => (Outcome::Applied, message),
                        Progress::Waiting(message) => (Outcome::Pending, message),
                        Progress::Refused(message) => (Outcome::Refused, message),
                    },
                };
                is_waiting |= change.outcome == Outcome::Pending;
            }
            if !is_waiting {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    // What was found out until then is in `changes`.
    let _ = tokio::time::timeout(limit, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(["y\n", "yes\n", " Y \n"].iter().all(|answer| is_yes(answer)));
        assert!(!["\n", "", "n\n", "yesterday\n", "no\n"].iter().any(|answer| is_yes(answer)));
    }

    #[test]
    fn a_day_is_looked_at() {
        let (start, end) = range();
        assert_eq!(end.duration_since(start), BACK);
    }
}
