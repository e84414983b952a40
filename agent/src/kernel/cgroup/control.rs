//! Controls are written, then read back and compared with what the kernel must show for them.

use std::collections::BTreeMap;
use std::error::Error;

use bulkhead_core::control::{CpuMax, Device, IoMax, Max};
use bulkhead_core::{Control, ControlValue};
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::{MemController, SetMemory};
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{MaxValue, error as cgroups};
use nix::errno::Errno;
use std::path::PathBuf;

use super::dir::{CgroupDir, system};
use super::error::{CgroupError, Operation, ShapeError};

/// What a control holds; `None`: its file is not there.
pub(super) fn read(dir: &CgroupDir, control: Control) -> Result<Option<ControlValue>, CgroupError> {
    let Some(text) = dir.read_if_there(control.file())? else {
        return Ok(None);
    };
    let value = control.parse(&text).map_err(|source| CgroupError::Shape {
        path: dir.path().join(control.file()),
        source: ShapeError::Control(source),
    })?;
    Ok(Some(value))
}

/// Writes a control and proves that it holds.
pub(super) fn write(
    dir: &CgroupDir,
    control: Control,
    value: &ControlValue,
    page_bytes: u64,
) -> Result<(), CgroupError> {
    let path = dir.path().join(control.file());
    let absent = || CgroupError::ControlAbsent { control, path: path.clone() };
    let before = read(dir, control)?.ok_or_else(absent)?;
    store(dir, control, value, &before)?;
    let reads = read(dir, control)?.ok_or_else(absent)?;
    if reads == kept(control, value, page_bytes) {
        Ok(())
    } else {
        Err(CgroupError::ReadBack { path, wrote: value.to_string(), reads: reads.to_string() })
    }
}

/// What the kernel shows after `value` was written to `control`: it keeps memory in whole pages,
/// takes the largest numbers for "max", and forgets devices without a limit.
pub(super) fn kept(control: Control, value: &ControlValue, page_bytes: u64) -> ControlValue {
    let memory = matches!(
        control,
        Control::MemoryMin | Control::MemoryLow | Control::MemoryHigh | Control::MemoryMax
    );
    match value {
        ControlValue::Max(Max::At(bytes)) if memory => {
            // PAGE_COUNTER_MAX is LONG_MAX / PAGE_SIZE on 64-bit machines.
            let most = i64::MAX.unsigned_abs() / page_bytes;
            let pages = bytes / page_bytes;
            let max = if pages >= most { Max::Unlimited } else { Max::At(pages * page_bytes) };
            ControlValue::Max(max)
        }
        ControlValue::IoMax(devices) => {
            let kept = devices.iter().map(|(device, max)| (*device, kept_io(*max)));
            ControlValue::IoMax(kept.filter(|(_, max)| *max != IoMax::UNLIMITED).collect())
        }
        other => other.clone(),
    }
}

fn kept_io(max: IoMax) -> IoMax {
    let least_unlimited = |max: Max, least: u64| match max {
        Max::At(rate) if rate >= least => Max::Unlimited,
        other => other,
    };
    IoMax {
        rbps: least_unlimited(max.rbps, u64::MAX),
        wbps: least_unlimited(max.wbps, u64::MAX),
        riops: least_unlimited(max.riops, u32::MAX.into()),
        wiops: least_unlimited(max.wiops, u32::MAX.into()),
    }
}

/// cgroups-rs sets what it sets right (cpu.weight, cpu.max, memory.*, pids.max); it does not
/// know the cgroup.max files and io.weight, and its io.max takes four writes for one device.
fn store(
    dir: &CgroupDir,
    control: Control,
    value: &ControlValue,
    before: &ControlValue,
) -> Result<(), CgroupError> {
    let here = dir.descriptor_path();
    let by_crate = |result: cgroups::Result<()>| {
        result.map_err(|error| {
            let path = dir.path().join(control.file());
            system(Operation::Write(value.to_string()), &path, errno_of(&error))
        })
    };
    let wrong = || CgroupError::WrongValue { control, value: value.clone() };
    match (control, value) {
        (Control::CpuWeight, ControlValue::Weight(weight)) => {
            by_crate(cpu(here).set_shares(u64::from(*weight)))
        }
        (Control::CpuMax, ControlValue::CpuMax(CpuMax { quota, period_microseconds })) => {
            // Anything that is not above zero stands for "max" there.
            let quota = match quota {
                Max::At(0) => return Err(wrong()),
                Max::At(quota) => i64::try_from(*quota).map_err(|_| wrong())?,
                Max::Unlimited => -1,
            };
            by_crate(cpu(here).set_cfs_quota_and_period(Some(quota), Some(*period_microseconds)))
        }
        (Control::PidsMax, ControlValue::Max(max)) => {
            by_crate(PidController::new(here, PathBuf::new(), true).set_pid_max(crate_max(*max)))
        }
        (
            Control::MemoryMin | Control::MemoryLow | Control::MemoryHigh | Control::MemoryMax,
            ControlValue::Max(max),
        ) => by_crate(memory(here).set_mem(only(control, crate_max(*max)))),
        (Control::CgroupMaxDepth | Control::CgroupMaxDescendants, ControlValue::Max(max)) => {
            dir.write(control.file(), &max.to_string())
        }
        (Control::IoWeight, ControlValue::Weight(weight)) => {
            dir.write(control.file(), &format!("default {weight}"))
        }
        (Control::IoMax, ControlValue::IoMax(wanted)) => {
            let ControlValue::IoMax(before) = before else {
                return Err(wrong());
            };
            io_max_lines(before, wanted).iter().try_for_each(|line| dir.write(control.file(), line))
        }
        _ => Err(wrong()),
    }
}

