//! Kernel files as facts.

use std::collections::BTreeSet;

use super::error::ProbeError;

/// A file with one number.
pub(super) fn number(file: &'static str, text: &str) -> Result<u64, ProbeError> {
    text.trim_end().parse().map_err(|_| ProbeError::shape(file, "a number", text))
}

/// How many CPUs a list names ("0-3,8").
pub(super) fn cpu_list(text: &str) -> Result<u32, ProbeError> {
    const FILE: &str = "/sys/devices/system/cpu/online";
    let shape = || ProbeError::shape(FILE, "a list of CPUs", text);
    let mut cpus = 0_u32;
    for part in text.trim_end().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.parse().map_err(|_| shape())?;
        let last: u32 = last.parse().map_err(|_| shape())?;
        let count = last.checked_sub(first).and_then(|span| span.checked_add(1));
        cpus = count.and_then(|count| cpus.checked_add(count)).ok_or_else(shape)?;
    }
    Ok(cpus)
}

/// A line of /proc/meminfo, bytes.
pub(super) fn meminfo(text: &str, key: &'static str) -> Result<u64, ProbeError> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let kibibytes = value.trim().strip_suffix(" kB")?;
        (name == key).then(|| kibibytes.parse::<u64>().ok()?.checked_mul(1_024)).flatten()
    });
    value.ok_or_else(|| {
        ProbeError::shape("/proc/meminfo", "with MemTotal and SwapTotal in kB", text)
    })
}

/// "a,b,c"
pub(super) fn comma_list(text: &str) -> Vec<String> {
    text.trim_end().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

struct Subsystem<'t> {
    name: &'t str,
    hierarchy: u32,
    enabled: bool,
}

fn subsystems(text: &str) -> Result<Vec<Subsystem<'_>>, ProbeError> {
    let line = |line| {
        let fields: Vec<&str> = str::split_ascii_whitespace(line).collect();
        let [name, hierarchy, _cgroups, enabled] = fields[..] else {
            return None;
        };
        let hierarchy = hierarchy.parse().ok()?;
        Some(Subsystem { name, hierarchy, enabled: enabled != "0" })
    };
    text.lines()
        .filter(|text| !text.starts_with('#'))
        .map(|text| {
            let shape = || ProbeError::shape("/proc/cgroups", "four columns", text);
            line(text).ok_or_else(shape)
        })
        .collect()
}

/// Controllers in /proc/cgroups that have a hierarchy of their own, as only v1 gives one.
pub(super) fn bound_to_v1(text: &str) -> Result<BTreeSet<String>, ProbeError> {
    let bound = subsystems(text)?.into_iter().filter(|subsystem| subsystem.hierarchy != 0);
    Ok(bound.map(|subsystem| subsystem.name.to_owned()).collect())
}

/// Controllers in /proc/cgroups that the kernel's command line disables.
pub(super) fn disabled(text: &str) -> Result<BTreeSet<String>, ProbeError> {
    let disabled = subsystems(text)?.into_iter().filter(|subsystem| !subsystem.enabled);
    Ok(disabled.map(|subsystem| subsystem.name.to_owned()).collect())
}

/// Whether any device has iocost on: without it, io.weight is there and does nothing.
pub(super) fn io_cost_enabled(text: &str) -> bool {
    text.split_ascii_whitespace().any(|pair| pair == "enable=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted() {
        assert_eq!(cpu_list("0-1\n").unwrap(), 2);
        assert_eq!(cpu_list("0\n").unwrap(), 1);
        assert_eq!(cpu_list("0-3,8,10-11\n").unwrap(), 7);
        for text in ["", "a", "3-1", "0-", "0-4294967295"] {
            assert!(cpu_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:        8146728 kB\nMemFree: 1 kB\nSwapTotal:             0 kB\n";
        assert_eq!(meminfo(text, "MemTotal").unwrap(), 8_342_249_472);
        assert_eq!(meminfo(text, "SwapTotal").unwrap(), 0);
        assert!(meminfo("MemTotal: many kB\n", "MemTotal").is_err());
        assert!(meminfo("", "MemTotal").is_err());
    }

    #[test]
    fn iocost_has_to_be_on_somewhere() {
        assert!(!io_cost_enabled(""));
        assert!(!io_cost_enabled("254:0 enable=0 ctrl=auto rpct=0.00\n"));
        assert!(io_cost_enabled("254:0 enable=0\n254:16 enable=1 ctrl=user rpct=95.00\n"));
    }

    #[test]
    fn the_table_of_subsystems_tells_v1_and_disabled() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\n\
                    memory\t4\t13\t1\npids\t0\t1\t0\n";
        assert_eq!(bound_to_v1(text).unwrap(), ["memory".to_owned()].into());
        assert_eq!(disabled(text).unwrap(), ["pids".to_owned()].into());
        assert!(bound_to_v1("memory 4\n").is_err());
        assert!(bound_to_v1("").unwrap().is_empty());
    }
}
