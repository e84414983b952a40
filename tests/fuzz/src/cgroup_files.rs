//! What the kernel's files say, and nothing that they do not say.

use bulkhead_agent::kernel::cgroup::parse;
use bulkhead_core::Control;
use bulkhead_core::sample::{CpuCounters, IoCounters, Throttled};

/// The first byte chooses a file, the rest is its text.
pub fn any_text(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    match kind % 9 {
        0 => cpu_stat(text),
        1 => io_stat(text),
        2 => pressure(text),
        3 => told(text, parse::single(text).ok()),
        4 => told(text, parse::oom_kills(text).ok()),
        5 => told(text, parse::refused_forks(text).ok()),
        6 => {
            let Ok(found) = parse::descendants(text) else { return };
            told(text, [found.live, found.dying]);
        }
        7 => {
            let Ok(found) = parse::events(text) else { return };
            assert!(text.contains("populated "));
            assert!(found.frozen.is_none() || text.contains("frozen "));
        }
        _ => Control::ALL.into_iter().for_each(|control| shown(control, text)),
    }
}

/// Every one of the numbers is in the text, digit by digit.
fn told(text: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        assert!(text.contains(&number.to_string()), "{number} is not in {text:?}");
    }
}

/// The kernel's microseconds.
fn microseconds(nanoseconds: u64) -> u64 {
    assert_eq!(nanoseconds % 1_000, 0, "no whole number of microseconds");
    nanoseconds / 1_000
}

fn cpu_stat(text: &str) {
    let Ok(found) = parse::cpu_stat(text) else { return };
    let CpuCounters { usage_nanoseconds, user_nanoseconds, system_nanoseconds, throttled } = found;
    let times = [usage_nanoseconds, user_nanoseconds, system_nanoseconds].map(microseconds);
    told(text, times);
    let [usage, user, system] = times;
    let mut again = format!("usage_usec {usage}\nuser_usec {user}\nsystem_usec {system}\n");
    if let Some(Throttled { periods, nanoseconds }) = throttled {
        let time = microseconds(nanoseconds);
        told(text, [periods, time]);
        again.push_str(&format!("nr_throttled {periods}\nthrottled_usec {time}\n"));
    }
    assert_eq!(parse::cpu_stat(&again), Ok(found));
}

/// Added up by other means: word by word, the file as one.
fn io_stat(text: &str) {
    let Ok(found) = parse::io_stat(text) else { return };
    let sum = |key: &str| {
        let words = text.lines().flat_map(|line| line.split_ascii_whitespace().skip(1));
        let values = words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.map(|value| value.parse::<u128>().expect("it was taken")).sum::<u128>()
    };
    let IoCounters { read_bytes, write_bytes, read_operations, write_operations } = found;
    for (key, total) in [
        ("rbytes", read_bytes),
        ("wbytes", write_bytes),
        ("rios", read_operations),
        ("wios", write_operations),
    ] {
        assert_eq!(u128::from(total), sum(key), "{key} of {text:?}");
    }
}

fn pressure(text: &str) {
    let Ok(found) = parse::pressure(text) else { return };
    let totals = [("some", found.some_nanoseconds), ("full", found.full_nanoseconds)];
    let mut again = String::new();
    for (kind, total) in totals {
        let Some(total) = total.map(microseconds) else { continue };
        told(text, [total]);
        again.push_str(&format!("{kind} avg10=0.00 total={total}\n"));
    }
    assert_eq!(parse::pressure(&again), Ok(found));
}

/// What is taken is shown in a form that is taken for the same.
fn shown(control: Control, text: &str) {
    let Ok(value) = control.parse(text) else { return };
    let prefix = if control == Control::IoWeight { "default " } else { "" };
    let again = format!("{prefix}{value}\n");
    assert_eq!(control.parse(&again).as_ref(), Ok(&value), "{control}: {text:?} as {again:?}");
}
