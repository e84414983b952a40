//! The kernel's counter files as numbers. Strict about what is counted for the ledger: a key
//! that is missing or is no number is an error, never a zero. Keys that are not ours are passed
//! over, since new kernels add some.

use bulkhead_core::sample::{CpuCounters, IoCounters, Throttled};

use super::error::ShapeError;

/// Nanoseconds in a microsecond, the unit of cpu.stat and of PSI totals.
const MICROSECOND: u64 = 1_000;

/// Totals of one *.pressure file, nanoseconds. `None`: it has no such line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Some tasks waited.
    pub some_nanoseconds: Option<u64>,
    /// All tasks waited.
    pub full_nanoseconds: Option<u64>,
}

/// cgroup.stat
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descendants {
    /// Cgroups below.
    pub live: u64,
    /// Removed cgroups below that still hold memory.
    pub dying: u64,
}

/// cgroup.events
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// Whether any process lives in the cgroup or below.
    pub populated: bool,
    /// Whether all of them are frozen; `None` before Linux 5.2.
    pub frozen: Option<bool>,
}

fn number(text: &str) -> Result<u64, ShapeError> {
    text.parse()
        .map_err(|_| ShapeError::NotANumber { what: "a number of 64 bits", text: text.to_owned() })
}

fn nanoseconds(microseconds: u64) -> Result<u64, ShapeError> {
    microseconds
        .checked_mul(MICROSECOND)
        .ok_or(ShapeError::TooLarge { value: microseconds, factor: MICROSECOND })
}

/// The value of `key` in a file of "key value" lines.
fn find(text: &str, key: &str) -> Result<Option<u64>, ShapeError> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then_some(value)
    });
    value.map(|value| number(value.trim_end())).transpose()
}

fn need(text: &str, key: &'static str) -> Result<u64, ShapeError> {
    find(text, key)?.ok_or(ShapeError::MissingKey { key })
}

/// A file that holds one number.
pub fn single(text: &str) -> Result<u64, ShapeError> {
    number(text.trim_end())
}

/// cpu.stat. Without the cpu controller it has the times only.
pub fn cpu_stat(text: &str) -> Result<CpuCounters, ShapeError> {
    let throttled = match find(text, "nr_throttled")? {
        None => None,
        Some(periods) => {
            let time = nanoseconds(need(text, "throttled_usec")?)?;
            Some(Throttled { periods, nanoseconds: time })
        }
    };
    Ok(CpuCounters {
        usage_nanoseconds: nanoseconds(need(text, "usage_usec")?)?,
        user_nanoseconds: nanoseconds(need(text, "user_usec")?)?,
        system_nanoseconds: nanoseconds(need(text, "system_usec")?)?,
        throttled,
    })
}

/// io.stat, added over devices. The kernel leaves out devices that saw nothing; a line may carry
/// other keys (discards, cost.*) only.
pub fn io_stat(text: &str) -> Result<IoCounters, ShapeError> {
    let mut sum = IoCounters::default();
    for line in text.lines() {
        for pair in line.split_ascii_whitespace().skip(1) {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let total = match key {
                "rbytes" => &mut sum.read_bytes,
                "wbytes" => &mut sum.write_bytes,
                "rios" => &mut sum.read_operations,
                "wios" => &mut sum.write_operations,
                _ => continue,
            };
            let value = number(value)?;
            *total = total.checked_add(value).ok_or(ShapeError::TooLarge { value, factor: 1 })?;
        }
    }
    Ok(sum)
}

/// cpu.pressure, memory.pressure, io.pressure: the totals.
pub fn pressure(text: &str) -> Result<Pressure, ShapeError> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let Some((kind, values)) = line.split_once(' ') else {
            continue;
        };
        let total = match kind {
            "some" => &mut pressure.some_nanoseconds,
            "full" => &mut pressure.full_nanoseconds,
            _ => continue,
        };
        let value = values
            .split_ascii_whitespace()
            .find_map(|pair| pair.strip_prefix("total="))
            .ok_or(ShapeError::MissingKey { key: "total" })?;
        *total = Some(nanoseconds(number(value)?)?);
    }
    if pressure == Pressure::default() {
        return Err(ShapeError::MissingKey { key: "some" });
    }
    Ok(pressure)
}

/// `oom_kill` of memory.events.
pub fn oom_kills(text: &str) -> Result<u64, ShapeError> {
    need(text, "oom_kill")
}

/// max of pids.events: forks that were refused.
pub fn refused_forks(text: &str) -> Result<u64, ShapeError> {
    need(text, "max")
}

