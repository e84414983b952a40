//! What virtual clusters used.

use bulkhead_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::network::Network;
use super::{Coverage, moment};

/// The answer to `usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// First instant asked for; none: the oldest record.
    pub(crate) start: Option<Timestamp>,
    /// First instant after.
    pub(crate) end: Timestamp,
    /// Length of a row; none: the whole range.
    pub(crate) step_nanoseconds: Option<u64>,
    /// By start, then virtual cluster, then node.
    pub(crate) rows: Vec<Row>,
}

/// One row. A meter that the server does not have is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// First instant.
    pub(crate) start: Option<Timestamp>,
    /// First instant after.
    pub(crate) end: Option<Timestamp>,
    /// None where not grouped by it.
    pub(crate) virtual_cluster: Option<String>,
    /// None where not grouped by it.
    pub(crate) node: Option<String>,
    /// Processor time.
    pub(crate) cpu: Option<Cpu>,
    /// Memory.
    pub(crate) memory: Option<Memory>,
    /// Block devices.
    pub(crate) io: Option<Io>,
    /// Tasks.
    pub(crate) pids: Option<Pids>,
    /// Time in which tasks waited.
    pub(crate) pressure: Option<Pressure>,
    /// Network.
    pub(crate) network: Option<Network>,
}

/// Defines one meter: a struct of counters and its coverage, made from a message of the wire, and
/// the list of its counters for formats without nesting.
macro_rules! meter {
    ($(#[$meta:meta])* $name:ident from $wire:ident { $($(#[$doc:meta])* $field:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: u64,)+
            /// How much of it was seen.
            pub(crate) coverage: Coverage,
        }

        impl $name {
            /// Field names and values, in the order of the struct.
            pub(crate) fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),+]
            }
        }

        impl From<v1::$wire> for $name {
            fn from(usage: v1::$wire) -> Self {
                Self { $($field: usage.$field,)+ coverage: usage.coverage.into() }
            }
        }
    };
}

meter! {
    /// Processor time.
    Cpu from CpuUsage {
        /// All of it.
        usage_nanoseconds,
        /// In programs.
        user_nanoseconds,
        /// In the kernel.
        system_nanoseconds,
        /// Time that runnable tasks were held back by cpu.max.
        throttled_nanoseconds,
        /// Enforcement periods in which that happened.
        throttled_periods,
    }
}

meter! {
    /// Memory.
    Memory from MemoryUsage {
        /// In use, integrated over time.
        byte_seconds,
        /// Highest use seen (of one cgroup; not added up over nodes).
        peak_bytes,
        /// Processes killed for want of memory.
        oom_kills,
        /// Use when last sampled.
        current_bytes,
    }
}

meter! {
    /// Block devices.
    Io from IoUsage {
        /// Read.
        read_bytes,
        /// Written.
        write_bytes,
        /// Reads.
        read_operations,
        /// Writes.
        write_operations,
    }
}

meter! {
    /// Tasks.
    Pids from PidsUsage {
        /// Highest number seen (of one cgroup).
        peak,
        /// Forks refused by pids.max.
        refused,
        /// When last sampled.
        current,
    }
}

meter! {
    /// Time in which some or all tasks waited (PSI).
    Pressure from PressureUsage {
        /// Some waited for a processor.
        cpu_some_nanoseconds,
        /// Some waited for memory.
        memory_some_nanoseconds,
        /// All waited for memory.
        memory_full_nanoseconds,
        /// Some waited for a device.
        io_some_nanoseconds,
        /// All waited for a device.
        io_full_nanoseconds,
    }
}

impl Row {
    /// The coverage of each meter that the server has.
    pub(crate) fn coverages(&self) -> Vec<Coverage> {
        [
            self.cpu.map(|meter| meter.coverage),
            self.memory.map(|meter| meter.coverage),
            self.io.map(|meter| meter.coverage),
            self.pids.map(|meter| meter.coverage),
            self.pressure.map(|meter| meter.coverage),
            self.network.as_ref().map(|meter| meter.coverage),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The coverage of the meter that was seen least, of those of which anything was seen; where
    /// that is none, of any.
    pub(crate) fn least_coverage(&self) -> Coverage {
        Coverage::least(&self.coverages())
    }

    /// Whether every meter saw every moment.
    pub(crate) fn is_complete(&self) -> bool {
        self.coverages().into_iter().all(|coverage| coverage.is_known() && coverage.is_complete())
    }

    /// How long the row is; none where its ends make no sense.
    pub(crate) fn length_nanoseconds(&self) -> Option<u64> {
        let length = self.end?.duration_since(self.start?);
        u64::try_from(length.as_nanos()).ok().filter(|length| *length > 0)
    }
}

impl From<v1::UsageRow> for Row {
    fn from(row: v1::UsageRow) -> Self {
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        Self {
            start: moment(row.start.as_ref()),
            end: moment(row.end.as_ref()),
            virtual_cluster: named(row.virtual_cluster),
            node: named(row.node),
            cpu: row.cpu.map(Cpu::from),
            memory: row.memory.map(Memory::from),
            io: row.io.map(Io::from),
            pids: row.pids.map(Pids::from),
            pressure: row.pressure.map(Pressure::from),
            network: row.network.map(Network::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(covered_nanoseconds: u64) -> v1::Coverage {
        v1::Coverage { covered_nanoseconds, wanted_nanoseconds: 100 }
    }

    #[test]
    fn a_row_is_as_complete_as_its_least_meter() {
        let row = Row::from(v1::UsageRow {
            cpu: Some(v1::CpuUsage { coverage: Some(coverage(100)), ..Default::default() }),
            memory: Some(v1::MemoryUsage { coverage: Some(coverage(90)), ..Default::default() }),
            ..Default::default()
        });
        assert_eq!(row.least_coverage().covered_nanoseconds, 90);
        assert!(!row.is_complete());
        assert_eq!(row.coverages().len(), 2);
        assert_eq!(Row::default().least_coverage(), Coverage::default());
    }

    #[test]
    fn a_meter_that_saw_nothing_is_no_measure_but_no_completeness_either() {
        let row = Row::from(v1::UsageRow {
            cpu: Some(v1::CpuUsage { coverage: Some(coverage(100)), ..Default::default() }),
            network: Some(v1::NetworkUsage { coverage: Some(coverage(0)), classes: Vec::new() }),
            ..Default::default()
        });
        assert_eq!(row.least_coverage().covered_nanoseconds, 100);
        assert!(!row.is_complete());
        let blind = Row { cpu: None, ..row };
        assert_eq!(blind.least_coverage().wanted_nanoseconds, 100);
        assert!(!blind.least_coverage().is_known());
    }

    #[test]
    fn a_row_without_proper_ends_has_no_length() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let length = |start, end| {
            let row = v1::UsageRow { start, end, ..Default::default() };
            Row::from(row).length_nanoseconds()
        };
        assert_eq!(length(at(10), at(12)), Some(2_000_000_000));
        assert_eq!(length(at(12), at(10)), None);
        assert_eq!(length(at(10), None), None);
    }
}
