//! Instants, durations and half-open ranges, as operators write them.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{Span, SpanRelativeTo, Timestamp, ToSpan as _, Zoned};

/// Why a time cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WhenError {
    /// Neither of the forms of [`instant`].
    #[error(
        "`{0}` is not a time; write 2025-03-01T10:00:00Z, a local time (2025-03-01T10:00), \
         a local date (2025-03-01), now, today or yesterday"
    )]
    Instant(String),
    /// Not a duration, or one without a fixed length.
    #[error("`{0}` is not a duration; write 90s, 15m, 1h30m or 7d")]
    Duration(String),
    /// Zero or less.
    #[error("`{0}` must be longer than nothing")]
    NotPositive(String),
    /// Nothing between start and end.
    #[error("the range is empty: its start {start} is not before its end {end}")]
    Empty {
        /// The first instant.
        start: Timestamp,
        /// The first instant after.
        end: Timestamp,
    },
}

/// Half-open: from `start`, up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First instant; nothing: the oldest record.
    pub(crate) start: Option<Timestamp>,
    /// First instant after. Always set, so that every page answers the same question.
    pub(crate) end: Timestamp,
}

/// The range that `--since`, `--start` and `--end` ask for; by default the last hour.
pub(crate) fn range(
    since: Option<&str>,
    start: Option<&str>,
    end: Option<&str>,
    now: &Zoned,
) -> Result<Range, WhenError> {
    let until = end.map_or_else(|| Ok(now.timestamp()), |text| instant(text, now))?;
    let from = match (since, start) {
        (Some(text), _) => Some(ago(text, now)?),
        (None, Some(text)) => Some(instant(text, now)?),
        (None, None) if end.is_none() => Some(ago("1h", now)?),
        (None, None) => None,
    };
    if let Some(start) = from
        && start >= until
    {
        return Err(WhenError::Empty { start, end: until });
    }
    Ok(Range { start: from, end: until })
}

/// A duration back from now (`1h`; a day is a local calendar day), or an instant (`today`).
fn ago(text: &str, now: &Zoned) -> Result<Timestamp, WhenError> {
    let Ok(span) = text.parse::<Span>() else {
        return instant(text, now);
    };
    if !span.is_positive() {
        return Err(WhenError::NotPositive(text.to_owned()));
    }
    now.checked_sub(span)
        .map(|then| then.timestamp())
        .map_err(|_| WhenError::Duration(text.to_owned()))
}

/// An instant: RFC 3339, local time, local date (its beginning), `now`, `today`, `yesterday`.
pub(crate) fn instant(text: &str, now: &Zoned) -> Result<Timestamp, WhenError> {
    let unknown = || WhenError::Instant(text.to_owned());
    let zone = now.time_zone();
    let day = |zoned: &Zoned| zoned.start_of_day().map(|start| start.timestamp());
    match text {
        "now" => return Ok(now.timestamp()),
        "today" => return day(now).map_err(|_| unknown()),
        "yesterday" => {
            let before = now.checked_sub(1.day()).map_err(|_| unknown())?;
            return day(&before).map_err(|_| unknown());
        }
        _ => {}
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    // A date first: its day can begin after midnight where the clocks change.
    if !text.contains(['T', 't', ' ', ':'])
        && let Ok(date) = text.parse::<Date>()
    {
        let noon = date.at(12, 0, 0, 0).to_zoned(zone.clone()).map_err(|_| unknown())?;
        return day(&noon).map_err(|_| unknown());
    }
    let local = text.parse::<DateTime>().map_err(|_| unknown())?;
    local.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).map_err(|_| unknown())
}

/// A duration of fixed length: `10s`, `1h30m`; a day is 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, WhenError> {
    let unknown = |_| WhenError::Duration(text.to_owned());
    let span = text.parse::<Span>().map_err(unknown)?;
    if !span.is_positive() {
        return Err(WhenError::NotPositive(text.to_owned()));
    }
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(unknown)?;
    Duration::try_from(signed).map_err(unknown)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    /// Central European time, without a time zone database.
    fn now() -> Zoned {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        utc("2025-03-30T13:00:00Z").to_zoned(zone)
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn instants_in_every_form() {
        let cases = [
            ("2025-03-01T10:00:00Z", "2025-03-01T10:00:00Z"),
            ("2025-03-01T10:00:00.5+02:00", "2025-03-01T08:00:00.5Z"),
            ("2025-03-01T10:00", "2025-03-01T09:00:00Z"),
            ("2025-03-01 10:00:30", "2025-03-01T09:00:30Z"),
            ("2025-03-01", "2025-02-28T23:00:00Z"),
            ("today", "2025-03-29T23:00:00Z"),
            ("yesterday", "2025-03-28T23:00:00Z"),
            ("now", "2025-03-30T13:00:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(instant(text, &now()), Ok(utc(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused_by_name() {
        for text in ["", "tomorrow-ish", "10:00", "2025-13-01", "1h", "2025-03-01T25:00"] {
            assert_eq!(instant(text, &now()), Err(WhenError::Instant(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_day_back_is_a_calendar_day() {
        // The clocks went forward that night: the day had 23 hours.
        let day = range(Some("1d"), None, None, &now()).expect("a range");
        assert_eq!(day.start, Some(utc("2025-03-29T14:00:00Z")));
        let hours = range(Some("24h"), None, None, &now()).expect("a range");
        assert_eq!(hours.start, Some(utc("2025-03-29T13:00:00Z")));
    }

    #[test]
    fn ranges_have_their_defaults() {
        let hour = range(None, None, None, &now()).expect("a range");
        assert_eq!(hour.start, Some(utc("2025-03-30T12:00:00Z")));
        assert_eq!(hour.end, utc("2025-03-30T13:00:00Z"));
        let oldest = range(None, None, Some("today"), &now()).expect("a range");
        assert_eq!(oldest, Range { start: None, end: utc("2025-03-29T23:00:00Z") });
        let today = range(Some("today"), None, None, &now()).expect("a range");
        assert_eq!(today.start, Some(utc("2025-03-29T23:00:00Z")));
    }

    #[test]
    fn empty_and_backward_ranges_are_refused() {
        let same = range(None, Some("today"), Some("today"), &now());
        assert!(matches!(same, Err(WhenError::Empty { .. })), "{same:?}");
        let zero = range(Some("0s"), None, None, &now());
        assert_eq!(zero, Err(WhenError::NotPositive("0s".to_owned())));
    }

    #[test]
    fn durations_have_a_fixed_length() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("1d"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1month"), Err(WhenError::Duration("1month".to_owned())));
        assert_eq!(duration("-5s"), Err(WhenError::NotPositive("-5s".to_owned())));
        assert_eq!(duration("5"), Err(WhenError::Duration("5".to_owned())));
    }
}
