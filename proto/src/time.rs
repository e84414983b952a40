//! Timestamps as nanoseconds since the Unix epoch, exactly.

use prost_types::Timestamp;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch as a timestamp.
pub fn timestamp(unix_nanoseconds: u64) -> Timestamp {
    // Both fit: u64::MAX nanoseconds are 18,446,744,073 seconds, a rest is below 10⁹.
    Timestamp {
        seconds: i64::try_from(unix_nanoseconds / NANOSECONDS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(unix_nanoseconds % NANOSECONDS_PER_SECOND).unwrap_or(i32::MAX),
    }
}

/// A timestamp as nanoseconds since the Unix epoch; `None` where it is before 1970, after 2554
/// or no valid timestamp.
pub fn unix_nanoseconds(timestamp: &Timestamp) -> Option<u64> {
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanoseconds = u64::try_from(timestamp.nanos).ok()?;
    if nanoseconds >= NANOSECONDS_PER_SECOND {
        return None;
    }
    seconds.checked_mul(NANOSECONDS_PER_SECOND)?.checked_add(nanoseconds)
}

/// A duration in nanoseconds; `None` where it is negative, above 584 years or not valid.
pub fn nanoseconds(duration: &prost_types::Duration) -> Option<u64> {
    let Ok(nanos) = u64::try_from(duration.nanos) else {
        return None;
    };
    let seconds = u64::try_from(duration.seconds).ok()?;
    if nanos >= NANOSECONDS_PER_SECOND {
        return None;
    }
    seconds.checked_mul(NANOSECONDS_PER_SECOND)?.checked_add(nanos)
}

/// Nanoseconds as a duration.
pub fn duration(nanoseconds: u64) -> prost_types::Duration {
    let Timestamp { seconds, nanos } = timestamp(nanoseconds);
    prost_types::Duration { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_come_back_exactly() {
        for moment in [0, 1, 999_999_999, 1_000_000_000, 1_790_000_000_123_456_789, u64::MAX] {
            assert_eq!(unix_nanoseconds(&timestamp(moment)), Some(moment));
            assert_eq!(nanoseconds(&duration(moment)), Some(moment));
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(unix_nanoseconds(&Timestamp { seconds, nanos }), None);
            assert_eq!(nanoseconds(&prost_types::Duration { seconds, nanos }), None);
        }
    }
}