/// cgroup.stat
pub fn descendants(text: &str) -> Result<Descendants, ShapeError> {
    Ok(Descendants {
        live: need(text, "nr_descendants")?,
        dying: need(text, "nr_dying_descendants")?,
    })
}

/// cgroup.events
pub fn events(text: &str) -> Result<Events, ShapeError> {
    Ok(Events {
        populated: need(text, "populated")? != 0,
        frozen: find(text, "frozen")?.map(|frozen| frozen != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12, unified, cpu controller enabled.
    const CPU_STAT_6_12: &str = "usage_usec 1834211\nuser_usec 1500000\nsystem_usec 334211\n\
        nice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 21\nnr_throttled 17\n\
        throttled_usec 842001\nnr_bursts 0\nburst_usec 0\n";
    /// Linux 6.18, hybrid: cpu is bound to cgroup v1.
    const CPU_STAT_6_18: &str = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnice_usec 0\n";

    #[test]
    fn cpu_time_is_in_nanoseconds_and_throttling_only_where_it_is_counted() {
        let counters = cpu_stat(CPU_STAT_6_12).unwrap();
        assert_eq!(counters.usage_nanoseconds, 1_834_211_000);
        assert_eq!(counters.user_nanoseconds, 1_500_000_000);
        assert_eq!(counters.system_nanoseconds, 334_211_000);
        let throttled = Throttled { periods: 17, nanoseconds: 842_001_000 };
        assert_eq!(counters.throttled, Some(throttled));
        let counters = cpu_stat(CPU_STAT_6_18).unwrap();
        assert_eq!((counters.usage_nanoseconds, counters.throttled), (5_000, None));
    }

    #[test]
    fn what_cannot_be_read_is_never_zero() {
        assert_eq!(cpu_stat(""), Err(ShapeError::MissingKey { key: "usage_usec" }));
        assert_eq!(
            cpu_stat("usage_usec 1\nuser_usec 1\nsystem_usec 0\nnr_throttled 1\n"),
            Err(ShapeError::MissingKey { key: "throttled_usec" })
        );
        assert!(matches!(
            cpu_stat("usage_usec -1\nuser_usec 1\nsystem_usec 0\n"),
            Err(ShapeError::NotANumber { .. })
        ));
        let huge = format!("usage_usec {}\nuser_usec 0\nsystem_usec 0\n", u64::MAX);
        assert_eq!(cpu_stat(&huge), Err(ShapeError::TooLarge { value: u64::MAX, factor: 1_000 }));
        assert!(single("max\n").is_err());
        assert!(oom_kills("low 0\nhigh 0\nmax 0\noom 0\n").is_err());
        assert!(pressure("").is_err());
        assert!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00\n").is_err());
        assert!(events("frozen 0\n").is_err());
    }

    #[test]
    fn devices_are_added_up() {
        let text = "254:16 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n\
                    254:0 rbytes=1048576 wbytes=8192 rios=20 wios=2 dbytes=0 dios=0 cost.usage=7\n\
                    7:0 cost.vrate=100.00\n253:0\n";
        let sum = IoCounters {
            read_bytes: 1_052_672,
            write_bytes: 8_192,
            read_operations: 21,
            write_operations: 2,
        };
        assert_eq!(io_stat(text), Ok(sum));
        assert_eq!(io_stat(""), Ok(IoCounters::default()));
        assert!(io_stat("254:0 rbytes=x wbytes=0 rios=0 wios=0").is_err());
        let max = u64::MAX;
        assert!(io_stat(&format!("1:0 rbytes={max}\n2:0 rbytes=1\n")).is_err());
    }

    #[test]
    fn pressure_is_the_totals() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.10 total=1234\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = Pressure { some_nanoseconds: Some(1_234_000), full_nanoseconds: Some(7_000) };
        assert_eq!(pressure(text), Ok(both));
        let some = Pressure { some_nanoseconds: Some(0), full_nanoseconds: None };
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"), Ok(some));
    }

    #[test]
    fn events_and_small_files() {
        let text = "low 0\nhigh 3\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(oom_kills(text), Ok(1));
        assert_eq!(refused_forks("max 42\n"), Ok(42));
        assert_eq!(single("4096\n"), Ok(4_096));
        let seen = events("populated 1\nfrozen 0\n").unwrap();
        assert_eq!(seen, Events { populated: true, frozen: Some(false) });
        let text = "nr_descendants 2\nnr_subsys_perf_event 1\nnr_dying_descendants 5\n";
        assert_eq!(descendants(text), Ok(Descendants { live: 2, dying: 5 }));
    }
}
