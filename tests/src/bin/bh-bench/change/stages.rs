//! Where the time of a change goes, by what controller and agent write to their logs.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::bench::statistics::quantile;
use jiff::Timestamp;

/// What the controller writes when it has made a generation of the objects.
const MADE: &str = "what agents must know has changed";
/// What the agent writes when it has that generation.
const HEARD: &str = "the controller says";

/// A change: before the rename, and the first datagram that was judged by it, since the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begun: Duration,
    pub(super) judged: Duration,
}

/// What happened in each change, as a sentence.
pub(super) fn told(spans: &[Span], controller: &str, agent: &str) -> Result<String> {
    let (made, heard) = (times(controller, MADE)?, times(agent, HEARD)?);
    let mut parts: [Vec<f64>; 3] = Default::default();
    for span in spans {
        let (Some(made), Some(heard)) = (first(&made, *span), first(&heard, *span)) else {
            continue;
        };
        let times = [
            made.saturating_sub(span.begun),
            heard.saturating_sub(made),
            span.judged.saturating_sub(heard),
        ];
        for (part, time) in parts.iter_mut().zip(times) {
            part.push(time.as_secs_f64() * 1e3);
        }
    }
    let known = parts[0].len();
    ensure!(known * 10 >= spans.len() * 9, "the logs tell of {known} of {} changes", spans.len());
    let names = ["file read and checked, generation made", "told to the agent", "enforced by it"];
    let said = names.iter().zip(&parts).map(|(name, part)| {
        format!("{name}: {:.1} ms (p99 {:.1})", quantile(part, 0.5), quantile(part, 0.99))
    });
    Ok(format!("medians of {known} changes, by the logs: {}", said.collect::<Vec<_>>().join("; ")))
}

/// The first that is in the span.
fn first(times: &[Duration], span: Span) -> Option<Duration> {
    times.iter().copied().find(|time| (span.begun..=span.judged).contains(time))
}

/// When a line with these words was written, since the epoch.
fn times(log: &str, words: &str) -> Result<Vec<Duration>> {
    let of = |line: &str| {
        let stamp = line.split_whitespace().next().context("an empty line")?;
        let stamp: Timestamp = stamp.parse().with_context(|| format!("time {stamp:?} of a log"))?;
        Duration::try_from(stamp.as_duration()).context("a log of before 1970")
    };
    log.lines().filter(|line| line.contains(words)).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_told_by_its_median() {
        let at = |milliseconds: u64| Duration::from_millis(1_000_000 + milliseconds);
        let spans = [Span { begun: at(0), judged: at(30) }];
        let controller = "1970-01-01T00:16:40.010000Z  INFO what agents must know has changed\n";
        let agent = "1970-01-01T00:16:40.015000Z  INFO the controller says generation=2\n";
        let said = told(&spans, controller, agent).expect("all is there");
        assert!(said.contains("made: 10.0 ms") && said.contains("agent: 5.0 ms"), "{said}");
        assert!(said.ends_with("enforced by it: 15.0 ms (p99 15.0)"), "{said}");
        assert!(told(&spans, "", agent).is_err(), "a change of which the logs say nothing");
    }
}
