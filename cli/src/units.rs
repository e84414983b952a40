//! Numbers as people read them. Integer arithmetic only: what is shown is what was counted.

/// Nanoseconds in a second; also nanocores in a core.
pub(crate) const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Nanocores as cores, three decimals, rounded to the nearest: `1.500`.
pub(crate) fn cores(nanocores: u64) -> String {
    thousandths(nanocores / 1_000_000 + u64::from(nanocores % 1_000_000 >= 500_000))
}

/// Nanoseconds as seconds, three decimals, rounded to the nearest: `12.345`.
pub(crate) fn seconds(nanoseconds: u64) -> String {
    cores(nanoseconds)
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}

/// Bytes in the largest binary unit that keeps the number at one or more: `1.5MiB`.
///
/// Rounded to the nearest tenth; no space, so that a cell stays one word.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut shift = 10;
    let mut units = UNITS.iter().peekable();
    while let Some(unit) = units.next() {
        let tenths = tenths_of_unit(bytes, shift);
        if tenths < 10_240 || units.peek().is_none() {
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        shift += 10;
    }
    format!("{bytes}B")
}

/// `bytes` in tenths of 2^`shift`, rounded to the nearest.
fn tenths_of_unit(bytes: u64, shift: u32) -> u128 {
    let unit = 1_u128 << shift;
    (u128::from(bytes) * 10 + unit / 2) / unit
}

/// Bytes per second: `1.5MiB/s`.
pub(crate) fn bytes_per_second(rate: u64) -> String {
    format!("{}/s", bytes(rate))
}

/// Hundredths of a percent, without zeros that say nothing: `25%`, `12.5%`.
pub(crate) fn basis_points(value: u32) -> String {
    let (whole, rest) = (value / 100, value % 100);
    match (rest / 10, rest % 10) {
        (0, 0) => format!("{whole}%"),
        (tenths, 0) => format!("{whole}.{tenths}%"),
        _ => format!("{whole}.{rest:02}%"),
    }
}

/// `part` of `whole` as a percentage with one decimal, rounded down, so that less than the whole
/// never reads `100.0%`. Nothing of nothing is `-`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let permille = u128::from(part.min(whole)) * 1000 / u128::from(whole);
    format!("{}.{}%", permille / 10, permille % 10)
}

/// `amount` in `nanoseconds` as a rate per second, rounded to the nearest; nothing for no time.
pub(crate) fn per_second(amount: u64, nanoseconds: u64) -> Option<u64> {
    ratio(amount, NANOSECONDS_PER_SECOND, nanoseconds)
}

/// `amount * factor / divisor`, rounded to the nearest, held at the largest `u64`.
pub(crate) fn ratio(amount: u64, factor: u64, divisor: u64) -> Option<u64> {
    if divisor == 0 {
        return None;
    }
    let product = u128::from(amount) * u128::from(factor) + u128::from(divisor / 2);
    Some(u64::try_from(product / u128::from(divisor)).unwrap_or(u64::MAX))
}

/// A stretch of time in its largest unit, rounded down: `45s`, `12m`, `3h`, `9d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text from elsewhere on one line, without characters that would steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// `text` cut to `limit` characters, the last of them `…` where something was cut.
pub(crate) fn truncate(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_round_to_the_nearest_thousandth() {
        assert_eq!(cores(0), "0.000");
        assert_eq!(cores(499_999), "0.000");
        assert_eq!(cores(500_000), "0.001");
        assert_eq!(cores(1_500_000_000), "1.500");
        assert_eq!(cores(999_999_999), "1.000");
        assert_eq!(cores(u64::MAX), "18446744073.710");
    }

    #[test]
    fn bytes_take_the_largest_unit() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1023), "1023B");
        assert_eq!(bytes(1024), "1.0KiB");
        assert_eq!(bytes(1536), "1.5KiB");
        // Would round up to 1024.0KiB: the next unit says it shorter.
        assert_eq!(bytes(1024 * 1024 - 1), "1.0MiB");
        assert_eq!(bytes(u64::MAX), "16.0EiB");
    }

    #[test]
    fn percent_never_rounds_up_to_the_whole() {
        assert_eq!(percent(9_999, 10_000), "99.9%");
        assert_eq!(percent(10_000, 10_000), "100.0%");
        assert_eq!(percent(12_000, 10_000), "100.0%");
        assert_eq!(percent(0, 5), "0.0%");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9%");
    }

    #[test]
    fn basis_points_drop_empty_decimals() {
        assert_eq!(basis_points(2_500), "25%");
        assert_eq!(basis_points(1_250), "12.5%");
        assert_eq!(basis_points(1_205), "12.05%");
        assert_eq!(basis_points(1), "0.01%");
    }

    #[test]
    fn rates_need_time_and_do_not_overflow() {
        assert_eq!(per_second(10, 0), None);
        assert_eq!(per_second(30, 60 * NANOSECONDS_PER_SECOND), Some(1));
        assert_eq!(per_second(u64::MAX, 1), Some(u64::MAX));
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb c");
        assert_eq!(truncate("abcdef", 4), "abc…");
        assert_eq!(truncate("abcd", 4), "abcd");
    }

    #[test]
    fn ages_take_the_largest_unit() {
        let ages = [0, 59, 60, 3_599, 3_600, 86_399, 86_400].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "23h", "1d"]);
    }
}
