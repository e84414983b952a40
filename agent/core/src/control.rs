//! The cgroup v2 controls that we write, and the values that they take, in the form in which
//! the kernel shows them (Documentation/admin-guide/cgroup-v2.rst).

use std::collections::BTreeMap;
use std::fmt;

/// A control file of a virtual cluster's cgroup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Control {
    /// cgroup.max.depth
    CgroupMaxDepth,
    /// cgroup.max.descendants
    CgroupMaxDescendants,
    /// cpu.weight
    CpuWeight,
    /// cpu.max
    CpuMax,
    /// memory.min
    MemoryMin,
    /// memory.low
    MemoryLow,
    /// memory.high
    MemoryHigh,
    /// memory.max
    MemoryMax,
    /// pids.max
    PidsMax,
    /// io.weight
    IoWeight,
    /// io.max
    IoMax,
}

/// A cgroup v2 controller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Controller {
    /// cpu
    Cpu,
    /// memory
    Memory,
    /// pids
    Pids,
    /// io
    Io,
}

impl Controller {
    /// Every controller that we use.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Pids, Self::Io];

    /// As cgroup.controllers names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Control {
    /// Every control, in the order in which they are written: protections before limits, so that
    /// a guarantee stands before pressure begins.
    pub const ALL: [Self; 11] = [
        Self::CgroupMaxDepth,
        Self::CgroupMaxDescendants,
        Self::CpuWeight,
        Self::CpuMax,
        Self::MemoryMin,
        Self::MemoryLow,
        Self::MemoryHigh,
        Self::MemoryMax,
        Self::PidsMax,
        Self::IoWeight,
        Self::IoMax,
    ];

    /// The file in the cgroup's directory.
    pub const fn file(self) -> &'static str {
        match self {
            Self::CgroupMaxDepth => "cgroup.max.depth",
            Self::CgroupMaxDescendants => "cgroup.max.descendants",
            Self::CpuWeight => "cpu.weight",
            Self::CpuMax => "cpu.max",
            Self::MemoryMin => "memory.min",
            Self::MemoryLow => "memory.low",
            Self::MemoryHigh => "memory.high",
            Self::MemoryMax => "memory.max",
            Self::PidsMax => "pids.max",
            Self::IoWeight => "io.weight",
            Self::IoMax => "io.max",
        }
    }

    /// The controller that has to be enabled for it; `None`: core files, always there.
    pub const fn controller(self) -> Option<Controller> {
        match self {
            Self::CgroupMaxDepth | Self::CgroupMaxDescendants => None,
            Self::CpuWeight | Self::CpuMax => Some(Controller::Cpu),
            Self::MemoryMin | Self::MemoryLow | Self::MemoryHigh | Self::MemoryMax => {
                Some(Controller::Memory)
            }
            Self::PidsMax => Some(Controller::Pids),
            Self::IoWeight | Self::IoMax => Some(Controller::Io),
        }
    }

    /// The value of a cgroup that nobody has touched.
    pub fn default_value(self) -> ControlValue {
        match self {
            Self::CgroupMaxDepth
            | Self::CgroupMaxDescendants
            | Self::MemoryHigh
            | Self::MemoryMax
            | Self::PidsMax => ControlValue::Max(Max::Unlimited),
            Self::CpuWeight | Self::IoWeight => ControlValue::Weight(100),
            Self::CpuMax => ControlValue::CpuMax(CpuMax::unlimited()),
            Self::MemoryMin | Self::MemoryLow => ControlValue::Max(Max::At(0)),
            Self::IoMax => ControlValue::IoMax(BTreeMap::new()),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file())
    }
}

/// A number or "max".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Max {
    /// This many (bytes, tasks, cgroups, per second …).
    At(u64),
    /// "max".
    Unlimited,
}

impl fmt::Display for Max {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(value) => value.fmt(f),
            Self::Unlimited => f.write_str("max"),
        }
    }
}

/// cpu.max: microseconds of CPU time in each period.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuMax {
    /// Microseconds, at least 1,000.
    pub quota: Max,
    /// Microseconds, 1,000 to 1,000,000.
    pub period_microseconds: u64,
}

impl CpuMax {
    /// The kernel's default period.
    pub const PERIOD_MICROSECONDS: u64 = 100_000;
    /// The least quota that the kernel takes.
    pub const LEAST_QUOTA_MICROSECONDS: u64 = 1_000;

    /// No limit.
    pub const fn unlimited() -> Self {
        Self { quota: Max::Unlimited, period_microseconds: Self::PERIOD_MICROSECONDS }
    }
}

/// io.max of one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoMax {
    /// Bytes read per second.
    pub rbps: Max,
    /// Bytes written per second.
    pub wbps: Max,
    /// Reads per second.
    pub riops: Max,
    /// Writes per second.
    pub wiops: Max,
}

