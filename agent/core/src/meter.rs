//! What is measured: one number for each meter, with its unit in its name.

use bulkhead_abi::{CLASSES, CONNECT_KINDS, DIRECTIONS};
use std::fmt;

/// Something that is measured. Its code is stored in journals and ledgers and sent over the
/// wire: codes are never given to another meter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Meter(u32);

/// How values of a meter combine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Grows from zero at its epoch; usage in a range is a difference.
    Counter,
    /// A level; a range has its maximum or its last.
    Gauge,
}

macro_rules! meters {
    ($($(#[$doc:meta])* $constant:ident = $code:literal, $kind:ident, $name:literal;)*) => {
        impl Meter {
            $($(#[$doc])* pub const $constant: Self = Self($code);)*

            /// Every meter with a fixed code; network meters come from [`Meter::network`] and
            /// [`Meter::refused_calls`].
            pub const FIXED: &'static [Self] = &[$(Self($code)),*];

            const fn fixed(self) -> Option<(&'static str, Kind)> {
                match self.0 {
                    $($code => Some(($name, Kind::$kind)),)*
                    _ => None,
                }
            }
        }
    };
}

meters! {
    /// CPU time.
    CPU_USAGE = 1, Counter, "cpu_usage_nanoseconds";
    /// CPU time in user mode.
    CPU_USER = 2, Counter, "cpu_user_nanoseconds";
    /// CPU time in the kernel.
    CPU_SYSTEM = 3, Counter, "cpu_system_nanoseconds";
    /// Time held back by cpu.max.
    CPU_THROTTLED = 4, Counter, "cpu_throttled_nanoseconds";
    /// Periods in which cpu.max held something back.
    CPU_THROTTLED_PERIODS = 5, Counter, "cpu_throttled_periods";
    /// Memory in use, integrated over time.
    MEMORY_BYTE_SECONDS = 20, Counter, "memory_byte_seconds";
    /// Memory in use.
    MEMORY_CURRENT = 21, Gauge, "memory_current_bytes";
    /// Highest memory use.
    MEMORY_PEAK = 22, Gauge, "memory_peak_bytes";
    /// Processes killed for want of memory.
    OOM_KILLS = 23, Counter, "oom_kills";
    /// Data read from block devices.
    IO_READ = 40, Counter, "io_read_bytes";
    /// Data written to block devices.
    IO_WRITE = 41, Counter, "io_write_bytes";
    /// Reads of block devices.
    IO_READ_OPERATIONS = 42, Counter, "io_read_operations";
    /// Writes of block devices.
    IO_WRITE_OPERATIONS = 43, Counter, "io_write_operations";
    /// Tasks.
    PIDS_CURRENT = 60, Gauge, "pids_current";
    /// Highest number of tasks.
    PIDS_PEAK = 61, Gauge, "pids_peak";
    /// Forks refused by pids.max.
    PIDS_REFUSED = 62, Counter, "pids_refused";
    /// Time in which some tasks waited for a CPU (PSI).
    PRESSURE_CPU_SOME = 80, Counter, "pressure_cpu_some_nanoseconds";
    /// Time in which some tasks waited for memory (PSI).
    PRESSURE_MEMORY_SOME = 81, Counter, "pressure_memory_some_nanoseconds";
    /// Time in which all tasks waited for memory (PSI).
    PRESSURE_MEMORY_FULL = 82, Counter, "pressure_memory_full_nanoseconds";
    /// Time in which some tasks waited for I/O (PSI).
    PRESSURE_IO_SOME = 83, Counter, "pressure_io_some_nanoseconds";
    /// Time in which all tasks waited for I/O (PSI).
    PRESSURE_IO_FULL = 84, Counter, "pressure_io_full_nanoseconds";
}

const NETWORK_BASE: u32 = 1_000;
const CALLS_BASE: u32 = 2_000;
const UNITS: usize = 2;
const OUTCOMES: usize = bulkhead_abi::OUTCOMES;
const CALL_OUTCOMES: usize = 2;

const DIRECTION_NAMES: [&str; DIRECTIONS] = ["egress", "ingress"];
const CLASS_NAMES: [&str; CLASSES] = ["own", "node", "shared", "other", "cluster", "outside"];
const OUTCOME_NAMES: [&str; OUTCOMES] = ["passed", "denied", "would_deny"];
const UNIT_NAMES: [&str; UNITS] = ["bytes", "packets"];
const CALL_NAMES: [&str; CONNECT_KINDS] = ["connects", "sendmsgs"];
const CALL_OUTCOME_NAMES: [&str; CALL_OUTCOMES] = ["denied", "would_deny"];

/// What a network meter counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NetworkUnit {
    /// Bytes from the IP header on.
    Bytes = 0,
    /// Packets; a GSO packet counts as its segments.
    Packets = 1,
}

/// A meter taken apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Parts {
    /// One of [`Meter::FIXED`].
    Fixed,
    /// Indices of the cell of [`bulkhead_abi::Counters::cells`], and the unit.
    Network {
        /// [`bulkhead_abi::Direction`] as a number.
        direction: usize,
        /// [`bulkhead_abi::Class`] as a number.
        class: usize,
        /// [`bulkhead_abi::Outcome`] as a number.
        outcome: usize,
        /// Bytes or packets.
        unit: NetworkUnit,
    },
    /// Indices of [`bulkhead_abi::Counters::connects`].
    Calls {
        /// 0: connect, 1: sendmsg.
        kind: usize,
        /// [`bulkhead_abi::Class`] as a number.
        class: usize,
        /// Whether it was only counted, not refused.
        would: bool,
    },
    /// Of a version that we do not know.
    Unknown,
}

impl Meter {
    /// From its code; every code is kept, known or not.
    pub const fn from_code(code: u32) -> Self {
        Self(code)
    }

    /// Its code.
    pub const fn code(self) -> u32 {
        self.0
    }

    /// The meter of one cell; `None` where an index is out of range.
    pub fn network(
        direction: usize,
        class: usize,
        outcome: usize,
        unit: NetworkUnit,
    ) -> Option<Self> {
        let fits = direction < DIRECTIONS && class < CLASSES && outcome < OUTCOMES;
        let index = ((direction * CLASSES + class) * OUTCOMES + outcome) * UNITS + unit as usize;
        Self::at(NETWORK_BASE, fits, index)
    }

    /// The meter of refused calls; `None` where an index is out of range.
    pub fn refused_calls(kind: usize, class: usize, would: bool) -> Option<Self> {
        let fits = kind < CONNECT_KINDS && class < CLASSES;
        let index = (kind * CLASSES + class) * CALL_OUTCOMES + usize::from(would);
        Self::at(CALLS_BASE, fits, index)
    }

    fn at(base: u32, fits: bool, index: usize) -> Option<Self> {
        fits.then_some(())?;
        Some(Self(base + u32::try_from(index).ok()?))
    }

    /// What it is made of.
    pub fn parts(self) -> Parts {
        if self.fixed().is_some() {
            return Parts::Fixed;
        }
        let within = |base: u32, len: usize| {
            let index = usize::try_from(self.0.checked_sub(base)?).ok()?;
            (index < len).then_some(index)
        };
        if let Some(index) = within(NETWORK_BASE, DIRECTIONS * CLASSES * OUTCOMES * UNITS) {
            let unit =
                if index.is_multiple_of(UNITS) { NetworkUnit::Bytes } else { NetworkUnit::Packets };
            let cell = index / UNITS;
            return Parts::Network {
                direction: cell / (OUTCOMES * CLASSES),
                class: cell / OUTCOMES % CLASSES,
                outcome: cell % OUTCOMES,
                unit,
            };
        }
        if let Some(index) = within(CALLS_BASE, CONNECT_KINDS * CLASSES * CALL_OUTCOMES) {
            let cell = index / CALL_OUTCOMES;
            return Parts::Calls {
                kind: cell / CLASSES,
                class: cell % CLASSES,
                would: index % CALL_OUTCOMES == 1,
            };
        }
        Parts::Unknown
    }

    /// How its values combine; a meter that we do not know is taken for a counter.
    pub fn kind(self) -> Kind {
        self.fixed().map_or(Kind::Counter, |(_, kind)| kind)
    }

    /// Every network meter.
    pub fn all_network() -> impl Iterator<Item = Self> {
        let traffic = (NETWORK_BASE..).take(DIRECTIONS * CLASSES * OUTCOMES * UNITS);
        let refusals = (CALLS_BASE..).take(CONNECT_KINDS * CLASSES * CALL_OUTCOMES);
        traffic.chain(refusals).map(Self)
    }
}

/// Its name, unit last (`network_egress_own_passed_bytes`); `meter_7` where it is not known.
impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = self.fixed() {
            return f.write_str(name);
        }
        match self.parts() {
            Parts::Network { direction, class, outcome, unit } => write!(
                f,
                "network_{}_{}_{}_{}",
                DIRECTION_NAMES[direction],
                CLASS_NAMES[class],
                OUTCOME_NAMES[outcome],
                UNIT_NAMES[unit as usize]
            ),
            Parts::Calls { kind, class, would } => write!(
                f,
                "network_egress_{}_{}_{}",
                CLASS_NAMES[class],
                CALL_OUTCOME_NAMES[usize::from(would)],
                CALL_NAMES[kind]
            ),
            Parts::Fixed | Parts::Unknown => write!(f, "meter_{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_names_are_unique() {
        let all: Vec<Meter> = Meter::FIXED.iter().copied().chain(Meter::all_network()).collect();
        let codes: BTreeSet<u32> = all.iter().map(|meter| meter.code()).collect();
        let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(codes.len(), all.len());
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn network_meters_come_apart_as_they_were_made() {
        for meter in Meter::all_network() {
            let again = match meter.parts() {
                Parts::Network { direction, class, outcome, unit } => {
                    Meter::network(direction, class, outcome, unit)
                }
                Parts::Calls { kind, class, would } => Meter::refused_calls(kind, class, would),
                Parts::Fixed | Parts::Unknown => None,
            };
            assert_eq!(again, Some(meter));
        }
    }

    #[test]
    fn names_end_with_the_unit() {
        let meter = Meter::network(0, 0, 0, NetworkUnit::Bytes).unwrap();
        assert_eq!(meter.to_string(), "network_egress_own_passed_bytes");
        let meter = Meter::refused_calls(0, 3, false).unwrap();
        assert_eq!(meter.to_string(), "network_egress_other_denied_connects");
        assert_eq!(Meter::from_code(7).to_string(), "meter_7");
        assert_eq!(Meter::network(2, 0, 0, NetworkUnit::Bytes), None);
    }
}
