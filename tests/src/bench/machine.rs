//! The machine that is measured: what a reader must know of it, and staying on one processor.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Processor, number of processors, kernel, and whether it is a virtual machine.
pub fn describe() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read osrelease")?;
    Ok(told(&processors, &release))
}

fn told(processors: &str, release: &str) -> String {
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.trim_end().starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = field("model name").unwrap_or("unknown processor");
    let guest = field("flags").is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor"));
    let place = if guest { "virtual machine" } else { "bare metal" };
    // What a distribution or a builder appends does not matter here.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    format!("{model}, {count} CPUs, {place}, Linux {kernel}")
}

/// Keeps this process on one processor, the last that it may use: interrupts tend to go to the
/// first. Returns its number.
pub fn pin() -> Result<usize> {
    let this = Pid::from_raw(0);
    let may = sched_getaffinity(this).context("ask which processors this process may use")?;
    let last = (0..CpuSet::count()).rev().find(|cpu| may.is_set(*cpu).unwrap_or(false));
    let last = last.context("this process may use no processor")?;
    let mut only = CpuSet::new();
    only.set(last).context("choose a processor")?;
    sched_setaffinity(this, &only).with_context(|| format!("stay on processor {last}"))?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_by_processor_place_and_kernel() {
        let one = "model name\t: Fast 9000\nflags\t\t: fpu hypervisor sse\n";
        let processors = format!("processor\t: 0\n{one}\nprocessor\t: 1\n{one}");
        let seen = told(&processors, "6.12.48+deb13-cloud-amd64\n");
        assert_eq!(seen, "Fast 9000, 2 CPUs, virtual machine, Linux 6.12.48+deb13");
        let seen = told("processor\t: 0\nflags : fpu\n", "6.1.0");
        assert_eq!(seen, "unknown processor, 1 CPUs, bare metal, Linux 6.1.0");
    }
}