impl IoMax {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        rbps: Max::Unlimited,
        wbps: Max::Unlimited,
        riops: Max::Unlimited,
        wiops: Max::Unlimited,
    };
}

/// A block device, as io.max and io.stat name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What a control holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ControlValue {
    /// Memory, pids and cgroup limits.
    Max(Max),
    /// cpu.weight and io.weight, 1 to 10,000.
    Weight(u16),
    /// cpu.max.
    CpuMax(CpuMax),
    /// io.max; devices that are not named have no limit.
    IoMax(BTreeMap<Device, IoMax>),
}

/// The value as the kernel shows it; one line for each device in io.max.
impl fmt::Display for ControlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max(max) => max.fmt(f),
            Self::Weight(weight) => weight.fmt(f),
            Self::CpuMax(CpuMax { quota, period_microseconds }) => {
                write!(f, "{quota} {period_microseconds}")
            }
            Self::IoMax(devices) => {
                for (line, (device, max)) in devices.iter().enumerate() {
                    let separator = if line == 0 { "" } else { "\n" };
                    let IoMax { rbps, wbps, riops, wiops } = max;
                    write!(
                        f,
                        "{separator}{device} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}"
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// A control file's text is not what the kernel writes there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{control} holds \"{text}\", which is not of the form that cgroup-v2.rst gives")]
pub struct ControlParseError {
    /// The control.
    pub control: Control,
    /// What it holds.
    pub text: String,
}

impl Control {
    /// Parses what the kernel shows in this control's file.
    pub fn parse(self, text: &str) -> Result<ControlValue, ControlParseError> {
        self.try_parse(text.trim_end())
            .ok_or_else(|| ControlParseError { control: self, text: text.to_owned() })
    }

    fn try_parse(self, text: &str) -> Option<ControlValue> {
        match self {
            Self::CpuWeight => Some(ControlValue::Weight(text.parse().ok()?)),
            // "default 100", then overrides for devices, which we never set.
            Self::IoWeight => {
                let default = text.lines().find_map(|line| line.strip_prefix("default "));
                Some(ControlValue::Weight(default?.parse().ok()?))
            }
            Self::CpuMax => {
                let (quota, period) = text.split_once(' ')?;
                Some(ControlValue::CpuMax(CpuMax {
                    quota: parse_max(quota)?,
                    period_microseconds: period.parse().ok()?,
                }))
            }
            Self::IoMax => {
                let lines = text.lines().map(parse_io_max).collect::<Option<BTreeMap<_, _>>>()?;
                Some(ControlValue::IoMax(
                    lines.into_iter().filter(|(_, max)| *max != IoMax::UNLIMITED).collect(),
                ))
            }
            _ => Some(ControlValue::Max(parse_max(text)?)),
        }
    }
}

fn parse_max(text: &str) -> Option<Max> {
    if text == "max" { Some(Max::Unlimited) } else { Some(Max::At(text.parse().ok()?)) }
}

fn parse_io_max(line: &str) -> Option<(Device, IoMax)> {
    let (device, values) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let mut max = IoMax::UNLIMITED;
    for pair in values.split_ascii_whitespace() {
        let (key, value) = pair.split_once('=')?;
        let value = parse_max(value)?;
        match key {
            "rbps" => max.rbps = value,
            "wbps" => max.wbps = value,
            "riops" => max.riops = value,
            "wiops" => max.wiops = value,
            _ => return None,
        }
    }
    Some((Device { major: major.parse().ok()?, minor: minor.parse().ok()? }, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_comes_back_as_it_was() {
        let shown = [
            (Control::CpuMax, "max 100000"),
            (Control::CpuMax, "150000 100000"),
            (Control::CpuWeight, "100"),
            (Control::MemoryMax, "max"),
            (Control::MemoryLow, "1073741824"),
            (Control::PidsMax, "64"),
            (Control::IoMax, "254:0 rbps=1048576 wbps=max riops=max wiops=100"),
            (Control::CgroupMaxDepth, "8"),
        ];
        for (control, text) in shown {
            assert_eq!(control.parse(&format!("{text}\n")).unwrap().to_string(), text);
        }
        assert_eq!(Control::IoWeight.parse("default 200\n8:0 50\n"), Ok(ControlValue::Weight(200)));
        assert_eq!(Control::IoMax.parse(""), Ok(Control::IoMax.default_value()));
    }

    #[test]
    fn anything_else_is_an_error_that_names_the_file() {
        for (control, text) in [
            (Control::CpuMax, "max"),
            (Control::CpuWeight, "70000"),
            (Control::MemoryMax, "-1"),
            (Control::IoMax, "254:0 rbps=x"),
            (Control::IoMax, "254 rbps=1"),
            (Control::IoWeight, "100"),
        ] {
            let error = control.parse(text).unwrap_err();
            assert!(error.to_string().contains(control.file()), "{error}");
        }
    }
}
