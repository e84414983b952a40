//! What operators type, and what they are shown.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::cli::{units, when};

/// Any text is a time, a range, a duration, or refused; and any text can be shown.
pub fn any_text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let now = now();
    if let Ok(instant) = when::instant(text, &now) {
        assert_eq!(when::instant(&instant.to_string(), &now), Ok(instant), "written again");
    }
    if let Ok(duration) = when::duration(text) {
        assert!(!duration.is_zero());
    }
    let (one, other) = text.split_once('\n').unwrap_or((text, "now"));
    for (since, start) in [(Some(one), None), (None, Some(one))] {
        if let Ok(range) = when::range(since, start, Some(other), &now) {
            assert!(range.start.is_some_and(|start| start < range.end), "{range:?}");
        }
    }
    shown(text);
    numbers(data);
}

/// Central European time, without a time zone database.
fn now() -> Zoned {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    let now: Timestamp = "2025-03-30T13:00:00Z".parse().expect("a timestamp");
    now.to_zoned(zone)
}

fn shown(text: &str) {
    let plain = units::plain(text);
    assert!(!plain.chars().any(char::is_control), "{plain:?} steers a terminal");
    assert_eq!(plain.chars().count(), text.chars().count());
    let short = units::truncate(text, 8);
    assert!(short.chars().count() <= 8);
}

/// What is shown differs from what was counted by rounding only.
fn numbers(data: &[u8]) {
    let Some(number) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
    let cores = units::cores(number);
    let (whole, rest) = cores.split_once('.').expect("three decimals");
    let thousandths: u128 = format!("{whole}{rest}").parse().expect("digits");
    assert!(u128::from(number).abs_diff(thousandths * 1_000_000) <= 500_000, "{number}: {cores}");
    let bytes = units::bytes(number);
    assert!(bytes.len() <= "1023.9KiB".len(), "{number}: {bytes}");
    assert_eq!(units::seconds(number), cores);
    let percent = units::percent(number, u64::MAX);
    assert_eq!(percent == "100.0%", number == u64::MAX, "{number}: {percent}");
    assert!(!units::age(number).is_empty() && !units::bytes_per_second(number).is_empty());
    let points = u32::try_from(number % 10_001).expect("few");
    assert!(units::basis_points(points).ends_with('%'));
    assert_eq!(units::per_second(number, units::NANOSECONDS_PER_SECOND), Some(number));
}
