//! One row: which meter goes where.

use std::collections::BTreeMap;

use bulkhead_core::Meter;
use bulkhead_core::meter::{NetworkUnit, Parts};
use bulkhead_proto::time::timestamp;
use bulkhead_proto::v1;

use super::{Pair, PairKey, QueryError, Reading, Seen, Series, Span};
use crate::family::Family;

/// The row of one group and one span, without its coverage. `index`: of the span.
pub(super) fn row(
    index: usize,
    span: Span,
    group: &PairKey,
    series: &[&(Series, Reading)],
) -> Result<v1::UsageRow, QueryError> {
    let mut sums = Sums { span, group, counters: BTreeMap::new(), gauges: BTreeMap::new() };
    for (series, reading) in series.iter().copied() {
        match reading {
            Reading::Counter(levels) => {
                if let Some([before, after]) = levels.get(index..index + 2) {
                    sums.add(series, *before, *after)?;
                }
            }
            Reading::Gauge(seen) => {
                if let Some(Some(seen)) = seen.get(index) {
                    let gauges = sums.gauges.entry(series.meter).or_default();
                    gauges.push((&series.key, *seen));
                }
            }
        }
    }
    sums.row()
}

/// What the series of a row add up to.
struct Sums<'a> {
    span: Span,
    group: &'a PairKey,
    counters: BTreeMap<Meter, u64>,
    gauges: BTreeMap<Meter, Vec<(&'a PairKey, Seen)>>,
}

impl Sums<'_> {
    fn add(&mut self, series: &Series, before: u64, after: u64) -> Result<(), QueryError> {
        // Levels do not fall: each is the highest so far.
        let used = after.saturating_sub(before);
        let sum = self.counters.get(&series.meter).copied().unwrap_or(0);
        let sum = sum.checked_add(used).ok_or_else(|| self.overflow(series.meter))?;
        self.counters.insert(series.meter, sum);
        Ok(())
    }

    fn overflow(&self, meter: Meter) -> QueryError {
        let PairKey { virtual_cluster, node } = self.group;
        let group = match (virtual_cluster.as_str(), node.as_str()) {
            ("", node) => format!("node \"{node}\""),
            (cluster, "") => format!("virtual cluster \"{cluster}\""),
            (cluster, node) => format!("virtual cluster \"{cluster}\" on node \"{node}\""),
        };
        let Span { start, end } = self.span;
        QueryError::Overflow { meter: meter.to_string(), group, start, end }
    }

    fn sum(&self, meter: Meter) -> u64 {
        self.counters.get(&meter).copied().unwrap_or(0)
    }

    /// The highest of any cgroup.
    fn highest(&self, meter: Meter) -> u64 {
        let seen = self.gauges.get(&meter).into_iter().flatten();
        seen.map(|(_, seen)| seen.highest).max().unwrap_or(0)
    }

    /// The last of every cgroup that was still there, which is: seen in the last window in which
    /// anything of its virtual cluster was seen on its node.
    fn last(&self, meter: Meter) -> Result<u64, QueryError> {
        let seen = self.gauges.get(&meter).map_or(&[][..], Vec::as_slice);
        let mut latest: BTreeMap<&PairKey, u64> = BTreeMap::new();
        for (key, seen) in seen {
            let start = latest.entry(*key).or_insert(seen.last_start);
            *start = (*start).max(seen.last_start);
        }
        let there = seen.iter().filter(|(key, seen)| latest.get(key) == Some(&seen.last_start));
        there
            .map(|(_, seen)| seen.last)
            .try_fold(0_u64, u64::checked_add)
            .ok_or_else(|| self.overflow(meter))
    }

    fn row(&self) -> Result<v1::UsageRow, QueryError> {
        let sum = |meter| self.sum(meter);
        Ok(v1::UsageRow {
            start: Some(timestamp(self.span.start)),
            end: Some(timestamp(self.span.end)),
            virtual_cluster: self.group.virtual_cluster.clone(),
            node: self.group.node.clone(),
            cpu: Some(v1::CpuUsage {
                usage_nanoseconds: sum(Meter::CPU_USAGE),
                user_nanoseconds: sum(Meter::CPU_USER),
                system_nanoseconds: sum(Meter::CPU_SYSTEM),
                throttled_nanoseconds: sum(Meter::CPU_THROTTLED),
                throttled_periods: sum(Meter::CPU_THROTTLED_PERIODS),
                coverage: None,
            }),
            memory: Some(v1::MemoryUsage {
                byte_seconds: sum(Meter::MEMORY_BYTE_SECONDS),
                // Where the kernel keeps no peak, the highest sample is the best that is known.
                peak_bytes: self
                    .highest(Meter::MEMORY_PEAK)
                    .max(self.highest(Meter::MEMORY_CURRENT)),
                oom_kills: sum(Meter::OOM_KILLS),
                current_bytes: self.last(Meter::MEMORY_CURRENT)?,
                coverage: None,
            }),
            io: Some(v1::IoUsage {
                read_bytes: sum(Meter::IO_READ),
                write_bytes: sum(Meter::IO_WRITE),
                read_operations: sum(Meter::IO_READ_OPERATIONS),
                write_operations: sum(Meter::IO_WRITE_OPERATIONS),
                coverage: None,
            }),
            pids: Some(v1::PidsUsage {
                peak: self.highest(Meter::PIDS_PEAK).max(self.highest(Meter::PIDS_CURRENT)),
                refused: sum(Meter::PIDS_REFUSED),
                current: self.last(Meter::PIDS_CURRENT)?,
                coverage: None,
            }),
            pressure: Some(v1::PressureUsage {
                cpu_some_nanoseconds: sum(Meter::PRESSURE_CPU_SOME),
                memory_some_nanoseconds: sum(Meter::PRESSURE_MEMORY_SOME),
                memory_full_nanoseconds: sum(Meter::PRESSURE_MEMORY_FULL),
                io_some_nanoseconds: sum(Meter::PRESSURE_IO_SOME),
                io_full_nanoseconds: sum(Meter::PRESSURE_IO_FULL),
                coverage: None,
            }),
            network: Some(v1::NetworkUsage { classes: self.classes(), coverage: None }),
        })
    }

    /// One entry for each direction and class in which anything happened.
    fn classes(&self) -> Vec<v1::NetworkClassUsage> {
        let mut classes: BTreeMap<(usize, usize), v1::NetworkClassUsage> = BTreeMap::new();
        for (meter, value) in self.counters.iter().filter(|(_, value)| **value != 0) {
            let (direction, class) = match meter.parts() {
                Parts::Network { direction, class, .. } => (direction, class),
                Parts::Calls { class, .. } => (EGRESS, class),
                Parts::Fixed | Parts::Unknown => continue,
            };
            let entry =
                classes.entry((direction, class)).or_insert_with(|| v1::NetworkClassUsage {
                    direction: DIRECTIONS.get(direction).copied().unwrap_or_default().into(),
                    class: CLASSES.get(class).copied().unwrap_or_default().into(),
                    ..Default::default()
                });
            if let Some(field) = field(entry, meter.parts()) {
                *field = *value;
            }
        }
        classes.into_values().collect()
    }
}