/// One write for each device: all four limits at once, and "max" for devices whose limits go.
fn io_max_lines(before: &BTreeMap<Device, IoMax>, wanted: &BTreeMap<Device, IoMax>) -> Vec<String> {
    let gone = before.keys().filter(|device| !wanted.contains_key(device));
    let lifted = gone.map(|device| (device, &IoMax::UNLIMITED));
    let line = |(device, max): (&Device, &IoMax)| {
        let IoMax { rbps, wbps, riops, wiops } = max;
        format!("{device} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}")
    };
    lifted.chain(wanted).map(line).collect()
}

fn cpu(directory: PathBuf) -> CpuController {
    CpuController::new(directory, PathBuf::new(), true)
}

fn memory(directory: PathBuf) -> MemController {
    MemController::new(directory, PathBuf::new(), true)
}

fn only(control: Control, max: MaxValue) -> SetMemory {
    let mut memory = SetMemory { low: None, high: None, min: None, max: None };
    match control {
        Control::MemoryMin => memory.min = Some(max),
        Control::MemoryLow => memory.low = Some(max),
        Control::MemoryHigh => memory.high = Some(max),
        _ => memory.max = Some(max),
    }
    memory
}

/// Numbers beyond the crate's range are beyond every machine: the kernel takes them for "max".
fn crate_max(max: Max) -> MaxValue {
    match max {
        Max::At(value) => i64::try_from(value).map_or(MaxValue::Max, MaxValue::Value),
        Max::Unlimited => MaxValue::Max,
    }
}

fn errno_of(error: &cgroups::Error) -> Errno {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.map_or(Errno::EIO, super::errno_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4_096;

    #[test]
    fn memory_is_kept_in_whole_pages() {
        for (wrote, shows) in [
            (Max::At(0), Max::At(0)),
            (Max::At(4_095), Max::At(0)),
            (Max::At(1_000_000), Max::At(999_424)),
            (Max::At(i64::MAX.unsigned_abs()), Max::Unlimited),
            (Max::At(u64::MAX), Max::Unlimited),
            (Max::Unlimited, Max::Unlimited),
        ] {
            let shown = kept(Control::MemoryMax, &ControlValue::Max(wrote), PAGE);
            assert_eq!(shown, ControlValue::Max(shows));
        }
        let pids = ControlValue::Max(Max::At(4_095));
        assert_eq!(kept(Control::PidsMax, &pids, PAGE), pids);
    }

    const DISK: Device = Device { major: 254, minor: 0 };
    const OTHER: Device = Device { major: 254, minor: 16 };

    #[test]
    fn io_limits_that_limit_nothing_are_not_shown() {
        let largest = IoMax { riops: Max::At(u64::from(u32::MAX)), ..IoMax::UNLIMITED };
        let some = IoMax { rbps: Max::At(1), ..IoMax::UNLIMITED };
        let wrote = BTreeMap::from([(DISK, largest), (OTHER, some)]);
        let shows = ControlValue::IoMax(BTreeMap::from([(OTHER, some)]));
        assert_eq!(kept(Control::IoMax, &ControlValue::IoMax(wrote), PAGE), shows);
    }

    #[test]
    fn a_device_that_is_no_longer_limited_is_lifted() {
        let some = IoMax { wbps: Max::At(1_048_576), ..IoMax::UNLIMITED };
        let lines = io_max_lines(&BTreeMap::from([(OTHER, some)]), &BTreeMap::from([(DISK, some)]));
        assert_eq!(
            lines,
            [
                "254:16 rbps=max wbps=max riops=max wiops=max",
                "254:0 rbps=max wbps=1048576 riops=max wiops=max",
            ]
        );
    }
}
