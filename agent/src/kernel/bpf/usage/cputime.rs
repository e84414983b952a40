//! cpu.stat's times as the kernel makes them for its file: `cputime_adjust` of
//! kernel/sched/cputime.c, which splits the exact run time in the proportion in which ticks saw
//! user and kernel mode, and lets neither part ever fall.

use bulkhead_abi::CPU_WORDS;
use bulkhead_core::sample::CpuCounters;

/// What cpu.stat prints is in microseconds.
const MICROSECOND: u64 = 1_000;

/// What the file would have shown last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Previous {
    user: u64,
    system: u64,
}

impl Previous {
    const fn sum(self) -> u64 {
        self.user.saturating_add(self.system)
    }
}

/// The times that the file shows now. The kernel remembers what the file has shown last when it is
/// read, and we do not read it: `ours` is what it would remember if we did. Whichever of the two is
/// newer counts.
pub(super) fn times(words: &[u64; CPU_WORDS], ours: &mut Previous) -> CpuCounters {
    let [usage, user, system, previous_user, previous_system] = *words;
    let kernels = Previous { user: previous_user, system: previous_system };
    let before = if kernels.sum() >= ours.sum() { kernels } else { *ours };
    *ours = adjust(usage, user, system, before);
    let shown = |nanoseconds: u64| nanoseconds / MICROSECOND * MICROSECOND;
    CpuCounters {
        usage_nanoseconds: shown(usage),
        user_nanoseconds: shown(ours.user),
        system_nanoseconds: shown(ours.system),
        throttled: None,
    }
}

fn adjust(usage: u64, user: u64, system: u64, before: Previous) -> Previous {
    if before.sum() >= usage {
        return before;
    }
    let share = |part: u64, whole: u128| {
        let scaled = u128::from(part) * u128::from(usage) / whole.max(1);
        u64::try_from(scaled).unwrap_or(usage).min(usage)
    };
    let system = match (user, system) {
        (_, 0) => 0,
        (0, _) => usage,
        (user, system) => share(system, u128::from(user) + u128::from(system)),
    };
    let system = system.max(before.system);
    let user = usage.saturating_sub(system);
    if user < before.user {
        return Previous { user: before.user, system: usage.saturating_sub(before.user) };
    }
    Previous { user, system }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(words: [u64; CPU_WORDS], ours: &mut Previous) -> (u64, u64, u64) {
        let times = times(&words, ours);
        (times.usage_nanoseconds, times.user_nanoseconds, times.system_nanoseconds)
    }

    #[test]
    fn run_time_is_split_as_the_ticks_were() {
        let mut ours = Previous::default();
        assert_eq!(seen([10_000, 3, 1, 0, 0], &mut ours), (10_000, 7_000, 2_000));
        assert_eq!(ours, Previous { user: 7_500, system: 2_500 });
        assert_eq!(seen([9_000, 0, 0, 0, 0], &mut Previous::default()), (9_000, 9_000, 0));
        assert_eq!(seen([9_000, 0, 4, 0, 0], &mut Previous::default()), (9_000, 0, 9_000));
    }

    #[test]
    fn neither_part_ever_falls() {
        let mut ours = Previous::default();
        seen([10_000, 1, 1, 0, 0], &mut ours);
        // Ticks say system 1/5 now: it stays at what was shown.
        assert_eq!(seen([11_000, 4, 1, 0, 0], &mut ours), (11_000, 6_000, 5_000));
        // And all system: user stays.
        assert_eq!(seen([12_000, 0, 9, 0, 0], &mut ours), (12_000, 6_000, 6_000));
        // Nothing new: as it was.
        assert_eq!(seen([12_000, 5, 5, 0, 0], &mut ours), (12_000, 6_000, 6_000));
    }

    #[test]
    fn what_the_file_has_shown_to_somebody_else_counts() {
        let mut ours = Previous { user: 4_000, system: 1_000 };
        assert_eq!(seen([9_000, 1, 1, 8_000, 1_000], &mut ours), (9_000, 8_000, 1_000));
        let mut ours = Previous { user: 4_000, system: 5_000 };
        assert_eq!(seen([9_000, 1, 1, 3_000, 2_000], &mut ours), (9_000, 4_000, 5_000));
    }
}