/// `bulkhead_abi::Direction::Egress` as a number.
const EGRESS: usize = 0;

/// By `bulkhead_abi::Direction`.
const DIRECTIONS: [v1::NetworkDirection; 2] =
    [v1::NetworkDirection::Egress, v1::NetworkDirection::Ingress];

/// By `bulkhead_abi::Class`.
const CLASSES: [v1::NetworkClass; 6] = [
    v1::NetworkClass::Own,
    v1::NetworkClass::Node,
    v1::NetworkClass::Shared,
    v1::NetworkClass::Other,
    v1::NetworkClass::Cluster,
    v1::NetworkClass::Outside,
];

fn field(entry: &mut v1::NetworkClassUsage, parts: Parts) -> Option<&mut u64> {
    Some(match parts {
        Parts::Network { outcome: 0, unit: NetworkUnit::Bytes, .. } => &mut entry.passed_bytes,
        Parts::Network { outcome: 0, unit: NetworkUnit::Packets, .. } => &mut entry.passed_packets,
        Parts::Network { outcome: 1, unit: NetworkUnit::Bytes, .. } => &mut entry.denied_bytes,
        Parts::Network { outcome: 1, unit: NetworkUnit::Packets, .. } => &mut entry.denied_packets,
        Parts::Network { outcome: 2, unit: NetworkUnit::Bytes, .. } => &mut entry.would_deny_bytes,
        Parts::Network { outcome: 2, unit: NetworkUnit::Packets, .. } => {
            &mut entry.would_deny_packets
        }
        Parts::Calls { kind: 0, would: false, .. } => &mut entry.denied_connects,
        Parts::Calls { kind: 0, would: true, .. } => &mut entry.would_deny_connects,
        Parts::Calls { kind: 1, would: false, .. } => &mut entry.denied_sendmsgs,
        Parts::Calls { kind: 1, would: true, .. } => &mut entry.would_deny_sendmsgs,
        _ => return None,
    })
}

/// Says for each family how much of the row was really seen.
pub(super) fn cover(
    row: &mut v1::UsageRow,
    span: Span,
    pairs: &[&Pair],
    coverage: &BTreeMap<(PairKey, Family), Vec<Span>>,
) -> Result<(), QueryError> {
    let of = |family: Family| -> Result<Option<v1::Coverage>, QueryError> {
        let (mut covered, mut wanted) = (0_u64, 0_u64);
        let overflow = || QueryError::Overflow {
            meter: "coverage".to_owned(),
            group: "a row".to_owned(),
            start: span.start,
            end: span.end,
        };
        for pair in pairs {
            let known = coverage.get(&(pair.key.clone(), family)).into_iter().flatten();
            for seen in known {
                covered = covered.checked_add(seen.common(span)).ok_or_else(overflow)?;
            }
            let from = Span { start: pair.first_start, end: u64::MAX };
            wanted = wanted.checked_add(from.common(span)).ok_or_else(overflow)?;
        }
        Ok(Some(v1::Coverage { covered_nanoseconds: covered, wanted_nanoseconds: wanted }))
    };
    if let Some(part) = &mut row.cpu {
        part.coverage = of(Family::Cpu)?;
    }
    if let Some(part) = &mut row.memory {
        part.coverage = of(Family::Memory)?;
    }
    if let Some(part) = &mut row.io {
        part.coverage = of(Family::Io)?;
    }
    if let Some(part) = &mut row.pids {
        part.coverage = of(Family::Pids)?;
    }
    if let Some(part) = &mut row.pressure {
        part.coverage = of(Family::Pressure)?;
    }
    if let Some(part) = &mut row.network {
        part.coverage = of(Family::Network)?;
    }
    Ok(())
}
